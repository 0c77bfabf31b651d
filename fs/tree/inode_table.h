/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes: what the kernel knows by an inode number and is no file of a view,
 * and the table of live checkpoints. Nothing here does I/O. The functions
 * with `_locked` need the namespace's lock.
 *
 * The kernel holds a count on each inode that it knows, and so does a call
 * whose client need not wait for its end; while an operation on an inode runs,
 * its node and its live checkpoint stay.
 */
#ifndef FS_TREE_INODE_TABLE_H
#define FS_TREE_INODE_TABLE_H

#include "fs/tree/mounted.h"

#include <limits.h>
#include <sys/queue.h>

enum node_kind {
	NODE_FOLDER,	/* a folder of the store */
	NODE_FILE,	/* anything else of the store */
	NODE_ASSET,	/* a file of the folder of assets, seen in hf/ */
	NODE_HIDDEN,	/* MNT/.ckptfs */
	NODE_REPORT,	/* MNT/.ckptfs/status.json, metrics */
	NODE_MIRROR,	/* MNT/.ckptfs/views/PATH, beside a folder's views */
	NODE_NAMED,	/* a file of a view that has no number: a slice of a
			 * live checkpoint's tensor, or a group of them */
};

/* A folder of the store, and the checkpoint that it is, if any. */
struct folder {
	char *path;		/* owned; below the store, "" is it; const */
	unsigned references;	/* of nodes; guarded by the namespace's lock */
	struct live *live;	/* NULL: none; guarded by likewise */
	pthread_mutex_t look_lock; /* held while the store is looked at */
	uint64_t looked_ms;	/* when, 0 never; guarded by likewise */
	uint64_t refused;	/* signature of the markers that were refused;
				 * guarded by look_lock */
};

struct node {
	uint64_t inode;
	uint64_t lookups;	/* the kernel's; guarded by the lock */
	enum node_kind kind;
	bool listed;		/* reachable by its key; guarded likewise */
	char *path;		/* owned; below the store, or the assets; of a
				 * named file its name */
	struct folder *folder;	/* of a folder or mirror */
	/* Of a file or asset: */
	struct pin pin;
	unsigned rank;		/* whose it is */
	bool immutable;		/* in a checkpoint: the pin is its identity */
	/* Of a named file: */
	struct live *live;
	struct view_file file; /* with a reference to its content */
	TAILQ_ENTRY(node) order;
};

/* Named files that the kernel may know before it is asked to forget half of
 * them: unless memory is short, it does not by itself. */
enum { NAMED_MAX = 8192 };

struct nodes {
	pthread_mutex_t lock;
	uint64_t next_inode;	/* guarded by lock, like all below */
	void *by_inode, *by_key, *folders;	/* trees of search.h */
	struct live *lives;	/* newest first: base goes down */
	TAILQ_HEAD(, node) named; /* oldest first */
	unsigned named_count;	/* of them */
	unsigned named_new;	/* of them, since the kernel was asked */
};

/* The root, inode 1, and MNT/.ckptfs are always there. 0 or -ENOMEM. */
int nodes_init(struct nodes *nodes);
void nodes_finish(struct nodes *nodes);

/* What an inode number stands for: a node, or something of a live one. */
struct place {
	struct node *node;	/* NULL: of live */
	struct live *live;	/* NULL: of the store */
	enum {
		PLACE_NODE,	/* but for named files */
		PLACE_VIEW,	/* `view`: a folder, or tensors.json */
		PLACE_LINK,	/* `view`: the link to it */
		PLACE_FILE,	/* `file` of a view */
	} what;
	enum view view;
	struct view_file file;
};

/* -ESTALE for a number that is not known. */
int nodes_find(struct nodes *nodes, uint64_t inode, struct place *ret_place);

/* What a file is, besides its path. */
struct identity {
	struct pin pin;
	unsigned rank;
	bool immutable;
};

/*
 * The node of @kind at @path, made when it is new, with one more lookup. Of
 * files the @identity counts, too; else it is NULL. NULL: out of memory.
 */
struct node *nodes_get(struct nodes *nodes, enum node_kind kind,
		       const char *path, const struct identity *identity);
/* Likewise the file of a view called @name; content is got. */
struct node *nodes_get_named(struct nodes *nodes, struct live *live,
			     const char *name, const struct view_file *file);
/* The same if it is there already, else NULL: its view and name count. */
struct node *nodes_find_named(struct nodes *nodes, struct live *live,
			      enum view view, const char *name);

/* By what the kernel knows a named file. */
struct named {
	uint64_t parent;	/* an inode */
	char name[NAME_MAX + 1];
};

/* How many named files the kernel should be asked to forget; when it has been
 * asked, 0 for a good while. */
unsigned nodes_excess(struct nodes *nodes);
/* The oldest named file, which counts as the newest from now on. False: there
 * is none. */
bool nodes_oldest(struct nodes *nodes, struct named *ret_named);

/* One more lookup of an inode of @live. */
void nodes_hold(struct nodes *nodes, struct live *live);
/* The same by the number of an inode that is known. */
void nodes_hold_inode(struct nodes *nodes, uint64_t inode);
/* @count lookups less. */
void nodes_forget(struct nodes *nodes, uint64_t inode, uint64_t count);

/* The folder at @path, which the kernel need not know, with one more
 * reference. NULL: out of memory. */
struct folder *nodes_get_folder(struct nodes *nodes, const char *path);
void nodes_put_folder(struct nodes *nodes, struct folder *folder);

/* The live checkpoint, not retired, that @id means, with one more reference,
 * or NULL. */
struct live *nodes_find_id(struct nodes *nodes, const struct catalog_id *id);

/* The folder's live checkpoint with one more reference, or NULL. */
struct live *nodes_live(struct nodes *nodes, struct folder *folder);
void nodes_put_live(struct nodes *nodes, struct live *live);

/* Let @folder have @checkpoint (taken over; NULL: none) in place of what it
 * had, which is retired and returned with a reference, if any. */
int nodes_set_live(struct nodes *nodes, struct folder *folder,
		   struct checkpoint *checkpoint, struct live **ret_old);

#endif
