/* SPDX-License-Identifier: Apache-2.0 */
/* tiling_check against counting how often each element is covered. */
#include "support/test.h"
#include "support/world.h"

#include "shard/base/limits.h"

/* A smaller limit than the real one, which is a second of work. */
#undef LIMIT_TILE_STEPS
#define LIMIT_TILE_STEPS ((uint64_t)1 << 25)
#include "shard/catalog/tiling.c"

static struct dice dice;

static bool holds(const struct box *box, const uint64_t *index)
{
	unsigned i;

	for (i = 0; i < box->ndim; i++)
		if (index[i] < box->offset[i] ||
		    index[i] - box->offset[i] >= box->size[i])
			return false;
	return true;
}

/* Boxes as tiling_check takes them; the caller frees @numbers. */
static struct tile make_tile(const struct box *whole, const struct box *boxes,
			     uint64_t count)
{
	unsigned ndim = whole->ndim;
	uint64_t *numbers = calloc(2 * ndim * count + 1, sizeof(*numbers)), i;

	assert_non_null(numbers);
	for (i = 0; i < count; i++) {
		memcpy(numbers + 2 * ndim * i, boxes[i].offset,
		       ndim * sizeof(*numbers));
		memcpy(numbers + 2 * ndim * i + ndim, boxes[i].size,
		       ndim * sizeof(*numbers));
	}
	return (struct tile){ whole, numbers, count };
}

/* What tiling_check says of @boxes, and what is expected of its return. */
static struct tiling_result
run(const struct box *whole, const struct box *boxes, uint64_t count, int error)
{
	struct tile tile = make_tile(whole, boxes, count);
	struct tiling_result result = { .holes = NULL };

	assert_int_equal(tiling_check(&tile, &result), error);
	free((void *)(uintptr_t)tile.numbers);
	return result;
}

static void check_element(const struct box *boxes, unsigned count,
			  const struct tiling_result *result,
			  const uint64_t *index, bool *overlap)
{
	unsigned covered = 0, holes = 0;
	uint64_t i;

	for (i = 0; i < count; i++)
		covered += holds(&boxes[i], index);
	for (i = 0; i < result->hole_count; i++)
		holes += holds(&result->holes[i], index);
	assert_int_equal(holes, covered == 0);
	*overlap |= covered > 1;
}

static void check_world(struct world *world)
{
	uint64_t index[LIMIT_NDIM] = { 0 };
	struct box boxes[WORLD_PARTS];
	struct tiling_result result;
	bool overlap = false;
	unsigned i, count = 0;

	for (i = 0; i < world->part_count; i++)
		if (box_volume(&world->parts[i]) > 0)
			boxes[count++] = world->parts[i];
	result = run(&world->shape, boxes, count, 0);
	if (box_volume(&world->shape) > 0)
		do
			check_element(boxes, count, &result, index, &overlap);
		while (world_step(&world->shape, index));
	assert_int_equal(result.overlap, overlap);
	for (i = 0; i < result.hole_count; i++)
		assert_true(box_volume(&result.holes[i]) > 0);
	free(result.holes);
}

static void random_tilings(void **state)
{
	const struct world_limits limits = {
		.ndim = 4, .volume = 120, .holes = 40, .overlaps = 30,
	};
	unsigned i;

	(void)state;
	for (i = 0; i < 4000; i++) {
		struct world world;

		world_make(&world, &limits, &dice);
		check_world(&world);
	}
}

static void nothing_leaves_one_hole(void **state)
{
	const struct box whole = { 2, { 0 }, { 3, 4 } };
	struct tiling_result result = run(&whole, NULL, 0, 0);

	(void)state;
	assert_false(result.overlap);
	assert_int_equal(result.hole_count, 1);
	assert_memory_equal(result.holes[0].size, whole.size,
			    2 * sizeof(uint64_t));
	free(result.holes);
}

