/* SPDX-License-Identifier: Apache-2.0 */
/* Boxes against sets of elements: every element of a small space is asked
 * whether it is inside. */
#include "support/test.h"
#include "support/world.h"

#include "shard/base/box.h"

#include <string.h>

static struct dice dice;

static bool holds(const struct box *box, const uint64_t *index)
{
	unsigned i;

	for (i = 0; i < box->ndim; i++)
		if (index[i] < box->offset[i] ||
		    index[i] >= box->offset[i] + box->size[i])
			return false;
	return true;
}

static struct box random_space(void)
{
	struct box space = { .ndim = (unsigned)dice_below(&dice, 5) };
	unsigned i;

	for (i = 0; i < space.ndim; i++)
		space.size[i] = 1 + dice_below(&dice, 5);
	return space;
}

static uint64_t count_elements(const struct box *space, const struct box *box)
{
	uint64_t index[LIMIT_NDIM] = { 0 }, count = 0;

	do
		count += holds(box, index);
	while (world_step(space, index));
	return count;
}

static void volume_counts_elements(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < 2000; i++) {
		struct box space = random_space(), box;

		world_pick(&dice, &space, &box);
		assert_int_equal(box_volume(&box),
				 count_elements(&space, &box));
	}
}

static void intersection_holds_the_common_elements(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < 2000; i++) {
		struct box space = random_space(), a, b, common;
		uint64_t index[LIMIT_NDIM] = { 0 };
		bool any;

		world_pick(&dice, &space, &a);
		world_pick(&dice, &space, &b);
		memset(&common, 0xaa, sizeof(common));
		any = box_intersect(&a, &b, &common);
		do {
			bool both = holds(&a, index) && holds(&b, index);

			assert_true(!both || any);
			if (any)
				assert_int_equal(both, holds(&common, index));
		} while (world_step(&space, index));
		if (any)
			assert_true(box_volume(&common) > 0);
	}
}

static void subtraction_leaves_each_other_element_once(void **state)
{
	unsigned i, j;

	(void)state;
	for (i = 0; i < 2000; i++) {
		struct box space = random_space(), a, b;
		struct box parts[2 * LIMIT_NDIM + 1];
		uint64_t index[LIMIT_NDIM] = { 0 };
		unsigned count;

		world_pick(&dice, &space, &a);
		world_pick(&dice, &space, &b);
		count = box_subtract(&a, &b, parts);
		assert_true(count <= 2 * a.ndim || (count == 1 && !a.ndim));
		do {
			unsigned found = 0;

			for (j = 0; j < count; j++)
				found += holds(&parts[j], index);
			assert_int_equal(found, holds(&a, index) &&
						!holds(&b, index));
		} while (world_step(&space, index));
	}
}

static void result_may_be_an_argument(void **state)
{
	struct box a = { 1, { 2 }, { 6 } }, b = { 1, { 5 }, { 9 } };

	(void)state;
	assert_true(box_intersect(&a, &b, &a));
	assert_int_equal(a.offset[0], 5);
	assert_int_equal(a.size[0], 3);
}

static void strides_are_row_major(void **state)
{
	unsigned i, axis;

	(void)state;
	for (i = 0; i < 500; i++) {
		struct box space = random_space();
		uint64_t index[LIMIT_NDIM] = { 0 }, stride[LIMIT_NDIM];
		uint64_t flat = 0;

		box_strides(space.ndim, space.size, stride);
		do {
			uint64_t at = 0;

			for (axis = 0; axis < space.ndim; axis++)
				at += index[axis] * stride[axis];
			assert_int_equal(at, flat++);
		} while (world_step(&space, index));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(volume_counts_elements),
		cmocka_unit_test(intersection_holds_the_common_elements),
		cmocka_unit_test(subtraction_leaves_each_other_element_once),
		cmocka_unit_test(result_may_be_an_argument),
		cmocka_unit_test(strides_are_row_major),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("box", tests, NULL, NULL);
}
