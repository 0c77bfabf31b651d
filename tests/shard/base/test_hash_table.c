/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"
#include "support/fail.h"

#include "shard/base/hash_table.h"
#include "shard/base/name_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { COUNT = 5000 };

/* Element i has the key keys[i], whose hash is keys[i] % kinds. */
struct numbers {
	struct hash_table table;
	uint64_t kinds;
	uint64_t keys[COUNT];
	unsigned equal_calls;
};

static uint64_t hash(const void *owner, uint32_t index)
{
	const struct numbers *numbers = owner;

	return numbers->keys[index] % numbers->kinds;
}

static bool equal(const void *owner, uint32_t index, const void *key)
{
	struct numbers *numbers = (struct numbers *)(uintptr_t)owner;

	numbers->equal_calls++;
	return numbers->keys[index] == *(const uint64_t *)key;
}

static const struct hash_table_keys keys = { hash, equal };

static struct numbers *make(uint64_t kinds)
{
	struct numbers *numbers = calloc(1, sizeof(*numbers));
	unsigned i;

	assert_non_null(numbers);
	numbers->kinds = kinds;
	hash_table_init(&numbers->table, &keys);
	/* All different, those of one hash far apart. */
	for (i = 0; i < COUNT; i++)
		numbers->keys[i] = i * UINT64_C(0x9e3779b97f4a7c15);
	return numbers;
}

static void finish(struct numbers *numbers)
{
	hash_table_finish(&numbers->table);
	free(numbers);
}

static int64_t find(const struct numbers *numbers, uint64_t key)
{
	return hash_table_find(&numbers->table, numbers, key % numbers->kinds,
			       &key);
}

/* Insert all, from an empty table, each found at once and to the end. */
static void check_growth(struct numbers *numbers, unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		assert_int_equal(find(numbers, numbers->keys[i]), -1);
		assert_int_equal(hash_table_insert(&numbers->table, numbers,
						   i), 0);
		assert_int_equal(find(numbers, numbers->keys[i]), i);
		assert_true(numbers->table.slot_count >= 2 * (i + 1));
		assert_true(numbers->table.slot_count < 8 * (i + 1));
	}
	assert_int_equal(numbers->table.count, count);
	for (i = 0; i < count; i++)
		assert_int_equal(find(numbers, numbers->keys[i]), i);
	assert_int_equal(find(numbers, 1), -1);
}

static void an_empty_table_has_nothing(void **state)
{
	struct numbers *numbers = make(UINT64_MAX);

	(void)state;
	assert_int_equal(find(numbers, 0), -1);
	assert_int_equal(numbers->equal_calls, 0);
	finish(numbers);
}

static void it_grows(void **state)
{
	struct numbers *numbers = make(UINT64_MAX);

	(void)state;
	check_growth(numbers, COUNT);
	finish(numbers);
}

/* All of one hash, and all of few: a run that wraps around the end, too. */
static void equal_hashes_are_told_apart(void **state)
{
	static const uint64_t kinds[] = { 1, 2, 7, 64 };
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(kinds); i++) {
		struct numbers *numbers = make(kinds[i]);

		check_growth(numbers, 300);
		finish(numbers);
	}
}

static void a_run_goes_on_at_the_first_slot(void **state)
{
	struct numbers *numbers = make(UINT64_MAX);
	unsigned i;

	(void)state;
	assert_int_equal(hash_table_reserve(&numbers->table, numbers, 4), 0);
	assert_int_equal(numbers->table.slot_count, 8);
	for (i = 0; i < 4; i++) {
		numbers->keys[i] = 8 * i + 6;
		assert_int_equal(hash_table_insert(&numbers->table, numbers,
						   i), 0);
	}
	assert_int_equal(numbers->table.slots[6], 1);
	assert_int_equal(numbers->table.slots[7], 2);
	assert_int_equal(numbers->table.slots[0], 3);
	assert_int_equal(numbers->table.slots[1], 4);
	for (i = 0; i < 4; i++)
		assert_int_equal(find(numbers, 8 * i + 6), i);
	assert_int_equal(find(numbers, 8 * 4 + 6), -1);
	finish(numbers);
}

static void what_is_reserved_does_not_grow(void **state)
{
	struct numbers *numbers = make(UINT64_MAX);
	uint64_t slot_count;
	unsigned i;

	(void)state;
	assert_int_equal(hash_table_reserve(&numbers->table, numbers, COUNT),
			 0);
	slot_count = numbers->table.slot_count;
	assert_int_equal(slot_count, hash_table_slot_count(COUNT));
	assert_int_equal(hash_table_reserve(&numbers->table, numbers, 1), 0);
	fail_arm(FAIL_MEMORY, 1);
	for (i = 0; i < COUNT; i++)
		assert_int_equal(hash_table_insert(&numbers->table, numbers,
						   i), 0);
	assert_false(fail_disarm());
	assert_int_equal(numbers->table.slot_count, slot_count);
	finish(numbers);
}

