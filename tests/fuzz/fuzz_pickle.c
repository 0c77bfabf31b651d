/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pickle machine, and every accessor on every value that it made. The
 * walk is bounded: values may be shared and contain themselves.
 */
#include "tests/fuzz/fuzz.h"

#include "shard/base/limits.h"
#include "shard/dcp/pickle.h"

#include <errno.h>
#include <string.h>

enum { VISITS_MAX = 20000, WAITING_MAX = 4096 };

struct walk {
	const struct pickle *pickle;
	struct pickle_value waiting[WAITING_MAX];
	unsigned count;
};

static void add(struct walk *walk, struct pickle_value value)
{
	if (walk->count < WAITING_MAX)
		walk->waiting[walk->count++] = value;
}

static void check_inside(const struct pickle *p, const char *text,
			 uint64_t size)
{
	const char *data = (const char *)p->data;

	CHECK(text >= data && text <= data + p->size);
	CHECK(size <= (uint64_t)(data + p->size - text));
}

static void check_scalar(const struct pickle *p, struct pickle_value value)
{
	enum pickle_kind kind = pickle_kind(p, value);
	struct pickle_symbol symbol;
	const char *text;
	uint64_t size;
	int64_t number;
	double real;
	bool boolean;

	CHECK(kind <= PICKLE_PERSID);
	CHECK(pickle_offset(p, value) < p->size);
	CHECK(pickle_bool(value, &boolean) == (kind == PICKLE_BOOL));
	CHECK(pickle_float(p, value, &real) == (kind == PICKLE_FLOAT));
	if (pickle_int(p, value, &number))
		CHECK(kind == PICKLE_INT);
	CHECK(pickle_string(p, value, &text, &size) ==
	      (kind == PICKLE_STRING));
	if (kind == PICKLE_STRING)
		check_inside(p, text, size);
	CHECK(pickle_symbol(p, value, &symbol) == (kind == PICKLE_SYMBOL));
	if (kind == PICKLE_SYMBOL) {
		check_inside(p, symbol.module, symbol.module_size);
		check_inside(p, symbol.name, symbol.name_size);
	}
	pickle_symbol_is(p, value, "Size");
}

static void add_parts(struct walk *walk, struct pickle_value value)
{
	const struct pickle *p = walk->pickle;
	enum pickle_kind kind = pickle_kind(p, value);
	struct pickle_value key = pickle_none(), part;
	const struct pickle_value *parts;
	struct pickle_items items = pickle_items(p, value);
	uint64_t count, i;

	while (walk->count < WAITING_MAX &&
	       pickle_items_next(&items, &key, &part)) {
		CHECK(kind == PICKLE_LIST || kind == PICKLE_SET ||
		      kind == PICKLE_DICT || kind == PICKLE_CALL ||
		      kind == PICKLE_OBJECT);
		add(walk, key);
		add(walk, part);
	}
	CHECK(pickle_tuple(p, value, &parts, &count) == (kind == PICKLE_TUPLE));
	for (i = 0; kind == PICKLE_TUPLE && i < count; i++) {
		if (i == WAITING_MAX)
			break;
		add(walk, parts[i]);
	}
	add(walk, pickle_callable(p, value));
	add(walk, pickle_args(p, value));
	add(walk, pickle_state(p, value));
}

static void check_values(const struct pickle *pickle)
{
	struct walk walk = { .pickle = pickle };
	struct pickle_value found;
	unsigned visits;

	add(&walk, pickle->root);
	for (visits = 0; walk.count > 0 && visits < VISITS_MAX; visits++) {
		struct pickle_value value = walk.waiting[--walk.count];

		check_scalar(pickle, value);
		add_parts(&walk, value);
		if (visits < 1000)
			pickle_get(pickle, pickle_state(pickle, value), "size",
				   &found);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fault fault = { .error = 0 };
	struct pickle pickle;
	int error = pickle_init(&pickle, data, size, &fault);

	if (error) {
		CHECK(error == -EBADMSG || error == -E2BIG);
		CHECK(fault.error == error && fault.reason);
		CHECK(fault.offset <= size);
		return 0;
	}
	CHECK(pickle.arena_count <= pickle.arena_limit);
	CHECK(pickle.memory_size <=
	      (16 + LIMIT_PICKLE_FACTOR) * size + LIMIT_PICKLE_SLACK + 16);
	check_values(&pickle);
	pickle_finish(&pickle);
	return 0;
}
