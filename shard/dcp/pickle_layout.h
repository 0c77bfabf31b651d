/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How pickle_parse.c lays values out for pickle_values.c; nobody else looks.
 *
 * Handles. The low three bits of a value are its tag, the rest depends:
 *
 *	CONST	a constant below
 *	INT	61-bit signed number
 *	STRING, BYTES, FLOAT, LONG, GLOBAL	offset of the opcode
 *	NODE	index of the node's first word in the arena
 *
 * Nodes. Word 0 is kind | opcode offset << 4, then by kind:
 *
 *	TUPLE			count, items...
 *	SYMBOL			module, name		(STACK_GLOBAL)
 *	LIST, DICT, SET		first batch, last batch
 *	CALL, OBJECT, PERSID	callable, args, state, first, last batch
 *	a batch			next batch, count, values...
 *
 * Containers grow by batches because that is how pickles fill them (1000
 * items an opcode), so nothing is ever moved. A batch index of 0 is none:
 * word 0 of the arena is not used. Batches have no header word: nobody has a
 * handle to one.
 */
#ifndef SHARD_DCP_PICKLE_LAYOUT_H
#define SHARD_DCP_PICKLE_LAYOUT_H

#include "shard/dcp/pickle.h"

enum pickle_tag {
	TAG_CONST,
	TAG_INT,
	TAG_STRING,
	TAG_BYTES,
	TAG_FLOAT,
	TAG_LONG,
	TAG_GLOBAL,
	TAG_NODE,
};

_Static_assert(TAG_NODE == 7, "a tag has three bits");

enum pickle_constant {
	CONST_UNSET,
	CONST_NONE,
	CONST_FALSE,
	CONST_TRUE,
	CONST_EMPTY_TUPLE,
};

enum { WORD_CALLABLE = 1, WORD_ARGS, WORD_STATE, WORD_CALL_ITEMS };
enum { WORD_ITEMS = 1 };

static inline uint64_t pickle_make(enum pickle_tag tag, uint64_t payload)
{
	return payload << 3 | tag;
}

static inline enum pickle_tag pickle_tag(uint64_t bits)
{
	return (enum pickle_tag)(bits & 7);
}

/* Little-endian two's complement of @size <= 8 bytes. */
int64_t pickle_decode_long(const unsigned char *p, unsigned size);

/* The word of the arena that holds the first batch of a container; the next
 * word holds the last. 0: @bits has no items of that sort. */
uint64_t pickle_items_word(const struct pickle *pickle, uint64_t bits);

/* Memory of pickle->memory_size bytes, NULL when there is none; and letting go
 * of what lies behind the arena, when parsing is done. */
void pickle_reserve(struct pickle *pickle);
void pickle_trim(const struct pickle *pickle, const uint64_t *end_of_arena);

#endif
