/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extent against an element-by-element oracle: the pieces of random plans,
 * laid out at random: dense permutations of the axes, with steps, expanded
 * (stride 0), overlapping strides, anywhere in the file.
 */
#include "support/test.h"
#include "support/catalog_out.h"

#include "shard/read/extent.h"

#include <stdlib.h>
#include <string.h>

static struct dice dice;

static void shuffle(unsigned *order, unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++)
		order[i] = i;
	for (i = count; i > 1; i--) {
		unsigned j = (unsigned)dice_below(&dice, i), swap = order[j];

		order[j] = order[i - 1];
		order[i - 1] = swap;
	}
}

/* @ret_forward: distinct elements lie at distinct places, so that there is an
 * order of the file. */
static void make_layout(const struct box *shard, struct layout *layout,
			bool *ret_forward)
{
	unsigned order[LIMIT_NDIM], i;
	uint64_t stride = 1;

	*ret_forward = true;
	layout->offset = dice_below(&dice, 1000);
	layout->flags = 0;
	shuffle(order, shard->ndim);
	if (dice_chance(&dice, 40))
		for (i = 0; i < shard->ndim; i++)
			order[i] = shard->ndim - 1 - i;
	for (i = 0; i < shard->ndim; i++) {
		unsigned axis = order[i];

		if (dice_chance(&dice, 15))
			stride *= 1 + dice_below(&dice, 4);
		layout->stride[axis] = stride;
		stride *= shard->size[axis];
		if (shard->size[axis] == 1 && dice_chance(&dice, 30)) {
			layout->stride[axis] = dice_any(&dice) >> 1;
		} else if (dice_chance(&dice, 8)) {
			layout->stride[axis] = dice_below(&dice, 4);
			*ret_forward = false;
		}
	}
}

/* One element as the extents have it. */
struct found {
	uint64_t offset;
	unsigned count;
};

/* Where each element of the piece is to go, by the numbers of the target. */
struct expected {
	uint64_t offset;
	bool wanted;
};

static uint64_t take_extents(const struct plan *plan,
			     const struct piece *piece,
			     const struct layout *layout, bool forward,
			     struct found *found)
{
	uint64_t size = dtype_info(plan->entry->dtype)->size;
	uint64_t count = 0, last = 0, i, j;
	struct extents extents;
	struct extent extent;

	extents_init(&extents, plan, piece, layout);
	while (extents_next(&extents, &extent)) {
		assert_true(extent.count > 0 && extent.size > 0);
		assert_int_equal(extent.size % size, 0);
		if (forward)
			assert_true(extent.offset >= last);
		last = extent.offset;
		for (i = 0; i < extent.count; i++)
			for (j = 0; j < extent.size; j += size) {
				uint64_t at = extent.target + j +
					      i * extent.target_stride;

				assert_int_equal(at % size, 0);
				found[at / size].offset = extent.offset + j +
							  i * extent.stride;
				found[at / size].count++;
				count++;
			}
	}
	assert_false(extents_next(&extents, &extent));
	return count;
}

static uint64_t expect(const struct plan *plan, const struct piece *piece,
		       const struct layout *layout, struct expected *expected)
{
	uint64_t size = dtype_info(plan->entry->dtype)->size, count = 0;
	struct box run = { .ndim = plan->entry->ndim };
	uint64_t index[LIMIT_NDIM] = { 0 };
	unsigned i;

	memcpy(run.size, piece->count, run.ndim * sizeof(uint64_t));
	do {
		uint64_t target = piece->target, at = 0;

		for (i = 0; i < run.ndim; i++) {
			target += index[i] * plan->stride[i];
			at += (piece->offset[i] + index[i]) *
			      layout->stride[i];
		}
		expected[target].offset = layout->offset + at * size;
		expected[target].wanted = true;
		count++;
	} while (world_step(&run, index));
	return count;
}