static void without_memory_it_stays_as_it_was(void **state)
{
	struct numbers *numbers = make(UINT64_MAX);
	unsigned i, failed = 0;

	(void)state;
	for (i = 0; i < COUNT; i++) {
		fail_arm(FAIL_MEMORY, 1);
		if (hash_table_insert(&numbers->table, numbers, i)) {
			assert_true(fail_disarm());
			assert_int_equal(numbers->table.count, i);
			assert_int_equal(find(numbers, numbers->keys[i]), -1);
			if (i > 0)
				assert_int_equal(find(numbers,
						      numbers->keys[i - 1]),
						 i - 1);
			failed++;
			assert_int_equal(hash_table_insert(&numbers->table,
							   numbers, i), 0);
		}
		fail_disarm();
	}
	assert_true(failed > 5 && failed < 20);
	for (i = 0; i < COUNT; i++)
		assert_int_equal(find(numbers, numbers->keys[i]), i);
	finish(numbers);
}

static void slots_are_a_power_of_two_half_of_them_free(void **state)
{
	uint64_t count;

	(void)state;
	assert_int_equal(hash_table_slot_count(0), 2);
	assert_int_equal(hash_table_slot_count(1), 2);
	assert_int_equal(hash_table_slot_count(2), 4);
	assert_int_equal(hash_table_slot_count(3), 8);
	assert_int_equal(hash_table_slot_count(UINT64_C(1) << 31),
			 UINT64_C(1) << 32);
	for (count = 1; count < 1000; count++) {
		uint64_t slots = hash_table_slot_count(count);

		assert_int_equal(slots & (slots - 1), 0);
		assert_true(slots >= 2 * count && slots < 4 * count);
	}
}

/* ---- names --------------------------------------------------------------- */

static int add(struct name_table *names, unsigned number, uint32_t *ret_index)
{
	char name[16];
	int size = snprintf(name, sizeof(name), "n%u", number);

	return name_table_add(names, name, (size_t)size, ret_index);
}

static void names_are_numbered_as_they_come(void **state)
{
	struct name_table names;
	uint32_t index;
	size_t size;
	unsigned i;

	(void)state;
	name_table_init(&names, 1000);
	assert_int_equal(name_table_find(&names, "", 0), -1);
	for (i = 0; i < 1000; i++) {
		assert_int_equal(add(&names, i, &index), 1);
		assert_int_equal(index, i);
	}
	for (i = 0; i < 1000; i++) {
		assert_int_equal(add(&names, i, &index), 0);
		assert_int_equal(index, i);
	}
	assert_string_equal(name_table_name(&names, 999, &size), "n999");
	assert_int_equal(size, 4);
	assert_int_equal(add(&names, 1000, &index), -E2BIG);
	assert_int_equal(names.count, 1000);
	name_table_finish(&names);
}

/* A name without memory is none, and leaves nothing behind. */
static void a_name_that_failed_comes_again(void **state)
{
	struct name_table names;
	unsigned i, n, failed = 0;
	uint32_t index;
	size_t size;

	(void)state;
	name_table_init(&names, 1000);
	for (i = 0; i < 300; i++) {
		int added = -ENOMEM;

		for (n = 1; added == -ENOMEM; n++) {
			fail_arm(FAIL_MEMORY, n);
			added = add(&names, i, &index);
			failed += added < 0;
			assert_int_equal(fail_disarm(), added < 0);
		}
		assert_int_equal(added, 1);
		assert_int_equal(index, i);
	}
	assert_true(failed > 10);
	for (i = 0; i < 300; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%u", i);
		assert_string_equal(name_table_name(&names, i, &size), name);
	}
	name_table_finish(&names);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_table_has_nothing),
		cmocka_unit_test(it_grows),
		cmocka_unit_test(equal_hashes_are_told_apart),
		cmocka_unit_test(a_run_goes_on_at_the_first_slot),
		cmocka_unit_test(what_is_reserved_does_not_grow),
		cmocka_unit_test(without_memory_it_stays_as_it_was),
		cmocka_unit_test(slots_are_a_power_of_two_half_of_them_free),
		cmocka_unit_test(names_are_numbered_as_they_come),
		cmocka_unit_test(a_name_that_failed_comes_again),
	};

	return cmocka_run_group_tests_name("hash_table", tests, NULL, NULL);
}
