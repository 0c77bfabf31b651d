/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folders of the store, and their mirrors below MNT/.ckptfs/views, in which the
 * views of their checkpoints are.
 */
#ifndef FS_TREE_FOLDER_INODE_H
#define FS_TREE_FOLDER_INODE_H

#include "fs/tree/folder.h"

/* The operations of a folder: as inode_ops. */
int folder_inode_status(struct namespace *ns, struct inode *inode, bool nowait,
			struct attr *ret_attr);
int folder_inode_lookup(struct namespace *ns, struct inode *inode,
			const char *name, bool nowait, struct attr *ret_attr);
int folder_inode_open(struct namespace *ns, struct inode *inode, bool nowait,
		      struct open_folder **ret_folder);

/* What a folder or a report looks like that only the mount has: as the top of
 * the store. 0 or -errno. */
int folder_own_attr(const struct namespace *ns, mode_t type, uint64_t number,
		    struct attr *ret_attr);

/* The mirror of @folder, called @name in @parent, with one more lookup. 0 or
 * -errno. */
int mirror_inode_get(struct namespace *ns, struct known_inode *parent,
		     const char *name, struct folder *folder,
		     struct attr *ret_attr);

/* The folder at @path, which need not be known to the kernel, nor there, with
 * one hold. NULL: out of memory. */
struct folder *folder_inode_walk(struct namespace *ns, const char *path);

#endif
