/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The views of a checkpoint:
 *
 *	PATH/tensors		a link into MNT/.ckptfs/views/PATH
 *	.../tensors		a folder, and in it
 *	.../tensors/w		a tensor, by a number of its own
 *	.../tensors/w[0:1]	a slice, or a group of tensors: in the table of
 *				inodes
 *	.../hf/config.json	a stored file beside the model
 *
 * Everything is answered from memory, but for what hf/ shows beside the model.
 */
#ifndef FS_TREE_VIEW_INODE_H
#define FS_TREE_VIEW_INODE_H

#include "fs/tree/namespace.h"

/* For mounted_create. */
extern const struct inode_ops *const view_inode_ops[MOUNTED_KINDS];

/* What the kernel is told of a view, or of the link to it. -EAGAIN with
 * @nowait; -errno. */
int view_inode_attr(struct mounted *mounted, enum view view, bool nowait,
		    struct attr *ret_attr);
int view_link_attr(struct mounted *mounted, enum view view,
		   struct attr *ret_attr);

/* ---- slices and groups --------------------------------------------------- */

struct named_inode;

/* Those that the kernel may know before it is asked to forget half of them:
 * unless memory is short, it does not by itself. */
enum { NAMED_MAX = 8192 };

/* By what the kernel knows the oldest one, which counts as the newest from now
 * on. False: there is none. */
bool view_named_oldest(struct namespace *ns, uint64_t *ret_parent,
		       char ret_name[NAME_MAX + 1]);

#endif
