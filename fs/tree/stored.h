/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that the mount shows as they are: those of the store, and those of
 * the folder of assets. Paths are below the store's top, "" is itself; folders
 * above are never left.
 */
#ifndef FS_TREE_STORED_H
#define FS_TREE_STORED_H

#include "fs/tree/namespace.h"

/* "@path/@name", or -ENAMETOOLONG. */
int stored_join(const char *path, const char *name, char ret_path[4096]);

/* The status of what @path names, itself, and whose it is; the mount's own
 * folder is -ENOENT. Of ranks elsewhere as it was a second ago at most. */
int stored_find(const struct namespace *ns, const char *path,
		struct stat *ret_status, unsigned *ret_rank);
int stored_status(const struct namespace *ns, const char *path,
		  struct stat *ret_status);
/* The same of a file that is known to be @node's, as it is now. */
int stored_node_status(const struct namespace *ns, const struct node *node,
		       struct stat *ret_status);
/* Is the file of @node to be read from another rank, since its store cannot
 * be opened from here? */
bool stored_is_remote(const struct namespace *ns, const struct node *node);
/* Is this the folder of the store that the mount covers? */
bool stored_is_own(const struct namespace *ns, const struct stat *status);
/* Is a view hidden behind a stored file of its name? */
bool stored_hides(const struct namespace *ns, const char *path,
		  enum view view);
/* Open the regular file of a node, as io_open. */
int stored_open(const struct namespace *ns, const struct node *node,
		int *ret_fd, struct stat *ret_status);
/* The target of a symbolic link, appended to @out and terminated. */
int stored_link(const struct namespace *ns, const char *path,
		struct array *out);

/* The status of a file of the assets, through links. */
int asset_status(const struct namespace *ns, const char *name,
		 struct stat *ret_status);
/* May hf/ show a file of this name? Configurations, tokenizers and code: not
 * tensors, nor what describes them. */
bool asset_is_shown(const char *name);

#endif
