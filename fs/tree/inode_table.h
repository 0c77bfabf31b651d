/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inodes that somebody knows, by number and by (parent, name), and the
 * ranges of numbers of mounted checkpoints. Nothing here does I/O. The
 * functions with `_locked` need the table's lock.
 *
 * An inode's name is that in its parent, and no more: whoever moves a folder
 * moves one entry, and everything below follows. Its states:
 *
 *	listed	-> unlisted	another one has its name now
 *	either	-> freed	no lookup of the kernel and no hold is left
 *
 * The kernel counts its lookups of each inode. Of our own holds there is one by
 * each inode below, by whatever else refers to it, and by each request that may
 * run on when its client has its answer. While an operation on an inode runs,
 * one of these keeps it.
 */
#ifndef FS_TREE_INODE_TABLE_H
#define FS_TREE_INODE_TABLE_H

#include "fs/tree/inode.h"
#include "fs/tree/mounted.h"

/* One that the table has: other kinds begin with it. */
struct known_inode {
	struct inode base;		/* first: passed as this */
	/* Guarded by the table's lock: */
	uint64_t lookups;		/* the kernel's */
	uint32_t holds;
	bool listed;			/* found by its name */
	bool is_folder;			/* it is a struct folder; const */
	uint64_t parent_number;		/* of what it is in */
	char *name;			/* owned; there */
	struct known_inode *parent;	/* one hold; NULL: it is not here, or
					 * there is none */
};

struct inode_table {
	struct namespace *ns;		/* borrowed: for who destroys; const */
	pthread_mutex_t lock;
	/* Guarded by it: */
	uint64_t next_number;
	void *by_number, *by_name;	/* trees of search.h */
	LIST_HEAD(, mounted) mounted;
};

/* The number of the first inode that is made. */
enum { ROOT_INODE = 1 };

void inode_table_init(struct inode_table *table, struct namespace *ns);
/* All inodes and checkpoints are freed. */
void inode_table_finish(struct inode_table *table);

/* ---- by name ------------------------------------------------------------- */

struct inode_name {
	struct known_inode *parent;	/* NULL: see known_inode */
	uint64_t parent_number;
	const char *name;
};

static inline struct inode_name inode_name_in(struct known_inode *parent,
					      const char *name)
{
	return (struct inode_name){ parent, parent->base.number, name };
}

/* What is to have a name. Its functions run with the lock held. */
struct inode_wanted {
	/* Is @inode, which has the name, that? Then it takes over what is new.
	 * NULL: always. */
	bool (*take)(struct known_inode *inode, const void *what);
	/* A new one, with nothing but its ops and what is behind the
	 * known_inode. NULL: out of memory. */
	struct known_inode *(*make)(const void *what);
	const void *what;
};

/* The inode of a name, which is made if there is none, or if that is something
 * else; with one more lookup. NULL: out of memory. */
struct known_inode *inode_table_get(struct inode_table *table,
				    const struct inode_name *name,
				    const struct inode_wanted *wanted);
/* The same with one more hold. */
struct known_inode *inode_table_get_held(struct inode_table *table,
					 const struct inode_name *name,
					 const struct inode_wanted *wanted);
/* The one that is there, with one more lookup, or NULL. */
struct known_inode *inode_table_get_known(struct inode_table *table,
					  const struct inode_name *name);

/* ---- by number ----------------------------------------------------------- */

/* What the kernel knows by @number: of the table, or, of a mounted checkpoint,
 * in @room. NULL: nothing. */
struct inode *inode_table_find(struct inode_table *table, uint64_t number,
			       struct view_inode *room);

/* @count lookups more, or less, of a number that is known. */
void inode_table_look_up(struct inode_table *table, uint64_t number);
void inode_table_forget(struct inode_table *table, uint64_t number,
			uint64_t count);
/* The inode of the table with one more hold, or NULL. */
struct known_inode *inode_table_get_number(struct inode_table *table,
					   uint64_t number);
/* One hold more, or less, of a number that is known. */
void inode_table_hold(struct inode_table *table, uint64_t number);
void inode_table_put(struct inode_table *table, uint64_t number);

/* ---- mounted checkpoints ------------------------------------------------- */

/* A range of @count numbers. */
uint64_t inode_table_reserve(struct inode_table *table, uint64_t count);
/* @mounted is one of them from now on, with one hold. */
void inode_table_add_mounted_locked(struct inode_table *table,
				    struct mounted *mounted);
void inode_table_put_mounted(struct inode_table *table,
			     struct mounted *mounted);

#endif
