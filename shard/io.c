/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct pin pin_from_stat(const struct stat *status)
{
	return (struct pin){
		.device = status->st_dev,
		.inode = status->st_ino,
		.size = (uint64_t)status->st_size,
		.mtime = status->st_mtim.tv_sec * INT64_C(1000000000) +
			 status->st_mtim.tv_nsec,
		.ctime = status->st_ctim.tv_sec * INT64_C(1000000000) +
			 status->st_ctim.tv_nsec,
	};
}

bool pin_equal(const struct pin *a, const struct pin *b)
{
	return a->device == b->device && a->inode == b->inode &&
	       a->size == b->size && a->mtime == b->mtime &&
	       a->ctime == b->ctime;
}

static int open_beneath(int folder, const char *path, uint64_t flags,
			uint64_t resolve)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | resolve,
	};
	int tries = 100;
	long fd;

	/* EAGAIN: a rename somewhere raced with the walk, try again. */
	do
		fd = syscall(SYS_openat2, folder, path, &how, sizeof(how));
	while (fd < 0 && (errno == EINTR || (errno == EAGAIN && tries-- > 0)));
	return fd < 0 ? -errno : (int)fd;
}

/* A handle that opens nothing: what a name leads to is known before it is
 * opened, and cannot change in between. */
static int open_handle(int folder, const char *path, struct stat *ret_status)
{
	int handle = open_beneath(folder, path, O_PATH, RESOLVE_NO_XDEV), error;

	if (handle < 0)
		return handle;
	error = fstat(handle, ret_status) < 0 ? -errno :
		S_ISREG(ret_status->st_mode) ? 0 : -EINVAL;
	if (!error)
		return handle;
	close(handle);
	return error;
}

int io_open(int folder, const char *path, int *ret_fd,
	    struct stat *ret_status)
{
	struct stat status;
	char link[32];
	int handle, fd, error;

	handle = open_handle(folder, path, &status);
	if (handle < 0)
		return handle;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", handle);
	do
		fd = open(link, O_RDONLY | O_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	error = fd < 0 ? -errno : 0;
	close(handle);
	if (error)
		return error;
	*ret_fd = fd;
	*ret_status = status;
	return 0;
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
	int fd = open_beneath(folder, path, O_RDONLY | O_DIRECTORY, 0);

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
