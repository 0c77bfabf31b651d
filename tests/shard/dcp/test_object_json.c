/* SPDX-License-Identifier: Apache-2.0 */
/* Objects as JSON; what is expected is what Python's json.dumps prints of the
 * same value, without its blanks. */
#include "support/test.h"
#include "support/put.h"

#include "shard/base/limits.h"
#include "shard/dcp/object_json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The text of a pickle; NULL when it has none. The caller frees it. */
static char *make_json(const void *data, size_t size)
{
	struct array out = { .data = NULL };
	struct pickle pickle;
	struct fault fault;
	int error;

	assert_int_equal(pickle_init(&pickle, data, size, &fault), 0);
	error = object_json(&pickle, &out);
	pickle_finish(&pickle);
	if (error) {
		assert_int_equal(error, -EOPNOTSUPP);
		array_finish(&out);
		return NULL;
	}
	assert_int_equal(array_append(&out, "", 1), 0);
	return out.data;
}

static void check(const void *data, size_t size, const char *expected)
{
	char *text = make_json(data, size);
	size_t length;

	if (!expected) {
		assert_null(text);
		return;
	}
	assert_non_null(text);
	length = strlen(text);
	assert_int_equal(text[length - 1], '\n');
	text[length - 1] = '\0';
	assert_string_equal(text, expected);
	free(text);
}
#define CHECK(pickle, expected) check(pickle, sizeof(pickle) - 1, expected)

static void scalars(void **state)
{
	(void)state;
	CHECK("N.", "null");
	CHECK("\x88.", "true");
	CHECK("\x89.", "false");
	CHECK("K\7.", "7");
	CHECK("J\xff\xff\xff\xff.", "-1");
	CHECK("\x8a\x08\0\0\0\0\0\0\0\x80.", "-9223372036854775808");
	CHECK("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.",
	      "9223372036854775807");
	CHECK("\x8c\5hello.", "\"hello\"");
	CHECK("\x8c\0.", "\"\"");
	CHECK("\x8c\6a\"\\\n\1/.", "\"a\\\"\\\\\\n\\u0001/\"");
	CHECK("\x8c\3a\0b.", "\"a\\u0000b\"");
	CHECK("X\2\0\0\0\xc3\xa9.", "\"\xc3\xa9\"");
	CHECK("ctorch\nfloat32\n.", "\"torch.float32\"");
}

static void floats(void **state)
{
	(void)state;
	CHECK("G\x3f\xb9\x99\x99\x99\x99\x99\x9a.", "0.1");
	CHECK("G\x3f\xf0\0\0\0\0\0\0.", "1.0");
	CHECK("G\x80\0\0\0\0\0\0\0.", "-0.0");
	CHECK("G\x3f\xd5\x55\x55\x55\x55\x55\x55.", "0.3333333333333333");
	CHECK("G\x3f\xd3\x33\x33\x33\x33\x33\x34.", "0.30000000000000004");
	CHECK("G\x3e\xe4\xf8\xb5\x88\xe3\x68\xf1.", "1e-05");
	CHECK("G\x41\x9d\x6f\x34\x54\0\0\0.", "123456789.0");
	CHECK("G\x7f\xef\xff\xff\xff\xff\xff\xff.", "1.7976931348623157e+308");
	CHECK("G\x7f\xf8\0\0\0\0\0\0.", "NaN");
	CHECK("G\x7f\xf0\0\0\0\0\0\0.", "Infinity");
	CHECK("G\xff\xf0\0\0\0\0\0\0.", "-Infinity");
}

/* Where C's %g and Python's repr have different borders. */
static void floats_at_the_borders_of_repr(void **state)
{
	(void)state;
	CHECK("G\x43\x0c\x6b\xf5\x26\x34\0\0.", "1000000000000000.0");
	CHECK("G\x43\x41\xc3\x79\x37\xe0\x80\0.", "1e+16");
	CHECK("G\x43\x45\xee\x2a\x2e\xb5\xa5\xc4.", "1.2345678901234568e+16");
	CHECK("G\0\0\0\0\0\0\0\1.", "5e-324");
}