static void empty_tensor_has_no_holes(void **state)
{
	const struct box whole = { 2, { 0 }, { 0, 4 } };
	struct tiling_result result = run(&whole, NULL, 0, 0);

	(void)state;
	assert_int_equal(result.hole_count, 0);
	free(result.holes);
}

static void scalars(void **state)
{
	const struct box whole = { .ndim = 0 };
	const struct box twice[2] = { { .ndim = 0 }, { .ndim = 0 } };
	unsigned count;

	(void)state;
	for (count = 0; count <= 2; count++) {
		struct tiling_result result = run(&whole, twice, count, 0);

		assert_int_equal(result.hole_count, count == 0);
		assert_int_equal(result.overlap, count == 2);
		free(result.holes);
	}
}

/* Every second element is missing: that many are listed, and twice as many
 * are said to be somewhere in the whole. */
static void holes_are_listed_up_to_a_limit(void **state)
{
	const struct box few = { 1, { 0 }, { 2 * LIMIT_HOLES } };
	const struct box many = { 1, { 0 }, { 4 * LIMIT_HOLES } };
	static struct box boxes[2 * LIMIT_HOLES];
	struct tiling_result result;
	unsigned i;

	(void)state;
	for (i = 0; i < 2 * LIMIT_HOLES; i++)
		boxes[i] = (struct box){ 1, { 2 * i }, { 1 } };
	result = run(&few, boxes, LIMIT_HOLES, 0);
	assert_int_equal(result.hole_count, LIMIT_HOLES);
	free(result.holes);
	result = run(&many, boxes, 2 * LIMIT_HOLES, 0);
	assert_int_equal(result.hole_count, 1);
	assert_int_equal(result.holes[0].offset[0], 0);
	assert_int_equal(result.holes[0].size[0], 4 * LIMIT_HOLES);
	free(result.holes);
}

/*
 * Flat boxes above, tall boxes below: along the first axis all tall ones start
 * at the same place, along the second all flat ones. It is given up before
 * all pairs of them are compared.
 */
static void comparisons_are_bounded(void **state)
{
	enum { HALF = 9000 };
	const struct box whole = { 2, { 0 }, { 2 * HALF, HALF } };
	struct box *boxes = calloc(2 * HALF, sizeof(*boxes));
	uint64_t i;

	(void)state;
	assert_non_null(boxes);
	for (i = 0; i < HALF; i++) {
		boxes[i] = (struct box){ 2, { i, 0 }, { 1, HALF } };
		boxes[HALF + i] =
			(struct box){ 2, { HALF, i }, { HALF, 1 } };
	}
	run(&whole, boxes, 2 * HALF, -E2BIG);
	free(boxes);
}

/* A mesh of 300 x 300 is no work. */
static void meshes_are_cheap(void **state)
{
	const struct box whole = { 2, { 0 }, { 900, 600 } };
	struct box *boxes = calloc(90000, sizeof(*boxes));
	struct tiling_result result;
	unsigned i;

	(void)state;
	assert_non_null(boxes);
	for (i = 0; i < 90000; i++)
		boxes[i] = (struct box){ 2, { i / 300 * 3, i % 300 * 2 },
					 { 3, 2 } };
	result = run(&whole, boxes, 90000, 0);
	assert_false(result.overlap);
	assert_int_equal(result.hole_count, 0);
	free(result.holes);
	boxes[77777].size[0] = 2;
	result = run(&whole, boxes, 90000, 0);
	assert_int_equal(result.hole_count, 1);
	assert_int_equal(box_volume(&result.holes[0]), 2);
	free(result.holes);
	free(boxes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_tilings),
		cmocka_unit_test(nothing_leaves_one_hole),
		cmocka_unit_test(empty_tensor_has_no_holes),
		cmocka_unit_test(scalars),
		cmocka_unit_test(holes_are_listed_up_to_a_limit),
		cmocka_unit_test(comparisons_are_bounded),
		cmocka_unit_test(meshes_are_cheap),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("tile", tests, NULL, NULL);
}
