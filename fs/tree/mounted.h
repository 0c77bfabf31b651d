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
 * groups of tensors are in the table of inodes. It ends when its folder has
 * another one, the kernel has forgotten its inodes, and its files are closed:
 *
 *	of a folder -> retired	the store has something else: there are no new
 *				lookups; what is open is read on
 *	retired -> freed	nobody holds it any more
 */
#ifndef FS_TREE_MOUNTED_H
#define FS_TREE_MOUNTED_H

#include "fs/tree/inode.h"
#include "fs/tree/open_file.h"
#include "fs/view/view.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

/* What stands behind its numbers. */
enum mounted_kind {
	MOUNTED_VIEW,		/* a folder of a view */
	MOUNTED_TEXT,		/* tensors.json */
	MOUNTED_LINK,		/* to either */
	MOUNTED_FILE,		/* of a view */
	MOUNTED_KINDS,
};

struct mounted {
	struct checkpoint *checkpoint;	/* owned; const */
	char *path;			/* owned; of its folder; const */
	uint64_t folder;		/* the number of that; const */
	const struct inode_ops *const *ops; /* by mounted_kind; const */
	uint64_t base, count;		/* of inode numbers; const */
	/* Guarded by the lock of the table of inodes: */
	uint64_t lookups;		/* of numbers by the kernel */
	uint64_t holds;			/* of whatever else refers to it */
	LIST_ENTRY(mounted) link;
	struct open_files opens;	/* files of views that are open */
	atomic_bool retired;		/* the store has something else now */
	atomic_bool refused;		/* that hf/ has no model was said */
	_Atomic uint64_t *sizes;	/* owned; bytes of each object's NAME.pt
					 * and NAME.json, where that must be
					 * found out: see mounted_object_size */
	pthread_mutex_t text_lock;
	int text_fd;			/* tensors.json; -1; guarded by
					 * text_lock, then const */
	uint64_t text_size;		/* bytes; likewise */
	pthread_mutex_t groups_lock;
	bool grouped;			/* `groups` is made; guarded by
					 * groups_lock, then const */
	struct array groups;		/* owned; struct view_group; likewise */
};

/* One of its numbers, while it is worked on; in the caller's memory. */
struct view_inode {
	struct inode base;		/* first: passed as this */
	struct mounted *mounted;
};

/* Takes @checkpoint over, also on failure: NULL, out of memory. It is in no
 * list, and nobody holds it. */
struct mounted *mounted_create(struct checkpoint *checkpoint, const char *path,
			       uint64_t folder,
			       const struct inode_ops *const *ops,
			       uint64_t base);
/* NULL is fine. */
void mounted_destroy(struct mounted *mounted);

/* Inode numbers that @checkpoint will need. */
uint64_t mounted_inode_count(const struct checkpoint *checkpoint);

/* The number of a file; not of a slice or a group. */
uint64_t mounted_file_number(const struct mounted *mounted,
			     const struct view_file *file);
static inline uint64_t mounted_view_number(const struct mounted *mounted,
					   enum view view)
{
	return mounted->base + view;
}
static inline uint64_t mounted_link_number(const struct mounted *mounted,
					   enum view view)
{
	return mounted->base + VIEW_COUNT + view;
}

/* What is behind a number of its range. */
void mounted_inode(struct mounted *mounted, uint64_t number,
		   struct view_inode *ret_inode);
/* The view of one that is a view or a link to it. */
enum view mounted_view(const struct view_inode *inode);
/* The file of one that is a file of a view. */
void mounted_file(const struct mounted *mounted, uint64_t number,
		  struct view_file *ret_file);

/* Bytes of an object's NAME.json, or of a NAME.pt that is decoded. 0; -ENOENT
 * when there is no such file; -EAGAIN when that is not known and @nowait;
 * -errno. */
int mounted_object_size(struct mounted *mounted, const struct view_file *file,
			bool nowait, uint64_t *ret_size);

/* tensors.json, made when first needed. 0, -EAGAIN with @nowait, -errno. */
int mounted_text(struct mounted *mounted, bool nowait, int *ret_fd,
		 uint64_t *ret_size);

/* The groups of safetensors/, listed when first needed. 0 or -ENOMEM. */
int mounted_groups(struct mounted *mounted, const struct array **ret_groups);

/* Attributes of a file of a view, but for the number. -ENOENT, -EAGAIN,
 * -errno. */
int mounted_file_status(struct mounted *mounted, const struct view_file *file,
			bool nowait, struct stat *ret_status);
/* Of a file, a view or a link of @size bytes, but for the number: those of the
 * checkpoint's marker. */
void mounted_status(const struct mounted *mounted, mode_t type, uint64_t size,
		    struct stat *ret_status);

#endif