static void containers(void **state)
{
	(void)state;
	CHECK("].", "[]");
	CHECK(").", "[]");
	CHECK("}.", "{}");
	CHECK("](K\1K\2e.", "[1,2]");
	CHECK("K\1K\2\x86.", "[1,2]");
	CHECK("}(\x8c\1aK\1\x8c\1bNu.", "{\"a\":1,\"b\":null}");
	CHECK("}\x8c\1a](K\1)}es.", "{\"a\":[1,[],{}]}");
	CHECK("ctorch\nSize\n(K\1K\2K\3K\4t\x85R.", "[1,2,3,4]");
	CHECK("ctorch\nSize\n)\x85R.", "[]");
	CHECK("ccollections\nOrderedDict\n)R\x8c\1aK\1s.", "{\"a\":1}");
}

static void shared_parts_are_repeated(void **state)
{
	(void)state;
	CHECK("]\x94K\1ah\0\x86.", "[[1],[1]]");
	CHECK("](\x8c\1a\x94h\0h\0e.", "[\"a\",\"a\",\"a\"]");
}

static void keys(void **state)
{
	(void)state;
	CHECK("}(K\1N\x88N\x89NNN\x8c\1aNu.",
	      "{\"1\":null,\"true\":null,\"false\":null,\"null\":null,"
	      "\"a\":null}");
	CHECK("}G\x3f\xf8\0\0\0\0\0\0Ns.", "{\"1.5\":null}");
	/* No such key in JSON. */
	CHECK("})Ns.", NULL);
	CHECK("}C\1aNs.", NULL);
	CHECK("}\x8c\1\xffNs.", NULL);
	/* Two of them would be one. */
	CHECK("}(K\1N\x8c\1""1Nu.", NULL);
}

static void other_things_have_no_json(void **state)
{
	(void)state;
	CHECK("C\1a.", NULL);
	CHECK("\x8f.", NULL);
	CHECK("\x8c\1\xff.", NULL);
	CHECK("\x8c\3\xed\xa0\x80.", NULL);
	CHECK("\x8a\x09\0\0\0\0\0\0\0\0\1.", NULL);
	CHECK("ctorch\nnothing\n.", NULL);
	CHECK("cos\nfloat32\n.", NULL);
	CHECK("ca\nb\n)R.", NULL);
	CHECK("ca\nb\n)\x81.", NULL);
	CHECK("ctorch\nSize\n)R.", NULL);
	CHECK("ctorch\nSize\nN\x85R.", NULL);
	CHECK("ccollections\nOrderedDict\nN\x85R.", NULL);
	CHECK("ccollections\nOrderedDict\n)R}b.", NULL);
	CHECK("N\x85Q.", NULL);
	CHECK("](K\1C\1ae.", NULL);
}

static void nesting(unsigned depth, bool possible)
{
	struct array out = { .data = NULL };
	unsigned i;
	char *text;

	for (i = 0; i < depth; i++)
		PUT(&out, "]");
	for (i = 1; i < depth; i++)
		PUT(&out, "a");
	PUT(&out, ".");
	text = make_json(out.data, out.size);
	assert_int_equal(text != NULL, possible);
	free(text);
	array_finish(&out);
}

static void depth_is_bounded(void **state)
{
	(void)state;
	nesting(LIMIT_OBJECT_DEPTH, true);
	nesting(LIMIT_OBJECT_DEPTH + 1, false);
	/* A list and a dict that hold themselves. */
	CHECK("]\x94h\0a.", NULL);
	CHECK("}\x94\x8c\1ah\0s.", NULL);
}

/* 2^40 zeros in 200 bytes. */
static void expansion_is_bounded(void **state)
{
	struct array out = { .data = NULL };
	unsigned i;
	char *text;

	(void)state;
	PUT(&out, "K\0q\0");
	for (i = 0; i < 40; i++)
		PUT(&out, "h\0\x86q\0");
	PUT(&out, ".");
	text = make_json(out.data, out.size);
	assert_null(text);
	array_finish(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scalars),
		cmocka_unit_test(floats),
		cmocka_unit_test(floats_at_the_borders_of_repr),
		cmocka_unit_test(containers),
		cmocka_unit_test(shared_parts_are_repeated),
		cmocka_unit_test(keys),
		cmocka_unit_test(other_things_have_no_json),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(expansion_is_bounded),
	};

	return cmocka_run_group_tests_name("object_json", tests, NULL, NULL);
}
