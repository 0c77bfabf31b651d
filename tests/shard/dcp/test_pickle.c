/* SPDX-License-Identifier: Apache-2.0 */
/* What each opcode makes. The pickles are spelled as in CPython's
 * Lib/pickletools.py. */
#include "support/test.h"
#include "support/pickled.h"
#include "support/put.h"

#include <math.h>
#include <string.h>

static void constants(void **state)
{
	bool value = false;

	(void)state;
	check_kind(PARSE("N."), PICKLE_NONE);
	check_kind(pickle_none(), PICKLE_NONE);
	assert_false(pickle_bool(pickle.root, &value));
	check_kind(PARSE("\x88."), PICKLE_BOOL);
	assert_true(pickle_bool(pickle.root, &value) && value);
	check_kind(PARSE("\x89."), PICKLE_BOOL);
	assert_true(pickle_bool(pickle.root, &value) && !value);
	check_tuple(PARSE(")."), 0);
	check_tuple(PARSE("(t."), 0);
}

static void protocols_and_frames(void **state)
{
	(void)state;
	check_int(PARSE("\x80\x02K\x07."), 7);
	check_int(PARSE("\x80\x03K\x07."), 7);
	check_int(PARSE("\x80\x04\x95\x03\0\0\0\0\0\0\0K\x07."), 7);
	check_int(PARSE("\x80\x05K\x07."), 7);
	/* A frame's length is advice. */
	check_int(PARSE("\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffK\x07."),
		  7);
}

static void bytes_behind_stop_are_ignored(void **state)
{
	(void)state;
	check_int(PARSE("K\x07.\xff\xff\xff"), 7);
}

static void numbers(void **state)
{
	(void)state;
	check_int(PARSE("K\xff."), 255);
	check_int(PARSE("M\xff\xff."), 65535);
	check_int(PARSE("J\xff\xff\xff\x7f."), INT32_MAX);
	check_int(PARSE("J\xff\xff\xff\xff."), -1);
	check_int(PARSE("J\0\0\0\x80."), INT32_MIN);
	check_int(PARSE("\x8a\0."), 0);
	check_int(PARSE("\x8a\1\xff."), -1);
	check_int(PARSE("\x8a\1\x80."), -128);
	check_int(PARSE("\x8a\2\xff\0."), 255);
	check_int(PARSE("\x8a\5\0\0\0\0\1."), INT64_C(1) << 32);
	check_int(PARSE("\x8a\5\0\0\0\0\xff."), -(INT64_C(1) << 32));
	check_int(PARSE("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f."),
		  INT64_MAX);
	check_int(PARSE("\x8a\x08\0\0\0\0\0\0\0\x80."), INT64_MIN);
	/* The borders of what a handle holds itself. */
	check_int(PARSE("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x0f."),
		  (INT64_C(1) << 60) - 1);
	check_int(PARSE("\x8a\x08\0\0\0\0\0\0\0\x10."), INT64_C(1) << 60);
	check_int(PARSE("\x8a\x08\0\0\0\0\0\0\0\xf0."), -(INT64_C(1) << 60));
	check_int(PARSE("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\xef."),
		  -(INT64_C(1) << 60) - 1);
}

static void number_beyond_64_bits_is_kept_but_not_read(void **state)
{
	int64_t number = 77;

	(void)state;
	check_kind(PARSE("\x8a\x09\0\0\0\0\0\0\0\0\1."), PICKLE_INT);
	assert_false(pickle_int(&pickle, pickle.root, &number));
	assert_int_equal(number, 77);
}

static void floats(void **state)
{
	double number;

	(void)state;
	check_kind(PARSE("G\x3f\xb9\x99\x99\x99\x99\x99\x9a."), PICKLE_FLOAT);
	assert_true(pickle_float(&pickle, pickle.root, &number));
	assert_true(number == 0.1);
	PARSE("G\xff\xf0\0\0\0\0\0\0.");
	assert_true(pickle_float(&pickle, pickle.root, &number));
	assert_true(isinf(number) && number < 0);
	assert_false(pickle_float(&pickle, pickle_none(), &number));
}

static void strings(void **state)
{
	static char big[300];
	struct array long_text = { .data = NULL };
	const char *text;
	uint64_t size;

	(void)state;
	check_text(PARSE("\x8c\3abc."), "abc");
	check_text(PARSE("\x8c\0."), "");
	check_text(PARSE("X\3\0\0\0abc."), "abc");
	check_text(PARSE("\x8d\3\0\0\0\0\0\0\0abc."), "abc");
	PARSE("\x8c\3a\0\xff.");
	assert_true(pickle_string(&pickle, pickle.root, &text, &size));
	assert_int_equal(size, 3);
	assert_memory_equal(text, "a\0\xff", 3);
	memset(big, 'n', sizeof(big) - 1);
	put_text(&long_text, big);
	PUT(&long_text, ".");
	check_text(pickled_parse(long_text.data, long_text.size), big);
	array_finish(&long_text);
}

