/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/live.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_FILE = 2 * VIEW_COUNT };
enum { JSON_UNKNOWN, JSON_NONE, JSON_SOME };

uint64_t live_inode_count(const struct checkpoint *checkpoint)
{
	return FIRST_FILE + 2 * (checkpoint->catalog->tensor_count +
				 checkpoint->catalog->object_count);
}

struct live *live_create(struct checkpoint *checkpoint, const char *path,
			 uint64_t base)
{
	uint64_t objects = checkpoint->catalog->object_count;
	struct live *live = calloc(1, sizeof(*live));
	struct stat status;

	if (!live) {
		checkpoint_close(checkpoint);
		return NULL;
	}
	live->checkpoint = checkpoint;
	live->base = base;
	live->count = live_inode_count(checkpoint);
	live->json_fd = -1;
	pthread_mutex_init(&live->json_lock, NULL);
	live->path = strdup(path);
	live->json_sizes = calloc(objects + 1, sizeof(*live->json_sizes));
	if (!live->path || !live->json_sizes ||
	    fstat(checkpoint->folder, &status) < 0) {
		live_destroy(live);
		return NULL;
	}
	live->device = status.st_dev;
	live->inode = status.st_ino;
	return live;
}

void live_destroy(struct live *live)
{
	if (!live)
		return;
	if (live->json_fd >= 0)
		close(live->json_fd);
	pthread_mutex_destroy(&live->json_lock);
	checkpoint_close(live->checkpoint);
	free(live->json_sizes);
	free(live->path);
	free(live);
}

uint64_t live_inode(const struct live *live, const struct view_file *file)
{
	uint64_t tensors = live->checkpoint->catalog->tensor_count;
	uint64_t first = live->base + FIRST_FILE;

	switch (file->view) {
	case VIEW_TENSORS:
		return first + file->entry;
	case VIEW_NPY:
		return first + tensors + file->entry;
	default:
		return first + 2 * file->entry + file->json;
	}
}

void live_file(const struct live *live, uint64_t inode,
	       struct view_file *ret_file)
{
	const struct catalog *catalog = live->checkpoint->catalog;
	uint64_t tensors = catalog->tensor_count;
	uint64_t index = inode - live->base - FIRST_FILE;

	if (index < tensors)
		view_whole(catalog, VIEW_TENSORS, index, false, ret_file);
	else if (index < 2 * tensors)
		view_whole(catalog, VIEW_NPY, index - tensors, false,
			   ret_file);
	else
		view_whole(catalog, VIEW_OBJECTS, index / 2, index % 2,
			   ret_file);
}

int live_json_size(struct live *live, uint64_t entry, bool nowait,
		   uint64_t *ret_size)
{
	uint64_t index = entry - live->checkpoint->catalog->tensor_count;
	uint32_t known = atomic_load(&live->json_sizes[index]);
	struct array text = { .data = NULL };
	int error;

	if (known == JSON_UNKNOWN) {
		if (nowait)
			return -EAGAIN;
		error = view_object_json(live->checkpoint, entry, &text);
		known = error || text.size > UINT32_MAX - JSON_SOME ?
			JSON_NONE : (uint32_t)text.size + JSON_SOME;
		array_finish(&text);
		if (error && error != -EOPNOTSUPP)
			return error;
		atomic_store(&live->json_sizes[index], known);
	}
	if (known == JSON_NONE)
		return -ENOENT;
	*ret_size = known - JSON_SOME;
	return 0;
}

int live_tensors_json(struct live *live, bool nowait, int *ret_fd,
		      uint64_t *ret_size)
{
	int error = 0;

	/* Held while the text is made: whoever else wants it has to wait for
	 * it anyway, on a thread that may. */
	if (nowait ? pthread_mutex_trylock(&live->json_lock) :
		     pthread_mutex_lock(&live->json_lock))
		return -EAGAIN;
	if (live->json_fd < 0)
		error = nowait ? -EAGAIN :
			view_tensors_json(live->checkpoint->catalog,
					  &live->json_fd, &live->json_size);
	*ret_fd = live->json_fd;
	*ret_size = live->json_size;
	pthread_mutex_unlock(&live->json_lock);
	return error;
}

void live_status(const struct live *live, mode_t type, uint64_t size,
		 struct stat *ret_status)
{
	const struct stat *marker = &live->checkpoint->status;
	mode_t mode = marker->st_mode & 0444;

	*ret_status = (struct stat){
		.st_uid = marker->st_uid,
		.st_gid = marker->st_gid,
		.st_mtim = marker->st_mtim,
		.st_ctim = marker->st_ctim,
		.st_atim = marker->st_mtim,
		.st_nlink = type == S_IFDIR ? 2 : 1,
		.st_size = (off_t)size,
		.st_blocks = (blkcnt_t)((size + 511) / 512),
		.st_blksize = 1024 * 1024,
	};
	if (type == S_IFDIR)
		mode |= (mode & 0444) >> 2; /* who may read may search */
	else if (type == S_IFLNK)
		mode = 0777;
	ret_status->st_mode = type | mode;
}
