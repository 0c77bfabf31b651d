/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader's level of planning: a range of a view to pieces of shards.
 * Pure: no I/O, no lock, no allocation, constant memory.
 *
 * A view shows a box of a tensor, its selection, as a row-major array. A
 * range of that array is at most 2 * ndim - 1 boxes; each is intersected with
 * the shards. Pieces come in no particular order of their targets. Together
 * they cover the range, unless the tensor has holes. Where shards overlap, the
 * piece that comes later holds the right bytes.
 */
#ifndef SHARD_READ_PLAN_H
#define SHARD_READ_PLAN_H

#include "shard/catalog/catalog.h"

/* What a read needs of one shard. All numbers are elements. */
struct piece {
	uint64_t shard;			/* index among the entry's */
	uint64_t target;		/* of the first element, from the
					 * start of the range */
	uint64_t offset[LIMIT_NDIM];	/* in the shard's box */
	uint64_t count[LIMIT_NDIM];
};

/* Elements [begin, end) of the row-major array that a view shows. */
struct plan_range {
	uint64_t begin, end;
};

struct plan {
	/* Const after plan_init. Borrowed from its caller. */
	const struct catalog *catalog;
	const struct catalog_entry *entry;
	struct box selection;
	uint64_t stride[LIMIT_NDIM];	/* of the target, row-major */
	uint64_t end;			/* of the range */
	/* The iteration. */
	uint64_t begin;			/* of the range, then of the rest */
	uint64_t first;			/* begin of the range */
	struct box block;		/* at hand, in the tensor */
	uint64_t block_target;
	uint64_t shard;			/* next to look at */
	bool block_open;
};

/*
 * Plan @range of the row-major array of @selection, a box inside of @entry.
 * @catalog and @entry must outlive the plan.
 */
void plan_init(struct plan *plan, const struct catalog *catalog,
	       const struct catalog_entry *entry, const struct box *selection,
	       struct plan_range range);

/* The next piece; false when there is none. */
bool plan_next(struct plan *plan, struct piece *ret_piece);

#endif
