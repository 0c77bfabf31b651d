/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/mounted.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_FILE = 2 * VIEW_COUNT };
/* A size that was found out, plus SIZE_SOME. */
enum { SIZE_UNKNOWN, SIZE_NONE, SIZE_SOME };

/* Views whose files are numbered by tensor, in the order of their numbers. */
static const enum view numbered[] = {
	VIEW_TENSORS, VIEW_NPY, VIEW_F32, VIEW_SAFETENSORS,
};

enum { NUMBERED_COUNT = sizeof(numbered) / sizeof(numbered[0]) };

uint64_t live_inode_count(const struct checkpoint *checkpoint)
{
	return FIRST_FILE + NUMBERED_COUNT * checkpoint->catalog->tensor_count +
	       2 * checkpoint->catalog->object_count;
}

struct live *live_create(struct checkpoint *checkpoint, const char *path,
			 uint64_t base)
{
	uint64_t objects = checkpoint->catalog->object_count;
	struct live *live = calloc(1, sizeof(*live));
	struct stat status = { .st_dev = 0 };

	if (!live) {
		checkpoint_close(checkpoint);
		return NULL;
	}
	live->checkpoint = checkpoint;
	live->base = base;
	live->count = live_inode_count(checkpoint);
	live->json_fd = -1;
	pthread_mutex_init(&live->json_lock, NULL);
	pthread_mutex_init(&live->groups_lock, NULL);
	live->path = strdup(path);
	live->sizes = calloc(2 * objects + 1, sizeof(*live->sizes));
	if (!live->path || !live->sizes ||
	    (checkpoint->folder >= 0 &&
	     fstat(checkpoint->folder, &status) < 0)) {
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
	pthread_mutex_destroy(&live->groups_lock);
	array_finish(&live->groups);
	checkpoint_close(live->checkpoint);
	free(live->sizes);
	free(live->path);
	free(live);
}

uint64_t live_inode(const struct live *live, const struct view_file *file)
{
	uint64_t tensors = live->checkpoint->catalog->tensor_count;
	uint64_t first = live->base + FIRST_FILE, i;

	for (i = 0; i < NUMBERED_COUNT; i++)
		if (file->view == numbered[i])
			return first + i * tensors + file->entry;
	return first + NUMBERED_COUNT * tensors +
	       2 * (file->entry - tensors) + file->json;
}

void live_file(const struct live *live, uint64_t inode,
	       struct view_file *ret_file)
{
	const struct catalog *catalog = live->checkpoint->catalog;
	uint64_t tensors = catalog->tensor_count;
	uint64_t index = inode - live->base - FIRST_FILE;

	if (index < NUMBERED_COUNT * tensors) {
		view_whole(catalog, numbered[index / tensors],
			   index % tensors, false, ret_file);
		return;
	}
	index -= NUMBERED_COUNT * tensors;
	view_whole(catalog, VIEW_OBJECTS, tensors + index / 2, index % 2,
		   ret_file);
}

/* Find out: the text is made, and thrown away. */
static int find_size(struct live *live, const struct view_file *file,
		     uint64_t *ret_known)
{
	struct array text = { .data = NULL };
	int error;

	if (file->json)
		error = view_object_json(live->checkpoint, file->entry, &text);
	else
		error = view_object(live->checkpoint, file->entry, &text);
	*ret_known = error ? SIZE_NONE : text.size + SIZE_SOME;
	array_finish(&text);
	if (error == -EOPNOTSUPP || (!file->json && error == -EIO))
		return 0;
	return error;
}

int live_object_size(struct live *live, const struct view_file *file,
		     bool nowait, uint64_t *ret_size)
{
	const struct catalog *catalog = live->checkpoint->catalog;
	uint64_t index = 2 * (file->entry - catalog->tensor_count) +
			 file->json;
	uint64_t known = atomic_load(&live->sizes[index]);
	int error;

	if (known == SIZE_UNKNOWN) {
		if (nowait)
			return -EAGAIN;
		error = find_size(live, file, &known);
		if (error)
			return error;
		atomic_store(&live->sizes[index], known);
	}
	if (known != SIZE_NONE)
		*ret_size = known - SIZE_SOME;
	else if (!file->json)
		/* It is there, but cannot be read. */
		*ret_size = catalog_entry(catalog, file->entry)->size;
	else
		return -ENOENT;
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

int live_groups(struct live *live, const struct array **ret_groups)
{
	int error = 0;

	pthread_mutex_lock(&live->groups_lock);
	if (!live->grouped) {
		error = view_group_list(live->checkpoint->catalog,
					&live->groups);
		live->grouped = !error;
		if (error)
			live->groups.size = 0;
	}
	pthread_mutex_unlock(&live->groups_lock);
	*ret_groups = &live->groups;
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
		/* Who may read may search. Nobody can write here, but copies
		 * of the folder should be the owner's to change. */
		mode |= (mode & 0444) >> 2 | 0200;
	else if (type == S_IFLNK)
		mode = 0777;
	ret_status->st_mode = type | mode;
}
