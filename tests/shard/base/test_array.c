/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "shard/base/array.h"

#include <errno.h>
#include <string.h>

static void appended_bytes_stay_in_order(void **state)
{
	struct array array = { .data = NULL };
	unsigned i;

	(void)state;
	for (i = 0; i < 100000; i++)
		assert_int_equal(array_append(&array, &i, sizeof(i)), 0);
	assert_int_equal(array.size, 100000 * sizeof(i));
	assert_true(array.capacity >= array.size);
	for (i = 0; i < 100000; i++)
		assert_memory_equal(array.data + i * sizeof(i), &i, sizeof(i));
	array_finish(&array);
	assert_null(array.data);
	assert_int_equal(array.size, 0);
}

static void nothing_appended_changes_nothing(void **state)
{
	struct array array = { .data = NULL };

	(void)state;
	assert_int_equal(array_append(&array, NULL, 0), 0);
	assert_null(array.data);
	array_finish(&array);
}

static void room_is_given_at_the_end(void **state)
{
	struct array array = { .data = NULL };
	char *room;

	(void)state;
	assert_int_equal(array_append(&array, "abc", 3), 0);
	room = array_add(&array, 4000);
	assert_ptr_equal(room, array.data + 3);
	memset(room, 'x', 4000);
	assert_memory_equal(array.data, "abcx", 4);
	array_finish(&array);
}

static void impossible_size_leaves_the_array_alone(void **state)
{
	struct array array = { .data = NULL };
	size_t capacity;

	(void)state;
	assert_int_equal(array_append(&array, "abc", 3), 0);
	capacity = array.capacity;
	assert_null(array_add(&array, SIZE_MAX - 1));
	assert_int_equal(array_append(&array, "x", SIZE_MAX), -ENOMEM);
	assert_int_equal(array.size, 3);
	assert_int_equal(array.capacity, capacity);
	assert_memory_equal(array.data, "abc", 3);
	array_finish(&array);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(appended_bytes_stay_in_order),
		cmocka_unit_test(nothing_appended_changes_nothing),
		cmocka_unit_test(room_is_given_at_the_end),
		cmocka_unit_test(impossible_size_leaves_the_array_alone),
	};

	return cmocka_run_group_tests_name("array", tests, NULL, NULL);
}
