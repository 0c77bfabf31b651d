/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/box.h"

uint64_t box_volume(const struct box *box)
{
	uint64_t volume = 1;
	unsigned i;

	for (i = 0; i < box->ndim; i++)
		volume *= box->size[i];
	return volume;
}

bool box_intersect(const struct box *a, const struct box *b,
		   struct box *ret_common)
{
	struct box common;
	unsigned i;

	common.ndim = a->ndim;
	for (i = 0; i < a->ndim; i++) {
		uint64_t a_end = a->offset[i] + a->size[i];
		uint64_t b_end = b->offset[i] + b->size[i];
		uint64_t begin = a->offset[i] > b->offset[i] ? a->offset[i] :
							       b->offset[i];
		uint64_t end = a_end < b_end ? a_end : b_end;

		if (begin >= end)
			return false;
		common.offset[i] = begin;
		common.size[i] = end - begin;
	}
	*ret_common = common;
	return true;
}

unsigned box_subtract(const struct box *box, const struct box *hole,
		      struct box *ret_parts)
{
	struct box common, rest = *box;
	unsigned i, count = 0;

	if (!box_intersect(box, hole, &common)) {
		ret_parts[0] = *box;
		return box_volume(box) > 0;
	}
	/* Cut off, axis by axis, what lies before and behind the common part;
	 * the rest shrinks to it. */
	for (i = 0; i < box->ndim; i++) {
		uint64_t end = rest.offset[i] + rest.size[i];
		uint64_t common_end = common.offset[i] + common.size[i];

		if (common.offset[i] > rest.offset[i]) {
			ret_parts[count] = rest;
			ret_parts[count++].size[i] =
				common.offset[i] - rest.offset[i];
		}
		if (end > common_end) {
			ret_parts[count] = rest;
			ret_parts[count].offset[i] = common_end;
			ret_parts[count++].size[i] = end - common_end;
		}
		rest.offset[i] = common.offset[i];
		rest.size[i] = common.size[i];
	}
	return count;
}

void box_strides(unsigned ndim, const uint64_t *size, uint64_t *ret_stride)
{
	uint64_t stride = 1;
	unsigned i;

	for (i = ndim; i > 0; i--) {
		ret_stride[i - 1] = stride;
		stride *= size[i - 1];
	}
}
