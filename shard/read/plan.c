/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A range of a row-major array as boxes, here of 2 axes:
 *
 *	. . . . . . . .
 *	. . . a a a a a		a: the end of the first row
 *	b b b b b b b b		b: whole rows, one box
 *	b b b b b b b b
 *	c c c . . . . .		c: the start of the last row
 *
 * From wherever the range stands, the next box takes the outermost axis along
 * which the range still holds whole rows of what lies below, and as many of
 * them as the range and the axis allow.
 *
 * The shards of a tensor without overlaps are sorted by their first axis, and
 * know how far those up to them reach: two searches bound those that a box can
 * meet.
 */
#include "shard/read/plan.h"

void plan_init(struct plan *plan, const struct catalog *catalog,
	       const struct catalog_entry *entry, const struct box *selection,
	       struct plan_range range)
{
	plan->catalog = catalog;
	plan->entry = entry;
	plan->selection = *selection;
	box_strides(selection->ndim, selection->size, plan->stride);
	plan->begin = range.begin;
	plan->first = range.begin;
	plan->end = range.end;
	plan->block_open = false;
}

/* The first shard that can reach beyond the start of the block. */
static uint64_t first_shard(const struct plan *plan)
{
	uint64_t low = 0, high = plan->entry->shard_count;

	if (plan->entry->ndim == 0 || plan->entry->flags & CATALOG_OVERLAP)
		return 0;
	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (catalog_shard(plan->catalog, plan->entry, middle)->reach >
		    plan->block.offset[0])
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static bool next_block(struct plan *plan)
{
	const struct box *selection = &plan->selection;
	uint64_t rest = plan->end - plan->begin, position = plan->begin;
	uint64_t taken = 1;
	unsigned axis, i;

	if (rest == 0)
		return false;
	for (axis = 0; axis < selection->ndim; axis++)
		if (position % plan->stride[axis] == 0 &&
		    rest >= plan->stride[axis])
			break;
	plan->block.ndim = selection->ndim;
	for (i = 0; i < selection->ndim; i++) {
		uint64_t index = position / plan->stride[i];

		position %= plan->stride[i];
		plan->block.offset[i] = selection->offset[i] + index;
		plan->block.size[i] = 1;
		if (i == axis) {
			taken = rest / plan->stride[i];
			if (taken > selection->size[i] - index)
				taken = selection->size[i] - index;
			plan->block.size[i] = taken;
			taken *= plan->stride[i];
		} else if (i > axis) {
			plan->block.size[i] = selection->size[i];
		}
	}
	plan->block_target = plan->begin - plan->first;
	plan->begin += taken;
	plan->shard = first_shard(plan);
	plan->block_open = true;
	return true;
}

static void make_piece(const struct plan *plan, const struct box *shard,
		       const struct box *common, struct piece *piece)
{
	unsigned i;

	piece->shard = plan->shard - 1;
	piece->target = plan->block_target;
	for (i = 0; i < common->ndim; i++) {
		piece->offset[i] = common->offset[i] - shard->offset[i];
		piece->count[i] = common->size[i];
		piece->target += (common->offset[i] - plan->block.offset[i]) *
				 plan->stride[i];
	}
}

/* The next piece of the block at hand. */
static bool next_piece(struct plan *plan, struct piece *ret_piece)
{
	bool sorted = plan->entry->ndim > 0 &&
		      !(plan->entry->flags & CATALOG_OVERLAP);

	while (plan->shard < plan->entry->shard_count) {
		struct box shard, common;
		uint64_t index = plan->shard++;

		catalog_box(plan->catalog, plan->entry, index, &shard);
		if (sorted && shard.offset[0] >=
			      plan->block.offset[0] + plan->block.size[0])
			return false;
		if (box_intersect(&plan->block, &shard, &common)) {
			make_piece(plan, &shard, &common, ret_piece);
			return true;
		}
	}
	return false;
}

bool plan_next(struct plan *plan, struct piece *ret_piece)
{
	for (;;) {
		if (!plan->block_open && !next_block(plan))
			return false;
		if (next_piece(plan, ret_piece))
			return true;
		plan->block_open = false;
	}
}
