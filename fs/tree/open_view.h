/* SPDX-License-Identifier: Apache-2.0 */
/* A file of a view that is open. */
#ifndef FS_TREE_OPEN_VIEW_H
#define FS_TREE_OPEN_VIEW_H

#include "fs/tree/namespace.h"

/* The file that @inode stands for: a tensor, a slice, a group, an object, whose
 * content, if there is one, stays the caller's. -EAGAIN with @nowait;
 * -errno. */
int open_view(struct namespace *ns, const struct view_inode *inode,
	      const struct view_file *file, bool nowait,
	      struct open_file **ret_file);

/* Likewise tensors.json. */
int open_view_text(struct namespace *ns, const struct view_inode *inode,
		   bool nowait, struct open_file **ret_file);

#endif
