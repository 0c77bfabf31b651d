/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/io.h"

#include "shard/base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_resolved(int folder, const char *path, uint64_t flags,
			 uint64_t resolve)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC,
		.resolve = RESOLVE_NO_MAGICLINKS | resolve,
	};
	int tries = 100;
	long fd;

	/* EAGAIN: a rename somewhere raced with the walk, try again. */
	do
		fd = syscall(SYS_openat2, folder, path, &how, sizeof(how));
	while (fd < 0 && (errno == EINTR || (errno == EAGAIN && tries-- > 0)));
	return fd < 0 ? -errno : (int)fd;
}

/*
 * A snapshot in Hugging Face's cache has links instead of files, to
 * ../../blobs/HASH. Of all links that lead out of a folder only these are
 * followed: to a file of that form, through no other link. @ret_target has
 * room for what they hold.
 */
enum { BLOB_TARGET_MAX = sizeof("../../blobs/") + 64 };

bool io_is_blob_target(const char *target)
{
	static const char prefix[] = "../../blobs/";
	const size_t prefix_size = sizeof(prefix) - 1, size = strlen(target);

	return size > prefix_size && size < BLOB_TARGET_MAX &&
	       memcmp(target, prefix, prefix_size) == 0 &&
	       strspn(target + prefix_size, "0123456789abcdef") ==
	       size - prefix_size;
}

static bool is_blob_link(int folder, const char *path,
			 char ret_target[BLOB_TARGET_MAX])
{
	ssize_t size = readlinkat(folder, path, ret_target,
				  BLOB_TARGET_MAX);

	if (strchr(path, '/') || size < 0 || size == BLOB_TARGET_MAX)
		return false;
	ret_target[size] = '\0';
	return io_is_blob_target(ret_target);
}

/* @handle if it stands for a regular file; else it is closed. */
static int check_handle(int handle, struct stat *ret_status)
{
	int error;

	if (handle < 0)
		return handle;
	error = fstat(handle, ret_status) < 0 ? -errno :
		S_ISREG(ret_status->st_mode) ? 0 : -EINVAL;
	if (!error)
		return handle;
	close(handle);
	return error;
}

/* A handle that opens nothing: what a name leads to is known before it is
 * opened, and cannot change in between. */
