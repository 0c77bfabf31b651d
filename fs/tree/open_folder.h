/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open folder, and what is in it: names that were read when it was opened,
 * or the files of a view, by their position in the catalog. "." and ".." are
 * the business of who lists. It ends with the last of those who opened it or
 * hold it.
 */
#ifndef FS_TREE_OPEN_FOLDER_H
#define FS_TREE_OPEN_FOLDER_H

#include "fs/tree/open_table.h"
#include "shard/base/array.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct open_folder;

struct listed {
	char name[NAME_MAX + 1];
	uint64_t number;	/* 0: not known */
	mode_t type;		/* S_IFDIR, ...; 0: not known */
	bool has_status;	/* `status` is filled in; the kernel takes a
				 * lookup of it */
	struct stat status;
	uint64_t next;		/* position behind this entry */
};

struct open_folder_ops {
	/* The entry at @position, 0 the first. 0, -ENOENT at the end, -EAGAIN
	 * with @nowait, or -errno. */
	int (*next)(struct open_folder *folder, uint64_t position, bool nowait,
		    struct listed *ret_listed);
	/* Free it. */
	void (*close)(struct open_folder *folder);
};

struct open_folder {
	const struct open_folder_ops *ops;	/* const */
	struct open_table *table;		/* borrowed; const */
	_Atomic unsigned references;
	bool immutable;		/* the kernel may keep the list; const */
	LIST_ENTRY(open_folder) all;	/* guarded by the lock of the inodes */
};

/* As open_file_init. */
void open_folder_init(struct open_folder *folder, struct open_table *table,
		      const struct open_folder_ops *ops);
void open_folder_hold(struct open_folder *folder);
void open_folder_put(struct open_folder *folder);

/* ---- names that were read ------------------------------------------------- */

struct name_list {
	struct array entries;	/* owned, as are the names */
	struct array names;
};

/* One more. 0 or -ENOMEM. */
int name_list_add(struct name_list *list, const char *name, mode_t type,
		  uint64_t number);
bool name_list_has(const struct name_list *list, const char *name);
void name_list_finish(struct name_list *list);

/* A folder of these names, in their order: @list is taken over, also on
 * failure, and, if it is not NULL, @done is called with @context at the end. 0
 * or -ENOMEM. */
int open_folder_names(struct open_table *table, struct name_list *list,
		      void (*done)(struct namespace *ns, void *context),
		      void *context, struct open_folder **ret_folder);

#endif
