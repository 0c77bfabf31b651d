/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint that is mounted: its range of inode numbers, and who uses it.
 *
 *	base + view			a view: a folder, or tensors.json
 *	base + VIEW_COUNT + view	the link to it
 *	then				tensors/, npy/, f32/, safetensors/ of
 *					one tensor; objects/ .pt and .json
 *
 * so that no file of a view costs memory before somebody opens it. Slices and
 * groups of tensors are nodes of their own. A live checkpoint ends when its folder has another one,
 * the kernel has forgotten its inodes, and its files are closed.
 */
#ifndef FS_TREE_MOUNTED_H
#define FS_TREE_MOUNTED_H

#include "fs/view/view.h"

#include <pthread.h>
#include <stdatomic.h>

struct live {
	struct checkpoint *checkpoint;	/* owned; const */
	char *path;			/* owned; of its folder; const */
	uint64_t base, count;		/* of inode numbers; const */
	uint64_t device, inode;		/* of its folder, unless it is spread
					 * over ranks; const */
	uint64_t references;		/* guarded by the namespace's lock */
	struct live *next;		/* likewise */
	atomic_bool retired;		/* the store has something else now */
	atomic_bool refused;		/* that hf/ has no model was said */
	_Atomic uint64_t *sizes;	/* owned; bytes of each object's NAME.pt
					 * and NAME.json, where that must be
					 * found out: see live_object_size */
	pthread_mutex_t json_lock;
	int json_fd;			/* tensors.json; -1; guarded by
					 * json_lock, then const */
	uint64_t json_size;		/* bytes; likewise */
	pthread_mutex_t groups_lock;
	bool grouped;			/* `groups` is made; guarded by
					 * groups_lock, then const */
	struct array groups; /* owned; struct view_group; likewise */
	uint64_t cursor;		/* of checks; guarded by the folder */
};

/* Takes @checkpoint over, also on failure: NULL, out of memory. */
struct live *live_create(struct checkpoint *checkpoint, const char *path,
			 uint64_t base);
void live_destroy(struct live *live);

/* Inode numbers that @checkpoint will need. */
uint64_t live_inode_count(const struct checkpoint *checkpoint);

/* The inode number of a file; not of a slice. */
uint64_t live_inode(const struct live *live, const struct view_file *file);
static inline uint64_t live_view_inode(const struct live *live, enum view view)
{
	return live->base + view;
}
static inline uint64_t live_link_inode(const struct live *live, enum view view)
{
	return live->base + VIEW_COUNT + view;
}

/* The file behind an inode number that is neither a view nor a link. */
void live_file(const struct live *live, uint64_t inode,
	       struct view_file *ret_file);

/* Bytes of an object's NAME.json, or of a NAME.pt that is decoded. 0; -ENOENT
 * when there is no such file; -EAGAIN when that is not known and @nowait;
 * -errno. */
int live_object_size(struct live *live, const struct view_file *file,
		     bool nowait, uint64_t *ret_size);

/* tensors.json, made when first needed. 0, -EAGAIN with @nowait, -errno. */
int live_tensors_json(struct live *live, bool nowait, int *ret_fd,
		      uint64_t *ret_size);

/* The groups of safetensors/, listed when first needed. 0 or -ENOMEM. */
int live_groups(struct live *live, const struct array **ret_groups);

/* Attributes of a file, a view or a link, but for the inode number: those of
 * the checkpoint's marker. */
void live_status(const struct live *live, mode_t type, uint64_t size,
		 struct stat *ret_status);

#endif
