/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A random tensor, cut at random into parts: the oracle of the tests of plan
 * and of what stands on it. It knows nothing but which part holds an element.
 */
#ifndef SUPPORT_WORLD_H
#define SUPPORT_WORLD_H

#include "support/dice.h"

#include "shard/base/box.h"
#include "shard/base/dtype.h"

enum { WORLD_PARTS = 48 };

struct world {
	enum dtype dtype;
	struct box shape;
	unsigned part_count;
	struct box parts[WORLD_PARTS];	/* as the checkpoint lists them */
};

struct world_limits {
	unsigned ndim;		/* at most so many axes */
	uint64_t volume;	/* and about so many elements at most */
	unsigned holes;		/* percentage of worlds that have some */
	unsigned overlaps;	/* likewise */
};

void world_make(struct world *world, const struct world_limits *limits,
		struct dice *dice);

/* A random box inside of @outer, sometimes empty, sometimes all of it. */
void world_pick(struct dice *dice, const struct box *outer,
		struct box *ret_box);

/* The part that holds the element at @index of the tensor: the last one that
 * was listed; -1: none. */
int world_owner(const struct world *world, const uint64_t *index);

/* Go to the next element of @box in row-major order; false behind the last.
 * @index counts from the box's own corner. */
bool world_step(const struct box *box, uint64_t *index);

/* Position of the element at @index in a row-major array of sizes @size. */
uint64_t world_flat(unsigned ndim, const uint64_t *size,
		    const uint64_t *index);

#endif
