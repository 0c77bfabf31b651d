/* SPDX-License-Identifier: Apache-2.0 */
/* The digits of XXH3-128 in here were made by python-xxhash. */
#include "support/test.h"
#include "support/dice.h"

#include "shard/base/name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct dice dice;

/* A copy that ends where the name ends, so that reading on is noticed. */
static size_t encode(const char *name, size_t size,
		     char encoded[NAME_ENCODED_MAX])
{
	char *copy = malloc(size + 1);
	size_t result;

	assert_non_null(copy);
	memmove(copy + 1, name, size);
	memset(encoded, 0x7e, NAME_ENCODED_MAX);
	result = name_encode(copy + 1, size, encoded);
	free(copy);
	assert_true(result < NAME_ENCODED_MAX);
	assert_int_equal(strlen(encoded), result);
	return result;
}

static void check(const char *name, size_t size, const char *expected)
{
	char encoded[NAME_ENCODED_MAX];

	encode(name, size, encoded);
	assert_string_equal(encoded, expected);
}
#define CHECK(name, expected) check(name, sizeof(name) - 1, expected)

static void plain_names_stay(void **state)
{
	(void)state;
	CHECK("model.layers.0.attn.wq.weight", "model.layers.0.attn.wq.weight");
	CHECK("a b~!@#$^&*()]{}<>|\\'\"`?:;,=+-_",
	      "a b~!@#$^&*()]{}<>|\\'\"`?:;,=+-_");
	CHECK("...", "...");
	CHECK(".hidden", ".hidden");
	CHECK("a.", "a.");
	CHECK("\xc3\xa9", "\xc3\xa9");
	CHECK("\xf0\x9f\x8d\x89", "\xf0\x9f\x8d\x89");
	CHECK("\xef\xbb\xbf\xe2\x80\xa8", "\xef\xbb\xbf\xe2\x80\xa8");
}

static void special_characters_are_escaped(void **state)
{
	(void)state;
	CHECK("", "%");
	CHECK("%", "%25");
	CHECK("%~", "%25~");
	CHECK("/", "%2F");
	CHECK("a/b", "a%2Fb");
	CHECK("w[0:1]", "w%5B0:1]");
	CHECK(".", "%2E");
	CHECK("..", "%2E%2E");
	CHECK("\0\1\n\x1f\x7f", "%00%01%0A%1F%7F");
	CHECK("./", ".%2F");
}

static void invalid_utf8_is_escaped(void **state)
{
	(void)state;
	CHECK("\x80", "%80");
	CHECK("\xff", "%FF");
	CHECK("\xc3", "%C3");			/* cut short */
	CHECK("\xe2\x82", "%E2%82");
	CHECK("\xf0\x9f\x8d", "%F0%9F%8D");
	CHECK("\xc3(", "%C3(");
	CHECK("\xe2\x82(", "%E2%82(");
	CHECK("\xc0\xaf", "%C0%AF");		/* overlong / */
	CHECK("\xc1\xbf", "%C1%BF");
	CHECK("\xe0\x80\xaf", "%E0%80%AF");
	CHECK("\xe0\x9f\xbf", "%E0%9F%BF");
	CHECK("\xf0\x80\x80\xaf", "%F0%80%80%AF");
	CHECK("\xf0\x8f\xbf\xbf", "%F0%8F%BF%BF");
	CHECK("\xed\xa0\x80", "%ED%A0%80");	/* surrogates */
	CHECK("\xed\xbf\xbf", "%ED%BF%BF");
	CHECK("\xf4\x90\x80\x80", "%F4%90%80%80"); /* beyond U+10FFFF */
	CHECK("\xf5\x80\x80\x80", "%F5%80%80%80");
	CHECK("a\xc3\xa9\xff\xc3\xa9", "a\xc3\xa9%FF\xc3\xa9");
}

static void utf8_borders_are_valid(void **state)
{
	(void)state;
	assert_int_equal(name_utf8_size("\xc2\x80", 2), 2);
	assert_int_equal(name_utf8_size("\xdf\xbf", 2), 2);
	assert_int_equal(name_utf8_size("\xe0\xa0\x80", 3), 3);
	assert_int_equal(name_utf8_size("\xed\x9f\xbf", 3), 3);
	assert_int_equal(name_utf8_size("\xee\x80\x80", 3), 3);
	assert_int_equal(name_utf8_size("\xef\xbf\xbf", 3), 3);
	assert_int_equal(name_utf8_size("\xf0\x90\x80\x80", 4), 4);
	assert_int_equal(name_utf8_size("\xf4\x8f\xbf\xbf", 4), 4);
	assert_int_equal(name_utf8_size("\0", 1), 1);
	assert_int_equal(name_utf8_size("", 0), 0);
	assert_int_equal(name_utf8_size("\xc3\xa9", 1), 0);
}

