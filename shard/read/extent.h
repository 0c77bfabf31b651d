/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The owner's level of planning: a piece of a shard to extents of its file.
 * Pure: no I/O, no lock, no allocation, constant memory. Only the owner can
 * do this, since only the owner has opened the stored item.
 */
#ifndef SHARD_READ_EXTENT_H
#define SHARD_READ_EXTENT_H

#include "shard/base/layout.h"
#include "shard/read/plan.h"

/*
 * @count runs of @size bytes each, @stride bytes apart in the file and
 * @target_stride bytes apart in what is read. When a run holds more than one
 * element they lie in the same order in both.
 */
struct extent {
	uint64_t offset;	/* of the first run in the file, bytes */
	uint64_t target;	/* of the first run in the reply, bytes */
	uint64_t size, count, stride, target_stride;
};

struct extent_axis {
	uint64_t count;
	uint64_t stride, target_stride;	/* bytes */
};

struct extents {
	struct extent extent;
	unsigned outer_count;		/* axes above those of the extent */
	struct extent_axis outer[LIMIT_NDIM];
	uint64_t index[LIMIT_NDIM];
	bool done;
};

/*
 * The extents of @piece of @plan in a shard laid out as @layout. They come in
 * the order of the file where the layout has such an order.
 */
void extents_init(struct extents *extents, const struct plan *plan,
		  const struct piece *piece, const struct layout *layout);
bool extents_next(struct extents *extents, struct extent *ret_extent);

#endif
