/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the mount shows as it is: files, links and others of the store, and the
 * files of the folder of assets, which hf/ shows beside the model.
 */
#ifndef FS_TREE_STORED_INODE_H
#define FS_TREE_STORED_INODE_H

#include "fs/tree/folder.h"

/* @found, which is no folder, called @name in @folder: with one more lookup. 0 or
 * -ENOMEM. */
int stored_inode_get(struct namespace *ns, struct folder *folder,
		     const char *name, const struct store_found *found,
		     struct attr *ret_attr);

/* The file @name of the assets: likewise. -ENOENT: there is none. */
int asset_inode_get(struct namespace *ns, const char *name,
		    struct attr *ret_attr);
/* Is it one? Through links. */
bool asset_is_there(const struct namespace *ns, const char *name);

#endif
