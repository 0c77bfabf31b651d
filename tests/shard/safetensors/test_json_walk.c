/* SPDX-License-Identifier: Apache-2.0 */
/* A walk against json-c's tree of the same text. */
#include "support/test.h"
#include "support/dice.h"
#include "support/put.h"
#include "support/refusal.h"

#include "shard/base/limits.h"
#include "shard/safetensors/json_walk.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct dice dice;

/* ---- a walk that makes a tree -------------------------------------------- */

/* Goes into objects by the walk where @go says so; else json-c parses them. */
static int build(struct json_walk *walk, unsigned go, struct json_object *tree)
{
	const char *key;
	size_t size;
	int error = json_walk_enter(walk);

	while (!error) {
		struct json_object *value = NULL;
		char *name;

		error = json_walk_next(walk, &key, &size);
		if (error <= 0)
			break;
		name = strndup(key, size);
		assert_int_equal(strlen(name), size);
		error = 0;
		if (go > 0 && walk->position < walk->size &&
		    walk->text[walk->position] == '{') {
			value = json_object_new_object();
			error = build(walk, go - 1, value);
		} else {
			error = json_walk_value(walk, &value);
		}
		json_object_object_add(tree, name, value);
		free(name);
	}
	return error;
}

/* 0 with the tree, or an error. */
static int walk_text(const char *text, size_t size, unsigned go,
		     struct json_object **ret, struct fault *fault)
{
	struct json_walk walk;
	/* Exactly as long as it is, for the sanitizer. */
	char *copy = malloc(size ? size : 1);
	int error;

	memcpy(copy, text, size);
	memset(fault, 0, sizeof(*fault));
	*ret = json_object_new_object();
	error = json_walk_init(&walk, copy, size, fault);
	if (!error)
		error = build(&walk, go, *ret);
	if (!error)
		error = json_walk_end(&walk);
	json_walk_finish(&walk);
	free(copy);
	if (error) {
		json_object_put(*ret);
		*ret = NULL;
		assert_int_equal(fault->error, error);
		assert_non_null(fault->reason);
		assert_true(fault->offset <= size);
	}
	return error;
}

static struct json_object *strict_tree(const char *text, size_t size)
{
	struct json_tokener *tokener = json_tokener_new_ex(32);
	struct json_object *tree;

	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT |
					JSON_TOKENER_VALIDATE_UTF8);
	tree = json_tokener_parse_ex(tokener, text, (int)size);
	if (json_tokener_get_error(tokener) != json_tokener_success) {
		json_object_put(tree);
		tree = NULL;
	}
	json_tokener_free(tokener);
	return tree;
}

/* ---- random objects ------------------------------------------------------ */

static void put_blanks(struct array *out)
{
	while (dice_chance(&dice, 20))
		put_bytes(out, &" \n\t\r"[dice_below(&dice, 4)], 1);
}

static void put_string(struct array *out)
{
	static const char *const pieces[] = {
		"a", "weight", ".", "\\\"", "\\\\", "\\u00e9", "\xc3\xa9",
		"\\n", "{", "}", ",", ":", "\\ud83d\\ude00", "/", "0", "[",
	};

	put_bytes(out, "\"", 1);
	while (dice_chance(&dice, 75)) {
		const char *piece = pieces[dice_below(&dice,
						      COUNT_OF(pieces))];

		put_bytes(out, piece, strlen(piece));
	}
	put_bytes(out, "\"", 1);
}

static void put_object(struct array *out, unsigned depth);

static void put_value(struct array *out, unsigned depth)
{
	static const char *const words[] = {
		"null", "true", "false", "0", "-1", "1.5e3", "[]", "[1, 2]",
		"[{\"a\":[null]}]", "18446744073709551615", "\"\"",
	};
	const char *word = words[dice_below(&dice, COUNT_OF(words))];

	if (depth > 0 && dice_chance(&dice, 30))
		put_object(out, depth - 1);
	else if (dice_chance(&dice, 40))
		put_string(out);
	else
		put_bytes(out, word, strlen(word));
}