static void bytes_are_no_strings(void **state)
{
	const char *text;
	uint64_t size;

	(void)state;
	check_kind(PARSE("C\3abc."), PICKLE_BYTES);
	assert_false(pickle_string(&pickle, pickle.root, &text, &size));
	check_kind(PARSE("B\3\0\0\0abc."), PICKLE_BYTES);
	check_kind(PARSE("\x8e\3\0\0\0\0\0\0\0abc."), PICKLE_BYTES);
}

static void symbols(void **state)
{
	(void)state;
	check_symbol(PARSE("ctorch\nSize\n."), "torch", "Size");
	check_symbol(PARSE("c\n\n."), "", "");
	check_symbol(PARSE("\x8c\5torch\x8c\7float32\x93."), "torch",
		     "float32");
	assert_false(pickle_symbol_is(&pickle, pickle_none(), "None"));
}

/* Python reads GLOBAL up to the line end, whatever stands before it. */
static void symbol_with_a_nul_byte(void **state)
{
	struct pickle_symbol symbol;

	(void)state;
	check_kind(PARSE("cto\0rch\nSi\0ze\n."), PICKLE_SYMBOL);
	assert_true(pickle_symbol(&pickle, pickle.root, &symbol));
	assert_int_equal(symbol.module_size, 6);
	assert_memory_equal(symbol.module, "to\0rch", 6);
	assert_int_equal(symbol.name_size, 5);
	assert_memory_equal(symbol.name, "Si\0ze", 5);
	assert_false(pickle_symbol_is(&pickle, pickle.root, "Si"));
}

static void tuples(void **state)
{
	const struct pickle_value *items;

	(void)state;
	items = check_tuple(PARSE("K\1\x85."), 1);
	check_int(items[0], 1);
	items = check_tuple(PARSE("K\1K\2\x86."), 2);
	check_int(items[0], 1);
	check_int(items[1], 2);
	items = check_tuple(PARSE("K\1K\2K\3\x87."), 3);
	check_int(items[2], 3);
	items = check_tuple(PARSE("K\x09(K\1K\2K\3K\4t\x86."), 2);
	check_int(items[0], 9);
	items = check_tuple(items[1], 4);
	check_int(items[0], 1);
	check_int(items[3], 4);
}

static void lists_and_sets(void **state)
{
	(void)state;
	check_kind(PARSE("]."), PICKLE_LIST);
	CHECK_ITEMS(PARSE("]K\1aK\2a."), 1, 2);
	CHECK_ITEMS(PARSE("](K\1K\2e(K\3K\4eK\5a(e."), 1, 2, 3, 4, 5);
	check_kind(PARSE("\x8f(K\1K\2\x90."), PICKLE_SET);
	CHECK_ITEMS(pickle.root, 1, 2);
	check_kind(PARSE("(K\1K\2\x91."), PICKLE_SET);
	CHECK_ITEMS(pickle.root, 1, 2);
	check_kind(PARSE("(\x91."), PICKLE_SET);
	check_kind(PARSE("K\5(K\1\x91\x86."), PICKLE_TUPLE);
}

static void dicts(void **state)
{
	struct pickle_value value;
	struct pickle_items items;
	struct pickle_value key;

	(void)state;
	check_kind(PARSE("}."), PICKLE_DICT);
	assert_false(pickle_get(&pickle, pickle.root, "a", &value));
	PARSE("}\x8c\1aK\1s(\x8c\1bK\2\x8c\1cK\3u(u.");
	assert_true(pickle_get(&pickle, pickle.root, "a", &value));
	check_int(value, 1);
	assert_true(pickle_get(&pickle, pickle.root, "c", &value));
	check_int(value, 3);
	assert_false(pickle_get(&pickle, pickle.root, "d", &value));
	assert_false(pickle_get(&pickle, pickle.root, "", &value));
	items = pickle_items(&pickle, pickle.root);
	assert_true(pickle_items_next(&items, &key, &value));
	check_text(key, "a");
	/* As in Python the last one counts. */
	PARSE("}(\x8c\1aK\1\x8c\1aK\2u\x8c\1aK\3s.");
	assert_true(pickle_get(&pickle, pickle.root, "a", &value));
	check_int(value, 3);
	/* Keys of other kinds are no string keys. */
	PARSE("}(K\1K\2C\1aK\3NK\4u.");
	assert_false(pickle_get(&pickle, pickle.root, "a", &value));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, pickled_forget)
	const struct CMUnitTest tests[] = {
		TEST(constants),
		TEST(protocols_and_frames),
		TEST(bytes_behind_stop_are_ignored),
		TEST(numbers),
		TEST(number_beyond_64_bits_is_kept_but_not_read),
		TEST(floats),
		TEST(strings),
		TEST(bytes_are_no_strings),
		TEST(symbols),
		TEST(symbol_with_a_nul_byte),
		TEST(tuples),
		TEST(lists_and_sets),
		TEST(dicts),
	};

	return cmocka_run_group_tests_name("pickle", tests, NULL, NULL);
}
