/* SPDX-License-Identifier: Apache-2.0 */
/* What all of the tree share. */
#ifndef FS_TREE_NAMESPACE_H
#define FS_TREE_NAMESPACE_H

#include "fs/tree/inode_table.h"
#include "fs/tree/open_file.h"
#include "fs/tree/open_folder.h"
#include "shard/base/counters.h"
#include "shard/store/peers.h"
#include "shard/store/store.h"

struct folder;

/* MNT/.ckptfs */
#define NAMESPACE_OWN ".ckptfs"

/* Folders that are kept for other ranks, which the kernel may not know. */
enum { NAMESPACE_KEPT = 256 };

struct namespace {
	struct store *store;	/* owned: what is shown */
	int root;		/* owned: this rank's own folder */
	int assets;		/* owned: of hf_assets; -1: none */
	const char *hf_root;	/* borrowed; NULL: see view_group_root */
	struct peers *peers;	/* borrowed; NULL: one process */
	struct decoded_cache *cache;	/* owned */
	struct counters counters;
	struct inode_table inodes;
	struct folder *top;	/* of the store; one hold; const */
	struct open_table opens;
	/* Guarded by the lock of the inodes: */
	TAILQ_HEAD(, named_inode) named;	/* slices and groups, the
						 * oldest first */
	unsigned named_count;	/* of them */
	unsigned named_new;	/* of them, since the kernel was asked to forget
				 * some */
	pthread_mutex_t kept_lock;
	struct folder *kept[NAMESPACE_KEPT]; /* one hold each; guarded by
					      * kept_lock, as is the next one */
	unsigned kept_next;
	/* What MNT/.ckptfs/NAME says, appended to @out; set once by main.
	 * False: there is no such file. */
	bool (*report)(void *context, const char *name, struct array *out);
	void *report_context;
	/* Called, on a thread that may block, for each open file of a view whose
	 * bytes are others now: the kernel must drop its pages. Set once by the
	 * mount, as is the next one. */
	void (*drop_pages)(void *context, uint64_t number);
	/* Called, on any thread, when the kernel should be asked to forget
	 * @count names of tree_oldest_name: must not block. */
	void (*drop_names)(void *context, unsigned count);
	void *drop_context;
};

#endif