static void put_object(struct array *out, unsigned depth)
{
	unsigned count = (unsigned)dice_below(&dice, 6), i;

	put_bytes(out, "{", 1);
	put_blanks(out);
	for (i = 0; i < count; i++) {
		put_bytes(out, ",", i > 0);
		put_blanks(out);
		put_string(out);
		put_blanks(out);
		put_bytes(out, ":", 1);
		put_blanks(out);
		put_value(out, depth);
		put_blanks(out);
	}
	put_bytes(out, "}", 1);
}

static void random_objects(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < 3000; i++) {
		struct array text = { .data = NULL };
		struct json_object *want, *found;
		struct fault fault;

		put_object(&text, 4);
		put_blanks(&text);
		want = strict_tree(text.data, text.size);
		assert_non_null(want);
		if (walk_text(text.data, text.size,
			      (unsigned)dice_below(&dice, 5), &found, &fault))
			fail_msg("%s at %d: %.*s", fault.reason,
				 (int)fault.offset, (int)text.size, text.data);
		assert_true(json_object_equal(want, found));
		json_object_put(want);
		json_object_put(found);
		array_finish(&text);
	}
}

/* What is changed at random is refused, or it is still an object to json-c,
 * too, and the same one. */
static void random_damage(void **state)
{
	static const char bytes[] = "{}[]\",:\\ \n0na\x80\xff\x01";
	unsigned i, refused = 0;

	(void)state;
	for (i = 0; i < 20000; i++) {
		struct array text = { .data = NULL };
		struct json_object *want, *found;
		struct fault fault;

		put_object(&text, 2);
		text.data[dice_below(&dice, text.size)] =
			bytes[dice_below(&dice, sizeof(bytes) - 1)];
		if (dice_chance(&dice, 20))
			text.size = dice_below(&dice, text.size + 1);
		if (walk_text(text.data, text.size, 2, &found, &fault)) {
			assert_int_equal(fault.error, -EBADMSG);
			refused++;
			array_finish(&text);
			continue;
		}
		want = strict_tree(text.data, text.size);
		assert_non_null(want);
		assert_true(json_object_equal(want, found));
		json_object_put(want);
		json_object_put(found);
		array_finish(&text);
	}
	assert_true(refused > 5000 && refused < 19900);
}

/* ---- what is refused, and where ------------------------------------------ */

static void refusals(void **state)
{
	static const struct {
		const char *text;
		uint64_t offset;
		const char *reason;
	} rows[] = {
		{ "", 0, "no JSON object" },
		{ "  ", 2, "no JSON object" },
		{ "[]", 0, "no JSON object" },
		{ "\"a\"", 0, "no JSON object" },
		{ "{", 1, "no key" },
		{ "{\"a\"", 4, "no colon" },
		{ "{\"a\":", 5, "ends too early" },
		{ "{\"a\":1", 6, "ends too early" },
		{ "{\"a\":\"x", 7, "ends too early" },
		{ "{\"a\":[1", 7, "ends too early" },
		{ "{\"a\":1 ", 7, "neither a comma" },
		{ "{\"a\":1,", 7, "no key" },
		{ "{\"a\":1,}", 7, "no key" },
		{ "{,}", 1, "no key" },
		{ "{a:1}", 1, "no key" },
		{ "{'a':1}", 1, "no key" },
		{ "{1:1}", 1, "no key" },
		{ "{\"a\" 1}", 5, "no colon" },
		{ "{\"a\":1 \"b\":2}", 7, "neither a comma" },
		{ "{\"a\":}", 5, "" },
		{ "{\"a\":/**/1}", 5, "" },
		{ "{\"a\":01}", 7, "" },
		{ "{\"a\":[1,]}", 8, "" },
		{ "{\"a\":1}x", 7, "bytes behind" },
		{ "{\"a\":1}}", 7, "bytes behind" },
		{ "{\"a\":\"\xff\"}", 6, "UTF-8" },
		{ "{\"a\":\"\xed\xa0\x80\"}", 6, "UTF-8" },
		{ "{\"a\":\"\xc0\x80\"}", 6, "UTF-8" },
		{ "{\"a\":\"\n\x01\"}", 7, "control" },
		{ "{\"a\":\x0b 1}", 5, "control" },
		{ "{\"a\":\"\\x\"}", 7, "" },
	};
	struct json_object *tree;
	struct fault fault;
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(rows); i++) {
		assert_int_equal(walk_text(rows[i].text, strlen(rows[i].text),
					   9, &tree, &fault), -EBADMSG);
		refusal_check(rows[i].text, &fault, -EBADMSG, rows[i].offset,
			      rows[i].reason);
	}
	/* A NUL is no end. */
	assert_int_equal(walk_text("{\"a\":1}\0", 8, 9, &tree, &fault),
			 -EBADMSG);
	assert_int_equal(walk_text("{\"a\0b\":1}", 9, 9, &tree, &fault),
			 -EBADMSG);
}

