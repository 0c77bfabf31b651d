/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The piece is a box with two strides per axis, one in the file and one in
 * the target. Axes of one element say nothing and go; the others are sorted
 * by their stride in the file, so that the walk goes forward in it; and an
 * axis that continues the next one in both places is merged with it. What is
 * then innermost is a run if it is dense in both places, the next axis makes
 * the runs of an extent, and the rest are counted through like an odometer.
 */
#include "shard/read/extent.h"

/* Stable insertion: few axes, and mostly sorted already. */
static void sort_axes(struct extent_axis *axes, unsigned count)
{
	unsigned i, j;

	for (i = 1; i < count; i++) {
		struct extent_axis axis = axes[i];

		for (j = i; j > 0 && axes[j - 1].stride < axis.stride; j--)
			axes[j] = axes[j - 1];
		axes[j] = axis;
	}
}

static unsigned merge_axes(struct extent_axis *axes, unsigned count)
{
	unsigned i, kept = 0;

	for (i = 0; i < count; i++) {
		struct extent_axis *last = kept ? &axes[kept - 1] : NULL;

		if (last && last->stride == axes[i].stride * axes[i].count &&
		    last->target_stride ==
			    axes[i].target_stride * axes[i].count) {
			last->count *= axes[i].count;
			last->stride = axes[i].stride;
			last->target_stride = axes[i].target_stride;
		} else {
			axes[kept++] = axes[i];
		}
	}
	return kept;
}

void extents_init(struct extents *extents, const struct plan *plan,
		  const struct piece *piece, const struct layout *layout)
{
	uint64_t size = dtype_info(plan->entry->dtype)->size;
	struct extent_axis *axes = extents->outer;
	struct extent *extent = &extents->extent;
	unsigned i, count = 0;

	*extent = (struct extent){
		.offset = layout->offset, .target = piece->target * size,
		.size = size, .count = 1,
	};
	for (i = 0; i < plan->entry->ndim; i++) {
		extent->offset += piece->offset[i] * layout->stride[i] * size;
		if (piece->count[i] == 1)
			continue;
		axes[count++] = (struct extent_axis){
			.count = piece->count[i],
			.stride = layout->stride[i] * size,
			.target_stride = plan->stride[i] * size,
		};
	}
	sort_axes(axes, count);
	count = merge_axes(axes, count);
	if (count > 0 && axes[count - 1].stride == size &&
	    axes[count - 1].target_stride == size)
		extent->size = size * axes[--count].count;
	if (count > 0) {
		count--;
		extent->count = axes[count].count;
		extent->stride = axes[count].stride;
		extent->target_stride = axes[count].target_stride;
	}
	extents->outer_count = count;
	for (i = 0; i < count; i++)
		extents->index[i] = 0;
	extents->done = false;
}

bool extents_next(struct extents *extents, struct extent *ret_extent)
{
	struct extent *extent = &extents->extent;
	unsigned i;

	if (extents->done)
		return false;
	*ret_extent = *extent;
	for (i = extents->outer_count; i > 0; i--) {
		const struct extent_axis *axis = &extents->outer[i - 1];

		extent->offset += axis->stride;
		extent->target += axis->target_stride;
		if (++extents->index[i - 1] < axis->count)
			return true;
		extents->index[i - 1] = 0;
		extent->offset -= axis->stride * axis->count;
		extent->target -= axis->target_stride * axis->count;
	}
	extents->done = true;
	return true;
}
