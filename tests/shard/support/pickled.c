/* SPDX-License-Identifier: Apache-2.0 */
#include "support/pickled.h"

#include "support/test.h"

#include <stdlib.h>
#include <string.h>

/* The input in memory of exactly its size. */
static unsigned char *input;
struct pickle pickle;

int pickled_forget(void **state)
{
	(void)state;
	pickle_finish(&pickle);
	free(input);
	input = NULL;
	return 0;
}

struct pickle_value pickled_parse(const void *data, size_t size)
{
	struct fault fault = { .reason = "" };

	pickled_forget(NULL);
	input = malloc(size);
	assert_non_null(input);
	memcpy(input, data, size);
	if (pickle_init(&pickle, input, size, &fault))
		fail_msg("byte %llu: %s", (unsigned long long)fault.offset,
			 fault.reason);
	return pickle.root;
}

void check_kind(struct pickle_value value, enum pickle_kind kind)
{
	assert_int_equal(pickle_kind(&pickle, value), kind);
}

void check_int(struct pickle_value value, int64_t expected)
{
	int64_t number = ~expected;

	check_kind(value, PICKLE_INT);
	assert_true(pickle_int(&pickle, value, &number));
	assert_true(number == expected);
}

void check_text(struct pickle_value value, const char *expected)
{
	const char *text;
	uint64_t size;

	check_kind(value, PICKLE_STRING);
	assert_true(pickle_string(&pickle, value, &text, &size));
	assert_int_equal(size, strlen(expected));
	assert_memory_equal(text, expected, size);
}

void check_symbol(struct pickle_value value, const char *module,
		  const char *name)
{
	struct pickle_symbol symbol;

	check_kind(value, PICKLE_SYMBOL);
	assert_true(pickle_symbol(&pickle, value, &symbol));
	assert_int_equal(symbol.module_size, strlen(module));
	assert_memory_equal(symbol.module, module, symbol.module_size);
	assert_int_equal(symbol.name_size, strlen(name));
	assert_memory_equal(symbol.name, name, symbol.name_size);
	assert_true(pickle_symbol_is(&pickle, value, name));
	assert_int_equal(pickle_symbol_is(&pickle, value, module),
			 strcmp(module, name) == 0);
}

const struct pickle_value *check_tuple(struct pickle_value value,
				       uint64_t expected)
{
	const struct pickle_value *items;
	uint64_t count;

	check_kind(value, PICKLE_TUPLE);
	assert_true(pickle_tuple(&pickle, value, &items, &count));
	assert_int_equal(count, expected);
	return items;
}

void check_items(struct pickle_value value, unsigned count,
		 const int64_t *expected)
{
	struct pickle_items items = pickle_items(&pickle, value);
	struct pickle_value key, item;
	unsigned i;

	for (i = 0; i < count; i++) {
		assert_true(pickle_items_next(&items, &key, &item));
		check_int(item, expected[i]);
	}
	assert_false(pickle_items_next(&items, &key, &item));
}
