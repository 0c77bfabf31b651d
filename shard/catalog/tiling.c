/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overlap: a sweep along the axis on which the boxes start at the most
 * different places. A box is compared with those that are still open where
 * it starts: none for shards along one axis, a slab of the mesh otherwise.
 *
 * Holes: without an overlap, volumes that add up leave none. Else the boxes
 * are cut out of the whole, one by one, and what stays is the holes.
 */
#include "shard/catalog/tiling.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct tile_start {
	uint64_t offset, index;
};

static int compare_starts(const void *a, const void *b)
{
	const struct tile_start *x = a, *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

static const uint64_t *offsets(const struct tile *tile, uint64_t index)
{
	return tile->numbers + 2 * tile->whole->ndim * index;
}

static const uint64_t *sizes(const struct tile *tile, uint64_t index)
{
	return offsets(tile, index) + tile->whole->ndim;
}

static void get_box(const struct tile *tile, uint64_t index, struct box *ret)
{
	unsigned i;

	ret->ndim = tile->whole->ndim;
	for (i = 0; i < ret->ndim; i++) {
		ret->offset[i] = offsets(tile, index)[i];
		ret->size[i] = sizes(tile, index)[i];
	}
}

static bool overlaps(const struct tile *tile, uint64_t a, uint64_t b)
{
	const uint64_t *x = offsets(tile, a), *y = offsets(tile, b);
	const uint64_t *x_size = sizes(tile, a), *y_size = sizes(tile, b);
	unsigned i;

	for (i = 0; i < tile->whole->ndim; i++)
		if (x[i] + x_size[i] <= y[i] || y[i] + y_size[i] <= x[i])
			return false;
	return true;
}

static void sort_starts(const struct tile *tile, unsigned axis,
			struct tile_start *starts)
{
	uint64_t i;

	for (i = 0; i < tile->count; i++)
		starts[i] = (struct tile_start){ offsets(tile, i)[axis], i };
	qsort(starts, tile->count, sizeof(*starts), compare_starts);
}

/* Leaves @starts sorted along the axis it returns. */
static unsigned choose_axis(const struct tile *tile, struct tile_start *starts)
{
	uint64_t best_count = 0;
	unsigned axis, best = 0;

	for (axis = 0; axis < tile->whole->ndim; axis++) {
		uint64_t i, count = 1;

		sort_starts(tile, axis, starts);
		for (i = 1; i < tile->count; i++)
			count += starts[i].offset != starts[i - 1].offset;
		if (count > best_count) {
			best_count = count;
			best = axis;
		}
	}
	sort_starts(tile, best, starts);
	return best;
}

static int sweep(const struct tile *tile, unsigned axis,
		 const struct tile_start *starts, uint64_t *open,
		 struct tiling_result *result)
{
	uint64_t open_count = 0, steps = 0, i, j, kept;

	for (i = 0; i < tile->count; i++) {
		uint64_t index = starts[i].index;

		for (j = kept = 0; j < open_count; j++) {
			uint64_t other = open[j];

			if (++steps > LIMIT_TILE_STEPS)
				return -E2BIG;
			if (offsets(tile, other)[axis] +
			    sizes(tile, other)[axis] <= starts[i].offset)
				continue;
			open[kept++] = other;
			if (overlaps(tile, index, other)) {
				result->overlap = true;
				return 0;
			}
		}
		open_count = kept;
		open[open_count++] = index;
	}
	return 0;
}

static int find_overlap(const struct tile *tile, struct tiling_result *result)
{
	struct tile_start *starts;
	uint64_t *open;
	int error = -ENOMEM;

	if (tile->whole->ndim == 0) {
		result->overlap = true;
		return 0;
	}
	starts = calloc(tile->count, sizeof(*starts));
	open = calloc(tile->count, sizeof(*open));
	if (starts && open)
		error = sweep(tile, choose_axis(tile, starts), starts, open,
			      result);
	free(open);
	free(starts);
	return error;
}

/* Cut @box out of @count holes at @from; the new ones go to @to, which has
 * room for LIMIT_HOLES and what one cut adds. Returns their number. */
static unsigned cut(const struct box *box, const struct box *from,
		    unsigned count, struct box *to)
{
	unsigned i, made = 0;

	for (i = 0; i < count; i++) {
		made += box_subtract(&from[i], box, to + made);
		if (made > LIMIT_HOLES)
			return made;
	}
	return made;
}

static int find_holes(const struct tile *tile, struct tiling_result *result)
{
	const size_t room = LIMIT_HOLES + 2 * LIMIT_NDIM + 1;
	struct box *from = calloc(room, sizeof(*from));
	struct box *to = calloc(room, sizeof(*to));
	unsigned count = 1;
	uint64_t i;

	if (!from || !to) {
		free(from);
		free(to);
		return -ENOMEM;
	}
	from[0] = *tile->whole;
	for (i = 0; i < tile->count && count > 0; i++) {
		struct box *swap = from, box;

		get_box(tile, i, &box);
		count = cut(&box, from, count, to);
		from = to;
		to = swap;
		if (count > LIMIT_HOLES) {
			from[0] = *tile->whole;
			count = 1;
			break;
		}
	}
	free(to);
	result->holes = from;
	result->hole_count = count;
	return 0;
}

int tiling_check(const struct tile *tile, struct tiling_result *ret_result)
{
	uint64_t whole = box_volume(tile->whole), covered = 0, i;
	struct tiling_result result = { .overlap = false };
	struct box box;
	int error = 0;

	for (i = 0; i < tile->count; i++) {
		get_box(tile, i, &box);
		if (__builtin_add_overflow(covered, box_volume(&box), &covered))
			covered = UINT64_MAX;
	}
	if (tile->count > 1)
		error = find_overlap(tile, &result);
	if (!error && whole > 0 && tile->count == 0) {
		result.holes = malloc(sizeof(*result.holes));
		if (!result.holes)
			return -ENOMEM;
		*result.holes = *tile->whole;
		result.hole_count = 1;
	} else if (!error && whole > 0 && (result.overlap || covered != whole))
		error = find_holes(tile, &result);
	if (error)
		return error;
	*ret_result = result;
	return 0;
}
