/* SPDX-License-Identifier: Apache-2.0 */
/* The checkpoints that this process has mounted, for whoever answers other
 * ranks: those who mount them fill the table, and main wires it. */
#ifndef SHARD_CHECKPOINT_MOUNTED_HOOKS_H
#define SHARD_CHECKPOINT_MOUNTED_HOOKS_H

#include "shard/checkpoint/checkpoint.h"

/* A checkpoint, for ranks that know it. Two steps of one run have the same
 * metadata: the folder counts as well. */
struct catalog_id {
	uint64_t hash[2];	/* of the catalog */
	uint64_t folder;	/* catalog_folder_id of its path */
};

uint64_t catalog_folder_id(const char *path);

struct held_checkpoint {
	struct checkpoint *checkpoint;
	const char *path;	/* of its folder */
	void *hold;		/* the hooks' */
};

/* All may block. */
struct checkpoint_hooks {
	void *context;
	/* The one that is wanted, looked for if need be. 0; -EBADMSG: it was
	 * refused; -ESTALE: there is none; -errno. */
	int (*find)(void *context, const struct catalog_wanted *wanted,
		    struct held_checkpoint *ret_held);
	/* Those of this identity, the newest first, after @skip of them: also
	 * some that are not in their folder any more. -ENODATA: no more. */
	int (*find_id)(void *context, const struct catalog_id *id,
		       unsigned skip, struct held_checkpoint *ret_held);
	/* Look again, at once, for what is in the folder @path. */
	int (*look)(void *context, const char *path);
	void (*put)(void *context, const struct held_checkpoint *held);
	/* For the log. */
	void (*say)(void *context, const char *line);
};

#endif