static void check_piece(const struct plan *plan, const struct piece *piece,
			uint64_t total)
{
	struct expected *expected = calloc(total, sizeof(*expected));
	struct found *found = calloc(total, sizeof(*found));
	struct layout layout;
	struct box shard;
	bool forward;
	uint64_t i;

	assert_true(expected && found);
	catalog_box(plan->catalog, plan->entry, piece->shard, &shard);
	make_layout(&shard, &layout, &forward);
	assert_int_equal(take_extents(plan, piece, &layout, forward, found),
			 expect(plan, piece, &layout, expected));
	for (i = 0; i < total; i++) {
		assert_int_equal(found[i].count, expected[i].wanted);
		if (expected[i].wanted)
			assert_true(found[i].offset == expected[i].offset);
	}
	free(expected);
	free(found);
}

static void random_layouts(void **state)
{
	const struct world_limits limits = { .ndim = 6, .volume = 300 };
	unsigned i, j, cases = 0;

	(void)state;
	for (i = 0; i < 400; i++) {
		struct world world;
		struct catalog *catalog;

		world_make(&world, &limits, &dice);
		catalog = catalog_out_world(&world);
		for (j = 0; j < 8; j++) {
			struct box selection;
			struct piece piece;
			struct plan plan;
			uint64_t count, begin, end;

			world_pick(&dice, &world.shape, &selection);
			count = box_volume(&selection);
			begin = dice_below(&dice, count + 1);
			end = begin + dice_below(&dice, count - begin + 1);
			plan_init(&plan, catalog, catalog_entry(catalog, 0),
				  &selection,
				  (struct plan_range){ begin, end });
			for (; plan_next(&plan, &piece); cases++)
				check_piece(&plan, &piece, end - begin);
		}
		catalog_put(catalog);
	}
	print_message("%u pieces\n", cases);
}

/* A row-major shard read whole is one run, whatever its axes. */
static struct extent only_extent(unsigned ndim, const uint64_t *size,
				 const uint64_t *stride)
{
	static const uint64_t origin[LIMIT_NDIM];
	struct world world = { .dtype = DTYPE_F32, .part_count = 1 };
	struct layout layout = { .offset = 100 };
	struct catalog *catalog;
	struct extents extents;
	struct extent extent, other;
	struct piece piece;
	struct plan plan;
	unsigned i;

	world.shape = catalog_out_box(ndim, origin, size);
	world.parts[0] = world.shape;
	for (i = 0; i < ndim; i++)
		layout.stride[i] = stride[i];
	catalog = catalog_out_world(&world);
	plan_init(&plan, catalog, catalog_entry(catalog, 0), &world.shape,
		  (struct plan_range){ 0, box_volume(&world.shape) });
	assert_true(plan_next(&plan, &piece));
	extents_init(&extents, &plan, &piece, &layout);
	assert_true(extents_next(&extents, &extent));
	assert_false(extents_next(&extents, &other));
	catalog_put(catalog);
	return extent;
}

static void dense_data_is_one_run(void **state)
{
	static const uint64_t size[4] = { 5, 1, 7, 3 };
	static const uint64_t stride[4] = { 21, 999, 3, 1 };
	struct extent extent = only_extent(4, size, stride);

	(void)state;
	assert_int_equal(extent.offset, 100);
	assert_int_equal(extent.target, 0);
	assert_int_equal(extent.count, 1);
	assert_int_equal(extent.size, 5 * 7 * 3 * 4);
}

static void rows_with_gaps_are_one_extent(void **state)
{
	static const uint64_t size[3] = { 2, 5, 6 };
	static const uint64_t stride[3] = { 50, 10, 1 };
	struct extent extent = only_extent(3, size, stride);

	(void)state;
	assert_int_equal(extent.count, 10);
	assert_int_equal(extent.size, 24);
	assert_int_equal(extent.stride, 40);
	assert_int_equal(extent.target_stride, 24);
}

static void scalar_is_one_element(void **state)
{
	struct extent extent = only_extent(0, NULL, NULL);

	(void)state;
	assert_int_equal(extent.offset, 100);
	assert_int_equal(extent.count, 1);
	assert_int_equal(extent.size, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_layouts),
		cmocka_unit_test(dense_data_is_one_run),
		cmocka_unit_test(rows_with_gaps_are_one_extent),
		cmocka_unit_test(scalar_is_one_element),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("extent", tests, NULL, NULL);
}
