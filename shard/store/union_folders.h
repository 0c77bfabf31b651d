/* SPDX-License-Identifier: Apache-2.0 */
/* The last of each folder of the union, which is kept for a second. Thread
 * safe. */
#ifndef SHARD_STORE_UNION_FOLDERS_H
#define SHARD_STORE_UNION_FOLDERS_H

#include "shard/store/union_folder.h"

/* How old what is known of a folder may be. */
enum { UNION_FRESH_MS = 1000 };

struct union_folders;

/* @say, which may be NULL, gets a line for each conflict, once. NULL: no
 * memory. */
struct union_folders *
union_folders_create(struct peers *peers,
		     void (*say)(void *context, const char *line),
		     void *context);
/* All folders are put. NULL is fine. */
void union_folders_destroy(struct union_folders *folders);

/* The folder @path, at most a second old unless @fresh. May block. 0 also for
 * one that nobody has; -errno. The caller puts its list. */
int union_folders_get(struct union_folders *folders, const char *path,
		      bool fresh, struct union_folder **ret_folder);

/* The folder that @folder is, which has lost its name: nothing of it is kept. */
int union_folders_get_open(struct union_folders *folders,
			   const struct store_folder *folder,
			   struct union_folder **ret_folder);

/* What rank @rank had in the folder @path at the last look, appended to @out;
 * never blocks. -ENODATA: it is not remembered. -ENOMEM. */
int union_folders_recall(struct union_folders *folders, const char *path,
			 unsigned rank, struct array *out);

/*
 * The entry @path, of its folder, whose list the caller puts, whatever is
 * returned, unless it is NULL. @folder, if it is not NULL, is a folder to try
 * first. -ENOENT, -errno.
 */
int union_folders_find(struct union_folders *folders, const char *path,
		       struct union_folder **folder,
		       const struct store_entry **ret_entry);

#endif
