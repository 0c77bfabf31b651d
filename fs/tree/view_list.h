/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder of a view that is open. Of most it is the files of the catalog, by
 * position:
 *
 *	tensors/, npy/, f32/	0 is the first tensor
 *	objects/		2 n is NAME.pt of object n, 2 n + 1 its
 *				NAME.json
 *
 * and the others are read when they are opened.
 */
#ifndef FS_TREE_VIEW_LIST_H
#define FS_TREE_VIEW_LIST_H

#include "fs/tree/namespace.h"

/* That of @inode, the folder of a view. -EAGAIN with @nowait; -errno. */
int view_list_open(struct namespace *ns, const struct view_inode *inode,
		   bool nowait, struct open_folder **ret_folder);

/* What the model is called in hf/. */
extern const char view_hf_name[];
/* May hf/ show a file of this name? Configurations, tokenizers and code: not
 * tensors, nor what describes them. */
bool view_hf_shows(const char *name);

#endif
