/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one store has at a path: the folders of this machine, for itself and
 * for other ranks. Mounts of FUSE in a store are left out: the mount of a rank
 * may be inside of its store, or of another's.
 */
#ifndef SHARD_STORE_FOLDER_RECORDS_H
#define SHARD_STORE_FOLDER_RECORDS_H

#include "shard/store/folder_entry.h"

/* All of the folder @path of @store, sorted by name, appended to @out as
 * entries. -ENOENT, -ENOTDIR, -errno. */
int folder_records_list(int store, const char *path, struct array *out);

/* One entry: the file or folder @path itself, under its last part (the store:
 * "store"). -ENOENT, -errno. */
int folder_records_status(int store, const char *path, struct array *out);

/* Open the regular file @path of @store, as io_open; @ret_status as well. */
int folder_records_open(int store, const char *path, int *ret_fd,
	       struct stat *ret_status);

/* XXH3-128 of @size bytes of an open file. */
int folder_records_digest(int fd, uint64_t size, uint64_t ret_hash[2]);

#endif
