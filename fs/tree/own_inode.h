/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only the mount has:
 *
 *	MNT				the top of the store, and in it
 *	MNT/.ckptfs			found by lookup, never listed
 *	MNT/.ckptfs/views/PATH		the mirror of a folder
 *	MNT/.ckptfs/status.json		and other reports
 */
#ifndef FS_TREE_OWN_INODE_H
#define FS_TREE_OWN_INODE_H

#include "fs/tree/folder.h"

/* Make the top of @ns, inode 1, with one hold. 0 or -ENOMEM. */
int own_inode_make_top(struct namespace *ns);

#endif
