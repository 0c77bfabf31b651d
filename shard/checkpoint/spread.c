/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/checkpoint/spread.h"

#include "shard/base/bytes.h"
#include "shard/base/hash.h"
#include "shard/base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char inner_name[] = "sharded";

struct spread *spread_create(struct merger *merger, struct peers *peers,
			     const char *path)
{
	struct spread *spread = calloc(1, sizeof(*spread));
	unsigned i;

	if (!spread)
		return NULL;
	spread->merger = merger;
	spread->peers = peers;
	spread->path = strdup(path);
	spread->folders = calloc(peers->count, sizeof(*spread->folders));
	if (!spread->path || !spread->folders) {
		free(spread->path);
		free(spread->folders);
		free(spread);
		return NULL;
	}
	for (i = 0; i < peers->count; i++) {
		spread->folders[i] = -1;
		if (peers->stores[i] >= 0 &&
		    io_open_folder(peers->stores[i], *path ? path : ".",
				   &spread->folders[i]) < 0)
			spread->folders[i] = -1;
	}
	return spread;
}

void spread_destroy(struct spread *spread)
{
	unsigned i;

	if (!spread)
		return;
	for (i = 0; i < spread->peers->count; i++)
		if (spread->folders[i] >= 0)
			close(spread->folders[i]);
	free(spread->folders);
	free(spread->ranks);
	free(spread->path);
	free(spread);
}

static int join(const struct spread *spread, const char *name,
		char ret_path[LIMIT_PATH_SIZE])
{
	int size = snprintf(ret_path, LIMIT_PATH_SIZE, "%s%s%s", spread->path,
			    *spread->path ? "/" : "", name);

	return size < LIMIT_PATH_SIZE ? 0 : -ENAMETOOLONG;
}

/* ---- markers ------------------------------------------------------------- */

static void pin_markers(struct metadata_files *list,
			const struct merged *merged, const struct merged *inner,
			uint64_t *signature, struct stat *status)
{
	unsigned i;

	for (i = 0; i < list->count; i++) {
		struct metadata_file *marker = &list->markers[i];
		const char *slash = strchr(marker->name, '/');
		const struct merged_entry *entry =
			slash ? merged_find(inner, slash + 1) :
				merged_find(merged, marker->name);

		/* It was listed from the same. */
		if (!entry)
			continue;
		marker->pin = entry->stored.pin;
		if (i == 0)
			pin_status(&entry->stored.pin, status);
		*signature = hash_64(marker->name, strlen(marker->name),
				       *signature + entry->rank);
		*signature = hash_64(&marker->pin, sizeof(marker->pin),
				       *signature);
	}
	*signature |= 1;
}

int spread_markers(struct merger *merger, const char *path, bool fresh,
		   struct metadata_files *ret_list, uint64_t *ret_signature,
		   struct stat *ret_status)
{
	struct merged *merged = NULL, *inner = NULL;
	char inner_path[LIMIT_PATH_SIZE];
	const struct merged_entry *entry;
	int size = snprintf(inner_path, sizeof(inner_path), "%s%s%s", path,
			    *path ? "/" : "", inner_name);
	int error = size < LIMIT_PATH_SIZE ?
		    merger_get(merger, path, fresh, &merged) : -ENAMETOOLONG;

	if (error)
		return error;
	entry = merged_find(merged, inner_name);
	if (entry && S_ISDIR(entry->stored.pin.mode))
		error = merger_get(merger, inner_path, fresh, &inner);
	if (!error)
		error = metadata_files_merged(merged, inner, ret_list);
	if (!error) {
		*ret_signature = 0;
		pin_markers(ret_list, merged, inner, ret_signature,
			    ret_status);
	}
	merged_put(inner);
	merged_put(merged);
	return error;
}

/* ---- files of other ranks ------------------------------------------------ */

/* Bytes [@offset, @end) of the file to the same place of @fd, or, if @move, to
 * its start. */
static int copy_range(const struct spread *spread, unsigned rank,
		      struct file_range *range, uint64_t end, int fd,
		      uint64_t to)
{
	unsigned char *buffer = malloc(LIMIT_READ_SIZE);
	int error = buffer ? 0 : -ENOMEM;

	while (!error && range->offset < end) {
		uint64_t left = end - range->offset;
		size_t got = 0;

		range->size = left < LIMIT_READ_SIZE ? (uint32_t)left :
						       LIMIT_READ_SIZE;
		error = spread->peers->file(spread->peers, rank, range, buffer,
					    &got);
		if (!error && got != range->size)
			error = -ESTALE;
		if (!error && pwrite(fd, buffer, got, (off_t)to) !=
			      (ssize_t)got)
			error = errno ? -errno : -EIO;
		range->offset += got;
		to += got;
	}
	free(buffer);
	return error;
}

