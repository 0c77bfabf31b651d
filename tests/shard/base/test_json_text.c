/* SPDX-License-Identifier: Apache-2.0 */
/* Strings as JSON, read back by json-c and held against a table of UTF-8. */
#include "support/test.h"
#include "support/dice.h"

#include "shard/base/json_text.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

static struct dice dice;

/* The Unicode Standard, table 3-7: well-formed byte sequences. */
static const struct {
	unsigned size;
	unsigned char low[4], high[4];
} sequences[] = {
	{ 1, { 0x00 }, { 0x7f } },
	{ 2, { 0xc2, 0x80 }, { 0xdf, 0xbf } },
	{ 3, { 0xe0, 0xa0, 0x80 }, { 0xe0, 0xbf, 0xbf } },
	{ 3, { 0xe1, 0x80, 0x80 }, { 0xec, 0xbf, 0xbf } },
	{ 3, { 0xed, 0x80, 0x80 }, { 0xed, 0x9f, 0xbf } },
	{ 3, { 0xee, 0x80, 0x80 }, { 0xef, 0xbf, 0xbf } },
	{ 4, { 0xf0, 0x90, 0x80, 0x80 }, { 0xf0, 0xbf, 0xbf, 0xbf } },
	{ 4, { 0xf1, 0x80, 0x80, 0x80 }, { 0xf3, 0xbf, 0xbf, 0xbf } },
	{ 4, { 0xf4, 0x80, 0x80, 0x80 }, { 0xf4, 0x8f, 0xbf, 0xbf } },
};

/* Bytes of the character at @p; 0: none. */
static unsigned character(const unsigned char *p, size_t size)
{
	unsigned i, j;

	for (i = 0; i < COUNT_OF(sequences); i++) {
		for (j = 0; j < sequences[i].size && j < size; j++)
			if (p[j] < sequences[i].low[j] ||
			    p[j] > sequences[i].high[j])
				break;
		if (j == sequences[i].size)
			return j;
	}
	return 0;
}

/* What a reader of the JSON must see; the number of bytes replaced. */
static unsigned replace(const unsigned char *text, size_t size,
			struct array *out)
{
	unsigned replaced = 0, length;
	size_t i;

	for (i = 0; i < size; i += length) {
		length = character(text + i, size - i);
		if (length == 0) {
			assert_int_equal(array_append(out, "\xef\xbf\xbd", 3),
					 0);
			replaced++;
			length = 1;
		} else {
			assert_int_equal(array_append(out, text + i, length),
					 0);
		}
	}
	return replaced;
}

static void check_text(const unsigned char *text, size_t size)
{
	struct array expected = { .data = NULL }, out = { .data = NULL };
	unsigned replaced = replace(text, size, &expected);
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *found;
	size_t i;

	assert_non_null(tokener);
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT |
					JSON_TOKENER_VALIDATE_UTF8);
	assert_int_equal(json_text_is_exact((const char *)text, size),
			 replaced == 0);
	/* It appends. */
	assert_int_equal(array_append(&out, "before", 6), 0);
	assert_int_equal(json_text_string(&out, (const char *)text, size), 0);
	assert_memory_equal(out.data, "before", 6);
	for (i = 6; i < out.size; i++)
		assert_true((unsigned char)out.data[i] >= ' ');
	assert_int_equal(array_append(&out, "", 1), 0);
	found = json_tokener_parse_ex(tokener, out.data + 6,
				      (int)(out.size - 6));
	assert_int_equal(json_tokener_get_error(tokener),
			 json_tokener_success);
	assert_int_equal(json_object_get_string_len(found), expected.size);
	if (expected.size)
		assert_memory_equal(json_object_get_string(found),
				    expected.data, expected.size);
	json_object_put(found);
	json_tokener_free(tokener);
	array_finish(&expected);
	array_finish(&out);
}

static void random_bytes(void **state)
{
	unsigned char text[24];
	unsigned i, j, size;

	(void)state;
	for (i = 0; i < 20000; i++) {
		size = (unsigned)dice_below(&dice, sizeof(text) + 1);
		for (j = 0; j < size; j++)
			text[j] = (unsigned char)dice_any(&dice);
		check_text(text, size);
	}
}

/* Characters at the ends of their ranges, some with a byte changed. */
static void almost_characters(void **state)
{
	unsigned char text[24];
	unsigned i, j, k, size;

	(void)state;
	for (i = 0; i < 20000; i++) {
		size = 0;
		for (j = 0; j < 4; j++) {
			unsigned row = (unsigned)dice_below(&dice,
				COUNT_OF(sequences));

			for (k = 0; k < sequences[row].size; k++)
				text[size++] = dice_chance(&dice, 50) ?
					sequences[row].low[k] :
					sequences[row].high[k];
		}
		if (dice_chance(&dice, 70)) {
			j = (unsigned)dice_below(&dice, size);
			text[j] = (unsigned char)
				(text[j] + dice_below(&dice, 3) - 1);
		}
		check_text(text, size - (unsigned)dice_below(&dice, 4));
	}
}

static void every_single_byte(void **state)
{
	unsigned char text[1] = { 0 };
	unsigned i;

	(void)state;
	check_text(text, 0);
	for (i = 0; i < 256; i++) {
		text[0] = (unsigned char)i;
		check_text(text, 1);
	}
}

/* Slashes stay as they are: names are full of dots and slashes. */
static void what_is_plain_stays_plain(void **state)
{
	static const char name[] = "model/layers.0.self-attn_q[0:1] \xc3\xa9";
	struct array out = { .data = NULL };

	(void)state;
	assert_int_equal(json_text_string(&out, name, strlen(name)), 0);
	assert_int_equal(out.size, strlen(name) + 2);
	assert_memory_equal(out.data + 1, name, strlen(name));
	array_finish(&out);
}

static void objects_are_given_away(void **state)
{
	struct array out = { .data = NULL };
	struct json_object *object = json_object_new_object();

	(void)state;
	assert_non_null(object);
	json_object_object_add(object, "a", json_object_new_int(3));
	assert_int_equal(json_text_append(&out, object, false), 0);
	assert_int_equal(out.size, 7);
	assert_memory_equal(out.data, "{\"a\":3}", 7);
	assert_int_equal(json_text_append(&out, NULL, false), -ENOMEM);
	/* Half made: not a byte of it, and no leak. */
	assert_int_equal(json_text_append(&out, json_object_new_object(),
					  true), -ENOMEM);
	assert_int_equal(out.size, 7);
	array_finish(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_bytes),
		cmocka_unit_test(almost_characters),
		cmocka_unit_test(every_single_byte),
		cmocka_unit_test(what_is_plain_stays_plain),
		cmocka_unit_test(objects_are_given_away),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("json_text", tests, NULL, NULL);
}
