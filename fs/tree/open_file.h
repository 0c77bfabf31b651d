/* SPDX-License-Identifier: Apache-2.0 */
/* Open files, for the namespace. */
#ifndef FS_TREE_OPEN_FILE_H
#define FS_TREE_OPEN_FILE_H

#include "fs/tree/namespace.h"

/*
 * The inode numbers above @after of the open files of @live, ascending and
 * each once, up to @count; returns how many. Needs the namespace's lock.
 */
unsigned handle_inodes_locked(const struct namespace *ns,
			      const struct live *live, uint64_t after,
			      uint64_t *ret_inodes, unsigned count);

/* Close what clients had still open when the mount ended. */
void handle_close_all(struct namespace *ns);
void listing_close_all(struct namespace *ns);

#endif
