/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a store: opened below one folder only, read whole or not at all. */
#ifndef SHARD_BASE_IO_H
#define SHARD_BASE_IO_H

#include "shard/base/pin.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>

/*
 * Open the regular file @path, which is resolved below @folder and never
 * leaves it, nor its file system (openat2, RESOLVE_BENEATH), but for the links
 * of Hugging Face's cache to ../../blobs/HASH. 0 with a descriptor that the
 * caller closes and its status, or -errno; -EINVAL for anything but a regular
 * file, which is never opened, so that a FIFO or a device does not notice.
 */
int io_open(int folder, const char *path, int *ret_fd,
	    struct stat *ret_status);

/* Is that what such a link has? */
bool io_is_blob_target(const char *target);

/* Likewise, through links wherever they lead: for folders of who mounts. */
int io_open_linked(int folder, const char *path, int *ret_fd,
		   struct stat *ret_status);

/* The status of the regular file @path, which is not opened. 0 or -errno as
 * io_open. */
int io_stat(int folder, const char *path, struct stat *ret_status);

/* Does @error, of io_open or io_stat, say that there is no such regular file,
 * or none that may be opened? Others say nothing about the file, such as
 * -EMFILE or -EIO. */
bool io_is_missing(int error);

/* Open the folder @path below @folder, on whatever file system. */
int io_open_folder(int folder, const char *path, int *ret_fd);

/* The folder that something lies in, and its name there; "." is itself. */
struct io_parent {
	int fd;
	bool opened;		/* to be closed, by io_close_parent */
	const char *name;	/* borrowed from the path */
};

/* That of @path below @folder; "" is @folder itself. 0 or -errno; then there
 * is nothing to close. */
int io_open_parent(int folder, const char *path, struct io_parent *ret_parent);
void io_close_parent(const struct io_parent *parent);

/* How a file is read. */
struct io_file {
	int fd;
	bool nowait;		/* -EAGAIN instead of blocking */
	bool in_memory;		/* reading never blocks: see io_is_in_memory */
};

/* Do the pages of files of @folder never leave memory (tmpfs)? The kernel
 * cannot be told there not to block, and need not be. */
bool io_is_in_memory(int folder);

/* Up to @size bytes, fewer only at the end of the file. 0 or -errno. */
int io_read_up_to(const struct io_file *file, void *buffer, size_t size,
		  uint64_t offset, uint64_t *ret_done);

/* Full or an error: -EIO when the file ends before. */
int io_read(int fd, void *buffer, size_t size, uint64_t offset);
/* Likewise, into each of @count <= IO_VECTORS_MAX in turn, which are used
 * up. */
enum { IO_VECTORS_MAX = 256 };
int io_read_vectors(const struct io_file *file, struct iovec *vectors,
		    unsigned count, uint64_t offset);

/*
 * Bytes to parse: part of a file, or memory in a test. `read` is full or
 * -errno; the caller keeps inside `size`.
 */
struct input {
	int (*read)(const struct input *input, void *buffer, size_t size,
		    uint64_t offset);
	uint64_t size;		/* bytes */
	uint64_t base;		/* offset of byte 0 in its file */
	int fd;			/* borrowed; of input_file */
	int *failed;		/* borrowed, may be NULL: gets the -errno of a
				 * read that failed, which is no damage */
	const void *data;	/* borrowed; of input_memory */
};

struct input input_file(int fd, uint64_t base, uint64_t size);
struct input input_memory(const void *data, uint64_t size);

#endif
