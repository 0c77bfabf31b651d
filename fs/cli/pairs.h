/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entries of two checkpoints side by side, by name, and what became of
 * each: found by their metadata, and then by reading them.
 */
#ifndef FS_CLI_PAIRS_H
#define FS_CLI_PAIRS_H

#include "fs/cli/parallel_scan.h"

#include "shard/values/compare.h"

#include <stdatomic.h>

enum pair_state {
	PAIR_EQUAL,
	PAIR_CHANGED,
	PAIR_ADDED,		/* only on the right */
	PAIR_REMOVED,		/* only on the left */
	PAIR_DTYPE,		/* types differ, shapes do not */
	PAIR_SHAPE,
	PAIR_UNREADABLE,	/* it cannot be said */
	PAIR_STATES,
};

enum pair_side { PAIR_LEFT, PAIR_RIGHT };

/* An index of an entry that there is not. */
#define PAIR_NONE UINT64_MAX

struct pair {
	uint64_t entries[2];		/* indices in the catalogs, or
					 * PAIR_NONE */
	enum pair_state state;		/* final after pairs_compare */
	bool read;			/* both are to be read */
	bool has_values;		/* `comparison` says how far they are
					 * apart; final after pairs_compare */
	/* The first unit in which something was found, doubled, and odd when
	 * that is that a side cannot be read. */
	_Atomic uint64_t event;
	struct parallel_scan_failure failure; /* of reading either side */
	atomic_uint failed_side;	/* the first */
	struct comparison comparison;
};

struct pairs {
	/* Set before pairs_make; borrowed. */
	const struct tool *tool;
	const char *paths[2];
	const struct checkpoint *checkpoints[2];
	bool (*select)(void *context, const struct catalog *catalog,
		       const struct catalog_entry *entry);
	void *context;
	bool values;			/* look at values, too */
	bool hasty;			/* one difference is enough */
	/* The rest is set by the functions below. */
	struct pair *pairs;		/* owned */
	uint64_t count;
	uint64_t objects_left_out;	/* of both, since one format has none */
	struct parallel_scan_item *items; /* owned; of each pair */
	struct parallel_scan sweep;
	struct comparison *parts;	/* owned; of each unit, for values */
	struct parallel_scan_replies replies;
	atomic_bool different;		/* some pair is */
};

/* 0 or -ENOMEM; finish them in any case. */
int pairs_make(struct pairs *pairs);
void pairs_finish(struct pairs *pairs);

/* Read what must be read. What cannot be read is said on standard error. 0, or
 * -errno for what says nothing about the checkpoints. */
int pairs_compare(struct pairs *pairs);

/* The entry of @pair on @side; NULL: there is none. */
const struct catalog_entry *pair_entry(const struct pairs *pairs,
				       const struct pair *pair,
				       enum pair_side side);

#endif
