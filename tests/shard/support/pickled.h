/* SPDX-License-Identifier: Apache-2.0 */
/* One pickle, parsed, and what is expected of its values. */
#ifndef SUPPORT_PICKLED_H
#define SUPPORT_PICKLED_H

#include "shard/dcp/pickle.h"

/* The pickle at hand. */
extern struct pickle pickle;

/* Let go of it; for a test's teardown, too. */
int pickled_forget(void **state);
/* Take @size bytes as the pickle at hand, which must be good; its root. */
struct pickle_value pickled_parse(const void *data, size_t size);
#define PARSE(literal) pickled_parse(literal, sizeof(literal) - 1)

void check_kind(struct pickle_value value, enum pickle_kind kind);
void check_int(struct pickle_value value, int64_t expected);
void check_text(struct pickle_value value, const char *expected);
void check_symbol(struct pickle_value value, const char *module,
		  const char *name);
/* A tuple of @expected items, which are returned. */
const struct pickle_value *check_tuple(struct pickle_value value,
				       uint64_t expected);
/* A list or a set of numbers. */
void check_items(struct pickle_value value, unsigned count,
		 const int64_t *expected);
#define CHECK_ITEMS(value, ...) \
	check_items(value, sizeof((int64_t[]){ __VA_ARGS__ }) / 8, \
		    (int64_t[]){ __VA_ARGS__ })

#endif