static int open_handle(int folder, const char *path, struct stat *ret_status)
{
	char target[BLOB_TARGET_MAX];
	int handle;

	handle = open_resolved(folder, path, O_PATH,
			       RESOLVE_BENEATH | RESOLVE_NO_XDEV);
	if (handle == -EXDEV && is_blob_link(folder, path, target))
		handle = open_resolved(folder, target, O_PATH,
				       RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
	return check_handle(handle, ret_status);
}

/* Open what @handle, which is closed, stands for. */
static int open_file(int handle, int *ret_fd)
{
	char link[32];
	int fd, error;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", handle);
	do
		fd = open(link, O_RDONLY | O_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	error = fd < 0 ? -errno : 0;
	close(handle);
	if (!error)
		*ret_fd = fd;
	return error;
}

int io_open(int folder, const char *path, int *ret_fd,
	    struct stat *ret_status)
{
	struct stat status;
	int handle = open_handle(folder, path, &status), error;

	if (handle < 0)
		return handle;
	error = open_file(handle, ret_fd);
	if (!error)
		*ret_status = status;
	return error;
}

int io_open_linked(int folder, const char *path, int *ret_fd,
		   struct stat *ret_status)
{
	struct stat status;
	int handle, error;

	handle = check_handle(open_resolved(folder, path, O_PATH, 0),
			      &status);
	if (handle < 0)
		return handle;
	error = open_file(handle, ret_fd);
	if (!error)
		*ret_status = status;
	return error;
}

int io_stat(int folder, const char *path, struct stat *ret_status)
{
	struct stat status;
	int handle = open_handle(folder, path, &status);

	if (handle < 0)
		return handle;
	close(handle);
	*ret_status = status;
	return 0;
}

bool io_is_missing(int error)
{
	switch (-error) {
	case ENOENT:
	case ENOTDIR:
	case EINVAL:	/* not a regular file */
	case EXDEV:	/* outside of the folder */
	case ELOOP:
	case EACCES:
	case ENAMETOOLONG:
		return true;
	default:
		return false;
	}
}

int io_open_folder(int folder, const char *path, int *ret_fd)
{
	int fd = open_resolved(folder, path, O_RDONLY | O_DIRECTORY,
			       RESOLVE_BENEATH);

	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}

int io_read(int fd, void *buffer, size_t size, uint64_t offset)
{
	char *p = buffer;

	while (size > 0) {
		ssize_t got = pread(fd, p, size, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -EIO;
		p += got;
		size -= (size_t)got;
		offset += (uint64_t)got;
	}
	return 0;
}

int io_open_parent(int folder, const char *path, struct io_parent *ret_parent)
{
	const char *slash = strrchr(path, '/');
	char copy[LIMIT_PATH_SIZE];

	*ret_parent = (struct io_parent){ .fd = folder,
					  .name = *path ? path : "." };
	if (!slash)
		return 0;
	if (slash - path >= (ptrdiff_t)sizeof(copy))
		return -ENAMETOOLONG;
	memcpy(copy, path, (size_t)(slash - path));
	copy[slash - path] = '\0';
	ret_parent->opened = true;
	ret_parent->name = slash + 1;
	return io_open_folder(folder, copy, &ret_parent->fd);
}

void io_close_parent(const struct io_parent *parent)
{
	if (parent->opened)
		close(parent->fd);
}

bool io_is_in_memory(int folder)
{
	struct statfs status;

	return fstatfs(folder, &status) == 0 &&
	       (status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC);
}

/* One call; 0 at the end of the file. A file system that cannot be told not to
 * block may do so. */
static ssize_t read_some(const struct io_file *file,
			 const struct iovec *vectors, unsigned count,
			 uint64_t offset)
{
	int flags = file->nowait && !file->in_memory ? RWF_NOWAIT : 0;
	ssize_t got;

	do
		got = preadv2(file->fd, vectors, (int)count, (off_t)offset,
			      flags);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return flags && errno == EOPNOTSUPP ? -EAGAIN : -errno;
	return got;
}

int io_read_up_to(const struct io_file *file, void *buffer, size_t size,
		  uint64_t offset, uint64_t *ret_done)
{
	size_t done = 0;

	while (done < size) {
		const struct iovec rest = { (char *)buffer + done,
					    size - done };
		ssize_t got = read_some(file, &rest, 1, offset + done);

		if (got < 0)
			return (int)got;
		if (got == 0)
			break;
		done += (size_t)got;
	}
	*ret_done = done;
	return 0;
}

int io_read_vectors(const struct io_file *file, struct iovec *vectors,
		    unsigned count, uint64_t offset)
{
	while (count > 0) {
		ssize_t got = read_some(file, vectors, count, offset);

		if (got <= 0)
			return got < 0 ? (int)got : -EIO;
		offset += (uint64_t)got;
		while (count > 0 && (size_t)got >= vectors->iov_len) {
			got -= (ssize_t)vectors->iov_len;
			vectors++;
			count--;
		}
		if (count > 0) {
			vectors->iov_base = (char *)vectors->iov_base + got;
			vectors->iov_len -= (size_t)got;
		}
	}
	return 0;
}

static int read_file(const struct input *input, void *buffer, size_t size,
		     uint64_t offset)
{
	int error = io_read(input->fd, buffer, size, input->base + offset);

	if (error && input->failed)
		*input->failed = error;
	return error;
}

static int read_memory(const struct input *input, void *buffer, size_t size,
		       uint64_t offset)
{
	memcpy(buffer, (const char *)input->data + offset, size);
	return 0;
}

struct input input_file(int fd, uint64_t base, uint64_t size)
{
	return (struct input){
		.read = read_file, .size = size, .base = base, .fd = fd,
	};
}

struct input input_memory(const void *data, uint64_t size)
{
	return (struct input){ .read = read_memory, .size = size, .fd = -1,
			       .data = data };
}
