/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pickle as inert data.
 *
 * The reader understands the opcodes that PyTorch's checkpoints hold
 * (protocols 2 to 5) and refuses every other one with its byte offset.
 * Nothing is imported or called: a global is a symbol, and REDUCE and NEWOBJ
 * make a node that says what would have been called. Source of the opcodes:
 * CPython, Lib/pickletools.py.
 *
 * A value is a handle of 8 bytes: small numbers are in it, strings and
 * symbols point back into the input, the rest are nodes of an arena. The
 * input must therefore outlive the pickle, and must not be a file mapping.
 * Memory: at most (16 + LIMIT_PICKLE_FACTOR) times the input, reserved at
 * once and touched as needed.
 *
 * Values may share parts and even contain themselves: who walks them bounds
 * the walk. Not thread safe while parsing; const afterwards.
 */
#ifndef SHARD_DCP_PICKLE_H
#define SHARD_DCP_PICKLE_H

#include "shard/base/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pickle_value {
	uint64_t bits;
};

enum pickle_kind {
	PICKLE_NONE,
	PICKLE_BOOL,
	PICKLE_INT,
	PICKLE_FLOAT,
	PICKLE_STRING,	/* UTF-8, surrogates allowed as Python writes them */
	PICKLE_BYTES,
	PICKLE_SYMBOL,	/* a global: module and name */
	PICKLE_TUPLE,
	PICKLE_LIST,
	PICKLE_DICT,
	PICKLE_SET,	/* set or frozenset */
	PICKLE_CALL,	/* callable(*args), with items and state if any */
	PICKLE_OBJECT,	/* cls.__new__(cls, *args), likewise */
	PICKLE_PERSID,	/* a persistent id, its tuple in args */
};

/* A class or function of Python; borrowed from the input, not terminated. */
struct pickle_symbol {
	const char *module, *name;
	uint64_t module_size, name_size;	/* bytes */
};

struct pickle {
	const unsigned char *data;	/* borrowed from the caller */
	uint64_t size;			/* bytes */
	struct pickle_value root;
	uint64_t *memory;		/* owned: arena, memo, stack */
	size_t memory_size;		/* bytes */
	uint64_t *arena;		/* inside memory */
	uint64_t arena_count, arena_limit; /* words */
};

/*
 * Parse @size bytes at @data. 0, or -errno with @fault filled: -EBADMSG for
 * bad input, -ENOMEM, -E2BIG beyond a limit. Bytes after STOP are ignored.
 */
int pickle_init(struct pickle *pickle, const void *data, uint64_t size,
		struct fault *fault);
void pickle_finish(struct pickle *pickle);

enum pickle_kind pickle_kind(const struct pickle *pickle,
			     struct pickle_value value);

/* Byte offset of the opcode that made @value; 0 for a constant. */
uint64_t pickle_offset(const struct pickle *pickle, struct pickle_value value);

/* Python's None. */
struct pickle_value pickle_none(void);

/* Each is false, with nothing changed, for another kind (or a number that
 * does not fit). A string is not terminated and borrowed from the input. */
bool pickle_int(const struct pickle *pickle, struct pickle_value value,
		int64_t *ret_number);
bool pickle_bool(struct pickle_value value, bool *ret_bool);
bool pickle_float(const struct pickle *pickle, struct pickle_value value,
		  double *ret_number);
bool pickle_string(const struct pickle *pickle, struct pickle_value value,
		   const char **ret_string, uint64_t *ret_size);
bool pickle_symbol(const struct pickle *pickle, struct pickle_value value,
		   struct pickle_symbol *ret_symbol);
bool pickle_tuple(const struct pickle *pickle, struct pickle_value value,
		  const struct pickle_value **ret_items, uint64_t *ret_count);

/* The name part of a symbol equals @name, whatever its module. */
bool pickle_symbol_is(const struct pickle *pickle, struct pickle_value value,
		      const char *name);

/* Of a call, object or persistent id. An absent state is None; an absent
 * class (PERSID) too. */
struct pickle_value pickle_callable(const struct pickle *pickle,
				    struct pickle_value value);
struct pickle_value pickle_args(const struct pickle *pickle,
				struct pickle_value value);
struct pickle_value pickle_state(const struct pickle *pickle,
				 struct pickle_value value);

/* The value of a string key of a dict (or of an object's state that is one);
 * false when absent. As in Python, the last of several wins. For attributes:
 * only the first LIMIT_ATTRIBUTES items are looked at. */
bool pickle_get(const struct pickle *pickle, struct pickle_value dict,
		const char *key, struct pickle_value *ret_value);

/*
 * The items of a list, set or dict, or those set on a call or an object
 * (an OrderedDict). Lists and sets have no keys. Other kinds have no items.
 */
struct pickle_items {
	const struct pickle *pickle;
	uint64_t batch, index;
	unsigned step;
};

struct pickle_items pickle_items(const struct pickle *pickle,
				 struct pickle_value value);
bool pickle_items_next(struct pickle_items *items,
		       struct pickle_value *ret_key,
		       struct pickle_value *ret_value);

#endif
