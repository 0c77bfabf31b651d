/* SPDX-License-Identifier: Apache-2.0 */
/* The units of a sweep are all elements of all items, each once, in order. */
#include "support/test.h"
#include "support/dice.h"

#include "fs/cli/parallel_scan.h"

static struct dice dice;

enum { ITEMS_MAX = 300 };

/* Walk over all units. */
static void check_units(const struct parallel_scan_item *items, uint64_t count)
{
	struct parallel_scan sweep;
	uint64_t item = 0, position = 0, unit, size = 0, i;

	assert_int_equal(parallel_scan_init(&sweep, items, count), 0);
	for (i = 0; i < count; i++)
		size += items[i].count * items[i].size;
	assert_true(sweep.size == size);
	assert_true(sweep.first[count] <= 65536 + count);
	for (unit = 0; unit < sweep.first[count]; unit++) {
		struct parallel_scan_range range =
			parallel_scan_range(&sweep, unit);

		while (position == items[item].count) {
			item++;
			position = 0;
		}
		assert_int_equal(range.item, item);
		assert_true(unit >= sweep.first[item]);
		assert_true(unit < sweep.first[item + 1]);
		assert_true(range.begin == position);
		assert_true(range.end > position);
		assert_true(range.end <= items[item].count);
		assert_true((range.end - range.begin) * items[item].size <=
			    sweep.unit_size);
		position = range.end;
	}
	while (item < count && position == items[item].count) {
		item++;
		position = 0;
	}
	assert_int_equal(item, count);
	parallel_scan_finish(&sweep);
}

static void random_items(void **state)
{
	struct parallel_scan_item items[ITEMS_MAX];
	unsigned round, i;

	(void)state;
	for (round = 0; round < 200; round++) {
		uint64_t count = dice_below(&dice, ITEMS_MAX + 1);

		for (i = 0; i < count; i++) {
			unsigned bits = (unsigned)dice_below(&dice, 28);

			items[i].size = UINT64_C(1) << dice_below(&dice, 5);
			items[i].count = dice_chance(&dice, 20) ? 0 :
				dice_below(&dice, UINT64_C(1) << bits);
		}
		check_units(items, count);
	}
}

/* Around the end of a unit. */
static void boundaries(void **state)
{
	uint64_t size, more;

	(void)state;
	for (size = 1; size <= 16; size *= 2)
		for (more = 0; more < 5; more++) {
			struct parallel_scan_item item = {
				(4 * MIB) / size + more - 2,
				size,
			};

			check_units(&item, 1);
		}
}

/* What is kept for each unit stays small, whatever a tensor claims. */
static void few_units_of_much(void **state)
{
	struct parallel_scan_item items[3] = {
		{ LIMIT_TENSOR_SIZE / 16, 16 },
		{ 3, 1 },
		{ UINT64_C(1) << 40, 2 },
	};
	struct parallel_scan sweep;

	(void)state;
	check_units(items, 3);
	/* More than 2^64 bytes together. */
	items[1] = items[2] = items[0];
	items[0].count *= 3;
	assert_int_equal(parallel_scan_init(&sweep, items, 3), 0);
	assert_true(sweep.size == UINT64_MAX);
	assert_true(sweep.first[3] < 2 * 65536 + 3);
	parallel_scan_finish(&sweep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_items),
		cmocka_unit_test(boundaries),
		cmocka_unit_test(few_units_of_much),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("sweep", tests, NULL, NULL);
}
