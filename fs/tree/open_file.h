/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open file, and what can be done with it: a file of a view, a text in
 * memory, a stored file. Each kind is a struct that begins with a struct
 * open_file. It ends with the last of those who opened it or hold it.
 */
#ifndef FS_TREE_OPEN_FILE_H
#define FS_TREE_OPEN_FILE_H

#include "fs/tree/open_table.h"
#include "shard/base/array.h"
#include "shard/read/reply.h"

#include <stdatomic.h>
#include <sys/stat.h>

struct open_file;

struct open_file_ops {
	/* Fill @reply, which was begun, from @offset on, fewer bytes at the end
	 * of the file. 0, -EAGAIN if reply->nowait, -errno as source.h. */
	int (*read)(struct open_file *file, uint64_t offset,
		    struct reply *reply);
	/* As it is now, but for st_ino. NULL: its inode knows. 0, -EAGAIN with
	 * @nowait, -errno. */
	int (*status)(struct open_file *file, bool nowait,
		      struct stat *ret_status);
	/* What a log line about it starts with, terminated, in @text. */
	void (*describe)(const struct open_file *file, char *text, size_t size);
	/* Free it. */
	void (*close)(struct open_file *file);
};

struct open_file {
	const struct open_file_ops *ops;	/* const */
	struct open_table *table;		/* borrowed; const */
	uint64_t number;			/* of its inode; const */
	_Atomic unsigned references;
	/* For the kernel; const: */
	bool keep_cache;	/* nothing changes under this inode */
	bool direct;		/* no page cache: reads must be exact */
	/* Guarded by the lock of the inodes: */
	bool listed;				/* in `beside` */
	LIST_ENTRY(open_file) all;		/* of table->files */
	LIST_ENTRY(open_file) beside;		/* of the same inode, or of the
						 * same checkpoint */
};

/* Of a kind that has allocated it, all zero but for what the kernel is told: one
 * reference, and in no list yet. */
void open_file_init(struct open_file *file, struct open_table *table,
		    const struct open_file_ops *ops, uint64_t number);
/* It is open from now on, among others of @beside, which may be NULL. */
void open_file_enlist(struct open_file *file, struct open_files *beside);
void open_file_enlist_locked(struct open_file *file, struct open_files *beside);
void open_file_hold(struct open_file *file);
void open_file_put(struct open_file *file);
/* The first of @beside, with one more reference; NULL: there is none. */
struct open_file *open_file_first(struct open_table *table,
				  const struct open_files *beside);

/*
 * The numbers above @after of the files in @beside, ascending and each once, up
 * to @count; returns how many.
 */
unsigned open_file_numbers(struct open_table *table,
			   const struct open_files *beside, uint64_t after,
			   uint64_t *ret_numbers, unsigned count);

/* Bytes at @offset into @reply, which takes loans, until it is released; fewer
 * at the end of the file. As ops->read. */
int open_file_read(struct open_file *file, uint64_t size, uint64_t offset,
		   struct reply *reply);

/* A text in memory: @text is taken over, also on failure. 0 or -ENOMEM. */
int open_file_text(struct open_table *table, uint64_t number,
		   struct array *text, struct open_file **ret_file);
/* Lend what @text has from @offset on. */
void open_file_lend(const struct array *text, uint64_t offset,
		    struct reply *reply);

#endif
