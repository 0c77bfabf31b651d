/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The union: what all ranks have in one folder, as one. A path that several
 * ranks have is one file if size and content agree; else the lowest rank
 * wins, which is said. Of a rank that does not answer, what it had at the
 * last look counts, or at that of another rank.
 *
 * A merged folder is immutable and reference counted; a merger keeps the last
 * of each path, for a second. Thread safe.
 */
#ifndef SHARD_STORE_UNION_H
#define SHARD_STORE_UNION_H

#include "shard/store/peers.h"

struct merged_entry {
	const char *name;	/* borrowed from the folder, as is target */
	const char *target;	/* of a link */
	size_t target_size;	/* bytes */
	unsigned rank;		/* whose it is: the lowest that has it */
	struct stored_entry stored;
	/* Who is read from: the same, or a rank whose store can be opened
	 * from here and that has the same content. */
	unsigned near;
	struct pin near_pin;
};

struct merged {
	_Atomic unsigned references;
	char *path;			/* owned */
	unsigned ranks;
	bool found;			/* some rank has such a folder */
	size_t count;
	struct merged_entry *entries;	/* owned; sorted by name */
	char *names;			/* owned: their names and targets */
	struct array *lists;		/* owned: of each rank, as it came */
	bool *known;			/* owned: what the rank has is known */
	uint64_t made_ms;
};

struct merger;

/* @say, which may be NULL, gets a line for each conflict, once. */
struct merger *merger_create(struct peers *peers,
			     void (*say)(void *context, const char *line),
			     void *context);
/* All merged folders are put. NULL is fine. */
void merger_destroy(struct merger *merger);

/* The folder @path, at most a second old unless @fresh. May block. 0 also for
 * one that nobody has; -errno. The caller puts it. */
int merger_get(struct merger *merger, const char *path, bool fresh,
	       struct merged **ret_merged);
/* What rank @rank had in the folder @path at the last look, appended to @out;
 * never blocks. -ENODATA: it is not remembered. -ENOMEM. */
int merger_recall(struct merger *merger, const char *path, unsigned rank,
		  struct array *out);
/* NULL is fine. */
void merged_put(struct merged *merged);

/* NULL: there is none of that name. */
const struct merged_entry *merged_find(const struct merged *merged,
				       const char *name);

/*
 * The entry @path, of its folder, which the caller puts, whatever is
 * returned, unless it is NULL. @merged, if it is not NULL, is a folder to try
 * first. -ENOENT, -errno.
 */
int merger_find(struct merger *merger, const char *path,
		struct merged **merged,
		const struct merged_entry **ret_entry);

#endif
