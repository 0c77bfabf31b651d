/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of stored files, as ranks tell them, good and hostile. */
#include "support/test.h"
#include "support/dice.h"

#include "shard/store/folder_entry.h"

#include <stdlib.h>
#include <string.h>

static void make_entry(struct array *out, const char *name, size_t name_size,
		       const char *target, size_t target_size)
{
	struct stored_entry entry = {
		.pin = { .mode = target_size > 0 ? S_IFLNK | 0777 :
						   S_IFREG | 0644 },
		.name_size = (uint16_t)name_size,
		.target_size = (uint16_t)target_size,
	};

	assert_int_equal(array_append(out, &entry, sizeof(entry)), 0);
	assert_int_equal(array_append(out, name, name_size), 0);
	assert_int_equal(array_append(out, target, target_size), 0);
}

/* Exactly as large as it is, so that a sanitizer sees a read behind it. */
static unsigned count_entries(const void *data, size_t size, bool *ret_whole)
{
	unsigned char *copy = malloc(size + (size == 0));
	struct stored stored;
	size_t position = 0;
	unsigned count = 0;

	assert_non_null(copy);
	if (size > 0)
		memcpy(copy, data, size);
	while (stored_entry_next(copy, size, &position, &stored)) {
		assert_in_range(stored.entry.name_size, 1, 255);
		assert_true((const char *)stored.name >= (char *)copy);
		assert_true(stored.target + stored.entry.target_size ==
			    (char *)copy + position);
		count++;
	}
	*ret_whole = position == size;
	free(copy);
	return count;
}

static bool is_good(const char *name, size_t name_size, const char *target,
		    size_t target_size)
{
	struct array list = { .data = NULL };
	unsigned count;
	bool whole;

	make_entry(&list, "before", 6, "", 0);
	make_entry(&list, name, name_size, target, target_size);
	count = count_entries(list.data, list.size, &whole);
	array_finish(&list);
	assert_int_equal(count, whole ? 2 : 1);
	return whole;
}

static void there_and_back(void **state)
{
	const struct stat status = {
		.st_dev = 1, .st_ino = 2, .st_mode = S_IFLNK | 0777,
		.st_uid = 3, .st_gid = 4, .st_nlink = 5, .st_size = 513,
		.st_mtim = { 6, 7 }, .st_ctim = { 8, 9 },
	};
	struct array list = { .data = NULL };
	struct stored stored;
	size_t position = 0;
	struct stat back;
	struct pin pin;

	(void)state;
	assert_int_equal(stored_entry_append(&list, "x", &status, NULL, 0), 0);
	assert_int_equal(stored_entry_append(&list, "name", &status, "to/it",
					     5), 0);
	assert_true(stored_entry_next(list.data, list.size, &position,
				      &stored));
	assert_int_equal(stored.entry.target_size, 0);
	assert_true(stored_entry_next(list.data, list.size, &position,
				      &stored));
	assert_false(stored_entry_next(list.data, list.size, &position,
				       &stored));
	assert_int_equal(position, list.size);
	assert_memory_equal(stored.name, "name", 4);
	assert_memory_equal(stored.target, "to/it", 5);
	pin = pin_from_stat(&status);
	assert_true(pin_equal(&stored.entry.pin, &pin));
	pin_status(&stored.entry.pin, &back);
	assert_int_equal(back.st_dev, 1);
	assert_int_equal(back.st_ino, 2);
	assert_int_equal(back.st_mode, S_IFLNK | 0777);
	assert_int_equal(back.st_uid, 3);
	assert_int_equal(back.st_gid, 4);
	assert_int_equal(back.st_nlink, 5);
	assert_int_equal(back.st_size, 513);
	assert_int_equal(back.st_blocks, 2);
	assert_int_equal(back.st_mtim.tv_sec, 6);
	assert_int_equal(back.st_mtim.tv_nsec, 7);
	assert_int_equal(back.st_ctim.tv_sec, 8);
	assert_int_equal(back.st_ctim.tv_nsec, 9);
	array_finish(&list);
}

static void names(void **state)
{
	char longest[256];

	(void)state;
	memset(longest, 'n', sizeof(longest));
	assert_true(is_good("a", 1, "", 0));
	assert_true(is_good("...", 3, "", 0));
	assert_true(is_good(".a", 2, "", 0));
	assert_true(is_good("\xff\n", 2, "", 0));
	assert_true(is_good(longest, 255, "", 0));
	assert_false(is_good(longest, 256, "", 0));
	assert_false(is_good("", 0, "", 0));
	assert_false(is_good(".", 1, "", 0));
	assert_false(is_good("..", 2, "", 0));
	assert_false(is_good("/", 1, "", 0));
	assert_false(is_good("a/b", 3, "", 0));
	assert_false(is_good("../a", 4, "", 0));
	assert_false(is_good("a\0", 2, "", 0));
	assert_false(is_good("\0a", 2, "", 0));
}

static void targets(void **state)
{
	static char longest[4096];

	(void)state;
	memset(longest, 't', sizeof(longest));
	assert_true(is_good("a", 1, "/b/../c", 7));
	assert_true(is_good("a", 1, longest, 4095));
	assert_false(is_good("a", 1, longest, 4096));
	assert_false(is_good("a", 1, "b\0c", 3));
}

/* What is no link has none. */
static void targets_of_files(void **state)
{
	const struct stat link = { .st_mode = S_IFLNK | 0777 };
	const struct stat file = { .st_mode = S_IFREG | 0644 };
	struct array list = { .data = NULL };
	bool whole;

	(void)state;
	assert_int_equal(stored_entry_append(&list, "a", &link, "b", 1), 0);
	assert_int_equal(count_entries(list.data, list.size, &whole), 1);
	assert_true(whole);
	list.size = 0;
	assert_int_equal(stored_entry_append(&list, "a", &file, "b", 1), 0);
	assert_int_equal(count_entries(list.data, list.size, &whole), 0);
	assert_false(whole);
	array_finish(&list);
}

static void cut_anywhere(void **state)
{
	struct array list = { .data = NULL };
	size_t first, size;
	bool whole;

	(void)state;
	make_entry(&list, "one", 3, "target", 6);
	first = list.size;
	make_entry(&list, "two", 3, "", 0);
	for (size = 0; size <= list.size; size++) {
		assert_int_equal(count_entries(list.data, size, &whole),
				 (size >= first) + (size == list.size));
		assert_int_equal(whole, size == 0 || size == first ||
					size == list.size);
	}
	array_finish(&list);
}

/* Sizes that lie, and any other bytes. */
static void noise(void **state)
{
	struct array list = { .data = NULL };
	struct dice dice = { 3 };
	unsigned i, j;
	bool whole;

	(void)state;
	for (i = 0; i < 2000; i++) {
		list.size = 0;
		make_entry(&list, "one", 3, "target", 6);
		make_entry(&list, "two", 3, "", 0);
		for (j = 0; j < 1 + i % 4; j++)
			list.data[dice_below(&dice, list.size)] =
				(char)dice_any(&dice);
		count_entries(list.data, list.size, &whole);
	}
	array_finish(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(names),
		cmocka_unit_test(targets),
		cmocka_unit_test(targets_of_files),
		cmocka_unit_test(cut_anywhere),
		cmocka_unit_test(noise),
	};

	return cmocka_run_group_tests_name("stored_entry", tests, NULL, NULL);
}