static void nest(struct array *out, const char *open, const char *middle,
		 const char *close, unsigned depth)
{
	unsigned i;

	for (i = 0; i < depth; i++)
		put_bytes(out, open, strlen(open));
	put_bytes(out, middle, strlen(middle));
	for (i = 0; i < depth; i++)
		put_bytes(out, close, strlen(close));
}

static void depth(void **state)
{
	static const struct {
		unsigned depth, go;
		int error;
	} rows[] = {
		{ 32, 99, 0 }, { 33, 99, -EBADMSG },
		/* The outermost by us, the rest by json-c. */
		{ 32, 0, 0 }, { 33, 0, -EBADMSG },
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(rows); i++) {
		struct array text = { .data = NULL };
		struct json_object *tree;
		struct fault fault;

		nest(&text, "{\"a\":", "1", "}", rows[i].depth);
		assert_int_equal(walk_text(text.data, text.size, rows[i].go,
					   &tree, &fault), rows[i].error);
		json_object_put(tree);
		array_finish(&text);
	}
}

/* A list costs far more than its text, a string does not. */
static void large_values(void **state)
{
	struct array text = { .data = NULL };
	struct json_object *tree;
	struct fault fault;
	size_t i;

	(void)state;
	PUT(&text, "{\"a\":[0");
	while (text.size < LIMIT_JSON_VALUE_SIZE + 6)
		PUT(&text, ",0");
	PUT(&text, "]}");
	assert_int_equal(walk_text(text.data, text.size, 0, &tree, &fault),
			 -E2BIG);
	refusal_check("list", &fault, -E2BIG, 5, "too large");
	text.size = 0;
	PUT(&text, "{\"a\":\"");
	for (i = 0; i < 3 * LIMIT_JSON_VALUE_SIZE; i++)
		PUT(&text, "x");
	PUT(&text, "\"}");
	assert_int_equal(walk_text(text.data, text.size, 0, &tree, &fault),
			 0);
	assert_int_equal(json_object_get_string_len(
		json_object_object_get(tree, "a")), 3 * LIMIT_JSON_VALUE_SIZE);
	json_object_put(tree);
	array_finish(&text);
}

/* Keys may hold what C strings cannot. */
static void keys_with_nul(void **state)
{
	static const char text[] = "{\"a\\u0000b\":1}";
	struct json_walk walk;
	struct json_object *value;
	const char *key;
	size_t size;

	(void)state;
	assert_int_equal(json_walk_init(&walk, text, sizeof(text) - 1, NULL),
			 0);
	assert_int_equal(json_walk_enter(&walk), 0);
	assert_int_equal(json_walk_next(&walk, &key, &size), 1);
	assert_int_equal(size, 3);
	assert_memory_equal(key, "a\0b", 3);
	assert_int_equal(json_walk_value(&walk, &value), 0);
	assert_int_equal(json_object_get_int(value), 1);
	json_object_put(value);
	assert_int_equal(json_walk_next(&walk, &key, &size), 0);
	assert_int_equal(json_walk_end(&walk), 0);
	json_walk_finish(&walk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_objects),
		cmocka_unit_test(random_damage),
		cmocka_unit_test(refusals),
		cmocka_unit_test(depth),
		cmocka_unit_test(large_values),
		cmocka_unit_test(keys_with_nul),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("json_walk", tests, NULL, NULL);
}
