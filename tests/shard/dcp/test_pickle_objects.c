/* SPDX-License-Identifier: Apache-2.0 */
/* Calls and objects in pickles, the memo, and where values come from. */
#include "support/test.h"
#include "support/pickled.h"
#include "support/put.h"

static void calls_are_only_described(void **state)
{
	struct pickle_value value;

	(void)state;
	check_kind(PARSE("cos\nsystem\n\x8c\2rm\x85R."), PICKLE_CALL);
	check_symbol(pickle_callable(&pickle, pickle.root), "os", "system");
	check_text(check_tuple(pickle_args(&pickle, pickle.root), 1)[0], "rm");
	check_kind(pickle_state(&pickle, pickle.root), PICKLE_NONE);
	check_kind(PARSE("ca\nB\n)\x81}\x8c\1xK\1sb."), PICKLE_OBJECT);
	check_symbol(pickle_callable(&pickle, pickle.root), "a", "B");
	assert_true(pickle_get(&pickle, pickle_state(&pickle, pickle.root),
			       "x", &value));
	check_int(value, 1);
	/* What is called may be anything; it is not. */
	check_kind(PARSE("K\1)R."), PICKLE_CALL);
	check_int(pickle_callable(&pickle, pickle.root), 1);
	check_kind(pickle_callable(&pickle, pickle_none()), PICKLE_NONE);
	check_kind(pickle_args(&pickle, pickle_none()), PICKLE_NONE);
}

static void calls_hold_items(void **state)
{
	struct pickle_value value;

	(void)state;
	PARSE("ccollections\nOrderedDict\n)R\x8c\1aK\1s(\x8c\1bK\2u.");
	check_kind(pickle.root, PICKLE_CALL);
	assert_true(pickle_get(&pickle, pickle.root, "b", &value));
	check_int(value, 2);
}

static void persistent_ids(void **state)
{
	(void)state;
	check_kind(PARSE("\x8c\7storageK\1\x86Q."), PICKLE_PERSID);
	check_text(check_tuple(pickle_args(&pickle, pickle.root), 2)[0],
		   "storage");
	check_kind(pickle_callable(&pickle, pickle.root), PICKLE_NONE);
}

static void memo(void **state)
{
	const struct pickle_value *items;

	(void)state;
	items = check_tuple(PARSE("\x8c\1a\x94\x8c\1b\x94h\1h\0\x86\x87."), 3);
	check_text(items[0], "a");
	check_text(items[1], "b");
	items = check_tuple(items[2], 2);
	check_text(items[0], "b");
	check_text(items[1], "a");
	items = check_tuple(PARSE("K\1q\0K\2r\1\0\0\0h\0j\1\0\0\0\x86\x87."),
			    3);
	items = check_tuple(items[2], 2);
	check_int(items[0], 1);
	check_int(items[1], 2);
	/* An index is used again. */
	items = check_tuple(PARSE("K\1q\0K\2q\0h\0\x87."), 3);
	check_int(items[2], 2);
}

static void shared_and_self_referential_values(void **state)
{
	struct pickle_items items;
	struct pickle_value key, item;

	(void)state;
	PARSE("]\x94h\0a.");
	items = pickle_items(&pickle, pickle.root);
	assert_true(pickle_items_next(&items, &key, &item));
	assert_true(item.bits == pickle.root.bits);
	assert_false(pickle_items_next(&items, &key, &item));
	PARSE("}\x94\x8c\1ah\0s.");
	assert_true(pickle_get(&pickle, pickle.root, "a", &item));
	assert_true(item.bits == pickle.root.bits);
	PARSE("ca\nB\n)\x81\x94h\0b.");
	assert_true(pickle_state(&pickle, pickle.root).bits ==
		    pickle.root.bits);
}

static void pop_and_dup(void **state)
{
	const struct pickle_value *items;

	(void)state;
	check_int(PARSE("K\1K\2""0."), 1);
	items = check_tuple(PARSE("K\1""2\x86."), 2);
	check_int(items[0], 1);
	check_int(items[1], 1);
}

static void offsets_lead_to_the_opcode(void **state)
{
	const struct pickle_value *items;

	(void)state;
	items = check_tuple(PARSE("\x80\2(\x8c\1aG\0\0\0\0\0\0\0\0ca\nb\n]Nt."),
			    5);
	assert_int_equal(pickle_offset(&pickle, items[0]), 3);
	assert_int_equal(pickle_offset(&pickle, items[1]), 6);
	assert_int_equal(pickle_offset(&pickle, items[2]), 15);
	assert_int_equal(pickle_offset(&pickle, items[3]), 20);
	assert_int_equal(pickle_offset(&pickle, items[4]), 0);
	assert_int_equal(pickle_offset(&pickle, pickle.root), 22);
}

/* Beyond 256 KiB of memory it comes from mmap. */
static void large_pickles(void **state)
{
	struct array out = { .data = NULL };
	struct pickle_items items;
	struct pickle_value key, value;
	int64_t i;

	(void)state;
	PUT(&out, "]");
	for (i = 0; i < 100000; i++) {
		if (i % 1000 == 0)
			PUT(&out, "(");
		put_number(&out, i * 1000003);
		if (i % 1000 == 999)
			PUT(&out, "e");
	}
	PUT(&out, ".");
	pickled_parse(out.data, out.size);
	array_finish(&out);
	items = pickle_items(&pickle, pickle.root);
	for (i = 0; i < 100000; i++) {
		assert_true(pickle_items_next(&items, &key, &value));
		check_int(value, i * 1000003);
	}
	assert_false(pickle_items_next(&items, &key, &value));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, pickled_forget)
	const struct CMUnitTest tests[] = {
		TEST(calls_are_only_described),
		TEST(calls_hold_items),
		TEST(persistent_ids),
		TEST(memo),
		TEST(shared_and_self_referential_values),
		TEST(pop_and_dup),
		TEST(offsets_lead_to_the_opcode),
		TEST(large_pickles),
	};

	return cmocka_run_group_tests_name("pickle_objects", tests, NULL, NULL);
}