/* @count times @unit, then @tail. */
static void check_long(unsigned count, const char *unit, const char *tail,
		       const char *expected_tail)
{
	static char name[1 << 17], expected[1 << 17];
	char encoded[NAME_ENCODED_MAX];
	size_t size = 0, kept;
	unsigned i;

	for (i = 0; i < count; i++)
		size += (size_t)sprintf(name + size, "%s", unit);
	size += (size_t)sprintf(name + size, "%s", tail);
	encode(name, size, encoded);
	kept = strlen(encoded) - strlen(expected_tail);
	memcpy(expected, name, kept);
	assert_string_equal(encoded + kept, expected_tail);
	if (unit[0] != '\xff')
		assert_memory_equal(encoded, expected, kept);
	assert_true(kept <= LIMIT_ENCODED_SIZE);
}

static void long_names_are_cut_and_hashed(void **state)
{
	(void)state;
	check_long(180, "a", "", "aaaa");
	check_long(181, "a", "", "aaaa%~90fb9e9ed1e34829d4aa11618d0b1550");
	check_long(180, "a", "b", "aaaa%~2845ca29d1154cd705ca484b7a7eef4b");
	check_long(65536, "b", "", "bbbb%~f424e55927bc082448a32ee4d00635ce");
}

static void cut_stands_before_a_character(void **state)
{
	(void)state;
	check_long(178, "a", "\xc3\xa9\xe2\x82\xac",
		   "a\xc3\xa9%~145bba4d70cf1e6114addc9ec3f9a1bf");
	check_long(179, "a", "\xc3\xa9",
		   "aa%~52821cf22ca09bc87675d93170dd54f2");
	check_long(60, "\xe2\x82\xac", "", "\xe2\x82\xac");
	check_long(61, "\xe2\x82\xac", "",
		   "\xe2\x82\xac%~63b7c48c77012d167fc6957ac79caab4");
}

static void cut_stands_before_an_escape(void **state)
{
	(void)state;
	check_long(177, "a", "/", "aa%2F");
	check_long(178, "a", "/b", "aa%~dcec1aaee28390ca5d16b3c43b7e1f7c");
	check_long(179, "a", "/", "aa%~5d34a7d1909330bb06232e9c35fe16ae");
	check_long(60, "\xff", "", "%FF%FF");
	check_long(61, "\xff", "",
		   "%FF%FF%~612560ce65fcee94b339730145e8798f");
}

static size_t decode(const char *encoded, char *name)
{
	size_t size = 0;

	if (strcmp(encoded, "%") == 0)
		return 0;
	while (*encoded) {
		unsigned byte = (unsigned char)*encoded;

		if (*encoded == '%') {
			assert_int_equal(sscanf(encoded + 1, "%2X", &byte), 1);
			encoded += 2;
		}
		encoded++;
		name[size++] = (char)byte;
	}
	return size;
}

static void encoding_can_be_undone(void **state)
{
	static const char bytes[] = "a.%/[~\n\xc3\xa9\xe2\x82\xac\xed\xa0\xff";
	unsigned i;

	(void)state;
	for (i = 0; i < 20000; i++) {
		char name[64], back[64], encoded[NAME_ENCODED_MAX];
		size_t size = dice_below(&dice, 50), j;

		for (j = 0; j < size; j++)
			name[j] = dice_chance(&dice, 80) ?
				bytes[dice_below(&dice, sizeof(bytes))] :
				(char)dice_any(&dice);
		encode(name, size, encoded);
		assert_null(strpbrk(encoded, "/[\n\x7f"));
		assert_true(*encoded && strcmp(encoded, ".") &&
			    strcmp(encoded, ".."));
		assert_int_equal(decode(encoded, back), size);
		assert_memory_equal(back, name, size);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_names_stay),
		cmocka_unit_test(special_characters_are_escaped),
		cmocka_unit_test(invalid_utf8_is_escaped),
		cmocka_unit_test(utf8_borders_are_valid),
		cmocka_unit_test(long_names_are_cut_and_hashed),
		cmocka_unit_test(cut_stands_before_a_character),
		cmocka_unit_test(cut_stands_before_an_escape),
		cmocka_unit_test(encoding_can_be_undone),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("name", tests, NULL, NULL);
}
