/* SPDX-License-Identifier: Apache-2.0 */
/* A folder of the store: where it is, and the checkpoint that it has. */
#ifndef FS_TREE_FOLDER_H
#define FS_TREE_FOLDER_H

#include "fs/tree/namespace.h"

struct folder {
	struct known_inode known;	/* first: passed as this */
	/* Guarded by the lock of the inodes: */
	struct store_folder *open;	/* one reference; NULL: nobody has it
					 * open */
	unsigned opens;
	struct mounted *mounted;	/* one hold; NULL: it is no checkpoint */
	/* What was found at the last look, see revalidate.c: */
	pthread_mutex_t look_lock;	/* held while the store is looked at */
	uint64_t looked_ms;		/* when, 0 never; guarded by look_lock,
					 * as are the others */
	uint64_t refused;		/* signature of the markers that were
					 * refused; 0: none */
	uint64_t cursor;		/* of checks */
};

static inline struct folder *folder_of(struct inode *inode)
{
	return (struct folder *)(void *)inode;
}

/* NULL: out of memory. */
struct folder *folder_create(const struct inode_ops *ops);
/* As inode_ops.destroy. */
void folder_destroy(struct namespace *ns, struct inode *inode);

/* ---- where it is --------------------------------------------------------- */

/* A path in the store: from the nearest folder above that is open, since that
 * one stays what it is when it loses its name. */
struct folder_path {
	struct store_path path;		/* its text is `text` */
	char text[LIMIT_PATH_SIZE];
};

/* That of @inode, which is a folder or lies in one; with @name, of what has that
 * name in it. 0, or -ENAMETOOLONG with nothing to finish. */
int folder_path_init(struct namespace *ns, const struct known_inode *inode,
		     const char *name, struct folder_path *ret_path);
void folder_path_finish(struct folder_path *path);

/* Its path from the top, by the names it has now. */
int folder_name(struct namespace *ns, const struct folder *folder,
		char ret_path[LIMIT_PATH_SIZE]);

/* Keep it open, until folder_close. The caller puts @ret_folder. 0 or -errno.
 * May block. */
int folder_open(struct namespace *ns, struct folder *folder,
		struct store_folder **ret_folder);
/* @folder is a struct folder. */
void folder_close(struct namespace *ns, void *folder);

void folder_hold(struct namespace *ns, struct folder *folder);
void folder_put(struct namespace *ns, struct folder *folder);

/* ---- its checkpoint ------------------------------------------------------ */

/* With one more hold, or NULL. */
struct mounted *folder_mounted(struct namespace *ns, struct folder *folder);
/* Is it one? What it has then does not change. */
bool folder_is_checkpoint(struct namespace *ns, const struct folder *folder);

/* Let it have @mounted, which is in no list yet, or NULL, in place of what it
 * had, which is retired and returned with its hold, if any. */
struct mounted *folder_set_mounted(struct namespace *ns, struct folder *folder,
				   struct mounted *mounted);

#endif
