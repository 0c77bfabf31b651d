/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boxes: offsets and sizes per axis, in elements, half-open. Axis 0 is the
 * outermost; a box of no axes holds one element.
 */
#ifndef SHARD_BASE_BOX_H
#define SHARD_BASE_BOX_H

#include "shard/base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct box {
	unsigned ndim;
	uint64_t offset[LIMIT_NDIM];
	uint64_t size[LIMIT_NDIM];
};

/* Elements of @box. Its sizes were checked: no overflow. */
uint64_t box_volume(const struct box *box);

/* The common part of @a and @b, of equal ndim; false when it is empty. */
bool box_intersect(const struct box *a, const struct box *b,
		   struct box *ret_common);

/*
 * The parts of @box outside of @hole, at most 2 * ndim disjoint boxes in
 * @ret_parts; returns their number, 0 when nothing is left. Without a common
 * part that is @box itself.
 */
unsigned box_subtract(const struct box *box, const struct box *hole,
		      struct box *ret_parts);

/* Strides in elements of a row-major array with the sizes @size. */
void box_strides(unsigned ndim, const uint64_t *size, uint64_t *ret_stride);

#endif