/* What a safetensors header takes: its length, and that. */
static int copy_header(const struct spread *spread, unsigned rank,
		       struct file_range *range, int fd)
{
	unsigned char length[8];
	uint64_t size = range->pin.size, end = size < 8 ? size : 8;
	int error = copy_range(spread, rank, range, end, fd, 0);

	if (error || size < 8)
		return error;
	error = io_read(fd, length, sizeof(length), 0);
	if (error)
		return error;
	end = bytes_u64le(length);
	/* What is longer is refused by who reads it. */
	if (end > LIMIT_SAFETENSORS_HEADER || end > size - 8)
		return 0;
	return copy_range(spread, rank, range, end + 8, fd, 8);
}

static int fetch_marker(const struct spread *spread, const char *path,
			const struct merged_entry *entry, bool whole,
			int *ret_fd)
{
	struct file_range range = {
		.path = path, .pin = entry->near_pin, .exact = true,
	};
	int fd = memfd_create("marker", MFD_CLOEXEC), error;

	if (fd < 0)
		return -errno;
	error = ftruncate(fd, (off_t)range.pin.size) < 0 ? -errno : 0;
	if (!error && whole && range.pin.size > LIMIT_METADATA_SIZE)
		error = -E2BIG;
	if (!error)
		error = whole ? copy_range(spread, entry->near, &range,
					   range.pin.size, fd, 0) :
				copy_header(spread, entry->near, &range, fd);
	if (error)
		close(fd);
	else
		*ret_fd = fd;
	return error;
}

int spread_open(const struct spread *spread, const char *name,
		const struct pin *pin, bool whole, int *ret_fd,
		struct stat *ret_status)
{
	const struct merged_entry *entry;
	struct merged *merged = NULL;
	char path[LIMIT_PATH_SIZE];
	struct stat status;
	struct pin found;
	int fd, error = join(spread, name, path);

	if (!error)
		error = merger_find(spread->merger, path, &merged, &entry);
	if (!error && !pin_equal(&entry->stored.pin, pin))
		error = -ESTALE;
	if (error)
		goto put_merged;
	if (spread->folders[entry->near] < 0) {
		error = S_ISREG(entry->stored.pin.mode) ?
			fetch_marker(spread, path, entry, whole, &fd) :
			-EINVAL;
	} else {
		error = io_open(spread->folders[entry->near], name, &fd,
				&status);
		found = pin_from_stat(&status);
		if (!error && S_ISREG(entry->stored.pin.mode) &&
		    !pin_equal(&found, &entry->near_pin)) {
			close(fd);
			error = -ESTALE;
		}
	}
	if (!error) {
		*ret_fd = fd;
		pin_status(&entry->stored.pin, ret_status);
	}
put_merged:
	merged_put(merged);
	return error;
}

int spread_find(const struct spread *spread, const char *name,
		struct merged **merged, struct pin *ret_pin,
		unsigned *ret_owner, unsigned *ret_near)
{
	const struct merged_entry *entry;
	char path[LIMIT_PATH_SIZE];
	int error = join(spread, name, path);

	if (!error)
		error = merger_find(spread->merger, path, merged, &entry);
	if (!error && !S_ISREG(entry->stored.pin.mode))
		error = -EINVAL;
	if (error)
		return error;
	*ret_pin = entry->near_pin;
	*ret_owner = entry->rank;
	*ret_near = entry->near;
	return 0;
}

int spread_fetch(const struct spread *spread, const char *name, unsigned rank,
		 const struct pin *pin, uint64_t offset, uint64_t size,
		 int *ret_fd)
{
	char path[LIMIT_PATH_SIZE];
	struct file_range range = {
		.path = path, .pin = *pin, .exact = true, .offset = offset,
	};
	int fd, error = join(spread, name, path);

	if (error)
		return error;
	fd = memfd_create("item", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	error = copy_range(spread, rank, &range, offset + size, fd, 0);
	if (error)
		close(fd);
	else
		*ret_fd = fd;
	return error;
}
