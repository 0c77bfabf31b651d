/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/folder_records.h"

#include "shard/base/hash.h"
#include "shard/base/limits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

static const char *here(const char *path)
{
	return *path ? path : ".";
}

static bool is_foreign(int folder, const char *name, const struct stat *status,
		       dev_t device)
{
	struct statfs about;
	bool foreign;
	int fd;

	if (!S_ISDIR(status->st_mode) || status->st_dev == device)
		return false;
	fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return true;
	foreign = fstatfs(fd, &about) < 0 || about.f_type == FUSE_SUPER_MAGIC;
	close(fd);
	return foreign;
}

static int add(int folder, const char *name, dev_t device, struct array *out)
{
	char target[4096];
	ssize_t size = 0;
	struct stat status;

	/* It may just be gone. */
	if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
	    is_foreign(folder, name, &status, device))
		return 0;
	if (S_ISLNK(status.st_mode)) {
		size = readlinkat(folder, name, target, sizeof(target));
		if (size < 0 || size == sizeof(target))
			return 0;
	}
	return stored_entry_append(out, name, &status, target, (size_t)size);
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_names(struct array *names)
{
	char **name = (void *)names->data;
	size_t i;

	for (i = 0; i < names->size / sizeof(*name); i++)
		free(name[i]);
	array_finish(names);
}

static int read_names(DIR *stream, struct array *names)
{
	struct dirent *entry;
	char *copy;

	for (;;) {
		errno = 0;
		entry = readdir(stream);
		if (!entry)
			return -errno;
		if (strcmp(entry->d_name, ".") == 0 ||
		    strcmp(entry->d_name, "..") == 0)
			continue;
		copy = strdup(entry->d_name);
		if (!copy)
			return -ENOMEM;
		if (array_append(names, &copy, sizeof(copy))) {
			free(copy);
			return -ENOMEM;
		}
	}
}

static int list(DIR *stream, struct array *out)
{
	struct array names = { .data = NULL };
	struct stat status;
	int error = read_names(stream, &names);
	size_t count = names.size / sizeof(char *), i;

	if (!error && fstat(dirfd(stream), &status) < 0)
		error = -errno;
	if (count > 1)
		qsort(names.data, count, sizeof(char *), compare);
	for (i = 0; i < count && !error; i++)
		error = add(dirfd(stream), ((char **)(void *)names.data)[i],
			    status.st_dev, out);
	free_names(&names);
	return error;
}

int folder_records_list(int store, const char *path, struct array *out)
{
	DIR *stream;
	int fd, error = io_open_folder(store, here(path), &fd);

	if (error)
		return error;
	stream = fdopendir(fd);
	if (!stream) {
		error = -errno;
		close(fd);
		return error;
	}
	error = list(stream, out);
	closedir(stream);
	return error;
}

int folder_records_status(int store, const char *path, struct array *out)
{
	struct io_parent parent;
	struct stat status;
	size_t before = out->size;
	int error = io_open_parent(store, path, &parent);

	if (error)
		return error;
	if (fstat(parent.fd, &status) < 0)
		error = -errno;
	else if (!*path)
		error = stored_entry_append(out, "store", &status, NULL, 0);
	else
		error = add(parent.fd, parent.name, status.st_dev, out);
	io_close_parent(&parent);
	return !error && out->size == before ? -ENOENT : error;
}

int folder_records_open(int store, const char *path, int *ret_fd,
			struct stat *ret_status)
{
	struct io_parent parent;
	int error = io_open_parent(store, path, &parent);

	if (error)
		return error;
	error = io_open(parent.fd, parent.name, ret_fd, ret_status);
	io_close_parent(&parent);
	return error;
}

int folder_records_digest(int fd, uint64_t size, uint64_t ret_hash[2])
{
	struct hash_stream *stream = hash_stream_create();
	char *buffer = malloc(LIMIT_READ_SIZE);
	uint64_t offset = 0;
	int error = stream && buffer ? 0 : -ENOMEM;

	while (!error && offset < size) {
		size_t part = size - offset < LIMIT_READ_SIZE ?
			      (size_t)(size - offset) : LIMIT_READ_SIZE;

		error = io_read(fd, buffer, part, offset);
		if (!error)
			hash_stream_add(stream, buffer, part);
		offset += part;
	}
	if (!error)
		hash_stream_end(stream, ret_hash);
	free(buffer);
	hash_stream_destroy(stream);
	return error;
}
