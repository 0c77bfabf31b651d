/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pickle machine.
 *
 * The marks of the pickle machine lie on its value stack, each holding the
 * position of the mark below it; `base` is the position above the topmost,
 * and nothing pops below it.
 */
#include "shard/dcp/pickle_layout.h"

#include "shard/base/bytes.h"
#include "shard/base/limits.h"

#include <errno.h>
#include <string.h>

struct pickle_machine {
	struct pickle *pickle;
	struct fault *fault;
	uint64_t position;	/* of the next byte of input */
	uint64_t opcode;	/* offset of the current opcode */
	uint64_t opcode_count;
	uint64_t *memo;
	uint64_t memo_count;
	uint64_t *stack;
	uint64_t depth;		/* values and marks on the stack */
	uint64_t base;		/* of what may be popped */
};

static int bad(struct pickle_machine *m, const char *reason)
{
	fault_set(m->fault, -EBADMSG, m->opcode, reason);
	return -EBADMSG;
}

static int too_big(struct pickle_machine *m, const char *reason)
{
	fault_set(m->fault, -E2BIG, m->opcode, reason);
	return -E2BIG;
}

/* ---- input, stack, memo, arena ------------------------------------------- */

static int take(struct pickle_machine *m, uint64_t size,
		const unsigned char **ret)
{
	if (size > m->pickle->size - m->position)
		return bad(m, "the pickle ends inside an opcode");
	*ret = m->pickle->data + m->position;
	m->position += size;
	return 0;
}

static int push(struct pickle_machine *m, uint64_t bits)
{
	/* Every opcode pushes at most one value: the stack has room for as
	 * many values as the input has bytes. */
	m->stack[m->depth++] = bits;
	return 0;
}

static int pop(struct pickle_machine *m, uint64_t *ret_bits)
{
	if (m->depth == m->base)
		return bad(m, "stack underflow");
	*ret_bits = m->stack[--m->depth];
	return 0;
}

static int top(struct pickle_machine *m, uint64_t *ret_bits)
{
	if (m->depth == m->base)
		return bad(m, "stack underflow");
	*ret_bits = m->stack[m->depth - 1];
	return 0;
}

static int push_mark(struct pickle_machine *m)
{
	push(m, pickle_make(TAG_INT, m->base));
	m->base = m->depth;
	return 0;
}

/* Drop the topmost mark; what stood above it stays readable until the next
 * push. */
static int pop_mark(struct pickle_machine *m, uint64_t **ret_values,
		    uint64_t *ret_count)
{
	if (m->base == 0)
		return bad(m, "no mark on the stack");
	*ret_values = m->stack + m->base;
	*ret_count = m->depth - m->base;
	m->depth = m->base - 1;
	m->base = m->stack[m->depth] >> 3;
	return 0;
}

static int allocate(struct pickle_machine *m, uint64_t words,
		    uint64_t *ret_index)
{
	struct pickle *p = m->pickle;

	if (words > p->arena_limit - p->arena_count)
		return too_big(m, "the pickle needs more memory than its size justifies");
	*ret_index = p->arena_count;
	p->arena_count += words;
	return 0;
}

static int push_node(struct pickle_machine *m, enum pickle_kind kind,
		     const uint64_t *words, uint64_t count)
{
	uint64_t index;
	int error = allocate(m, 1 + count, &index);

	if (error)
		return error;
	m->pickle->arena[index] = m->opcode << 4 | kind;
	memcpy(m->pickle->arena + index + 1, words, count * sizeof(*words));
	return push(m, pickle_make(TAG_NODE, index));
}

static int push_call(struct pickle_machine *m, enum pickle_kind kind,
		     uint64_t callable, uint64_t args)
{
	const uint64_t words[] = {
		callable, args, pickle_make(TAG_CONST, CONST_UNSET), 0, 0,
	};

	return push_node(m, kind, words, 5);
}

static int memo_put(struct pickle_machine *m, uint64_t index)
{
	uint64_t bits = 0;
	int error = top(m, &bits);

	if (error)
		return error;
	if (index > m->opcode_count)
		return bad(m, "memo index beyond the number of opcodes");
	while (m->memo_count <= index)
		m->memo[m->memo_count++] = pickle_make(TAG_CONST, CONST_UNSET);
	m->memo[index] = bits;
	return 0;
}

static int memo_get(struct pickle_machine *m, uint64_t index)
{
	if (index >= m->memo_count ||
	    m->memo[index] == pickle_make(TAG_CONST, CONST_UNSET))
		return bad(m, "memo index that was never set");
	return push(m, m->memo[index]);
}

/* ---- opcodes ------------------------------------------------------------- */

static int op_proto(struct pickle_machine *m)
{
	const unsigned char *p;
	int error = take(m, 1, &p);

	if (error)
		return error;
	return *p >= 2 && *p <= 5 ? 0 : bad(m, "pickle protocol is not 2 to 5");
}

static int op_skip(struct pickle_machine *m, uint64_t size)
{
	const unsigned char *p;

	return take(m, size, &p);
}

/* A number of @size bytes, little-endian, unsigned. */
static int take_size(struct pickle_machine *m, unsigned size, uint64_t *ret)
{
	const unsigned char *p;
	int error = take(m, size, &p);

	if (error)
		return error;
	*ret = size == 1 ? *p : size == 2 ? bytes_u16le(p) :
	       size == 4 ? bytes_u32le(p) : bytes_u64le(p);
	return 0;
}

static int op_int(struct pickle_machine *m, unsigned size)
{
	uint64_t number;
	int error = take_size(m, size, &number);

	if (error)
		return error;
	if (size == 4)
		number = (uint64_t)(int64_t)(int32_t)number;
	return push(m, pickle_make(TAG_INT, number));
}

static int op_long(struct pickle_machine *m)
{
	const unsigned char *p = NULL;
	uint64_t size;
	int64_t number;
	int error = take_size(m, 1, &size);

	if (!error)
		error = take(m, size, &p);
	if (error)
		return error;
	if (size <= 8) {
		number = pickle_decode_long(p, (unsigned)size);
		if (number >= -((int64_t)1 << 60) && number < (int64_t)1 << 60)
			return push(m, pickle_make(TAG_INT, (uint64_t)number));
	}
	return push(m, pickle_make(TAG_LONG, m->opcode));
}

/* A string or bytes behind a length of @length_size bytes. */
static int op_text(struct pickle_machine *m, enum pickle_tag tag,
		   unsigned length_size)
{
	const unsigned char *p;
	uint64_t size;
	int error = take_size(m, length_size, &size);

	if (!error)
		error = take(m, size, &p);
	return error ? error : push(m, pickle_make(tag, m->opcode));
}

static int op_float(struct pickle_machine *m)
{
	int error = op_skip(m, 8);

	return error ? error : push(m, pickle_make(TAG_FLOAT, m->opcode));
}

static int op_global(struct pickle_machine *m)
{
	int lines;

	for (lines = 0; lines < 2; lines++) {
		const unsigned char *start = m->pickle->data + m->position;
		const unsigned char *end = memchr(start, '\n',
			m->pickle->size - m->position);

		if (!end || end - start > LIMIT_PATH_SIZE)
			return bad(m, "global without an end of line");
		m->position += (uint64_t)(end - start) + 1;
	}
	return push(m, pickle_make(TAG_GLOBAL, m->opcode));
}

static int op_stack_global(struct pickle_machine *m)
{
	uint64_t words[2];
	int error = pop(m, &words[1]);

	if (!error)
		error = pop(m, &words[0]);
	if (error)
		return error;
	if (pickle_tag(words[0]) != TAG_STRING ||
	    pickle_tag(words[1]) != TAG_STRING)
		return bad(m, "global whose name is not a string");
	return push_node(m, PICKLE_SYMBOL, words, 2);
}

/* REDUCE, NEWOBJ: pop args and callable. */
static int op_call(struct pickle_machine *m, enum pickle_kind kind)
{
	struct pickle_value value;
	uint64_t callable;
	int error = pop(m, &value.bits);

	if (!error)
		error = pop(m, &callable);
	if (error)
		return error;
	if (pickle_kind(m->pickle, value) != PICKLE_TUPLE)
		return bad(m, "arguments that are not a tuple");
	return push_call(m, kind, callable, value.bits);
}

static int op_persid(struct pickle_machine *m)
{
	uint64_t bits;
	int error = pop(m, &bits);

	return error ? error :
	       push_call(m, PICKLE_PERSID,
			 pickle_make(TAG_CONST, CONST_UNSET), bits);
}

static int op_build(struct pickle_machine *m)
{
	uint64_t state, target = 0, *words;
	enum pickle_kind kind;
	int error = pop(m, &state);

	if (!error)
		error = top(m, &target);
	if (error)
		return error;
	kind = pickle_kind(m->pickle, (struct pickle_value){ target });
	if (kind != PICKLE_CALL && kind != PICKLE_OBJECT)
		return bad(m, "state for something that is not an object");
	words = m->pickle->arena + (target >> 3);
	if (words[WORD_STATE] != pickle_make(TAG_CONST, CONST_UNSET))
		return bad(m, "second state for one object");
	words[WORD_STATE] = state;
	return 0;
}

static int add_batch(struct pickle_machine *m, const uint64_t *values,
		     uint64_t count)
{
	uint64_t target, batch, word, *arena = m->pickle->arena;
	int error = top(m, &target);

	if (error)
		return error;
	word = pickle_items_word(m->pickle, target);
	if (!word)
		return bad(m, "items for something that is not a container");
	if (count == 0)
		return 0;
	error = allocate(m, 2 + count, &batch);
	if (error)
		return error;
	arena[batch] = 0;
	arena[batch + 1] = count;
	memcpy(arena + batch + 2, values, count * sizeof(*values));
	if (arena[word])
		arena[arena[word + 1]] = batch;
	else
		arena[word] = batch;
	arena[word + 1] = batch;
	return 0;
}

/* Keys and values must not be mixed up with plain items. */
static int check_target(struct pickle_machine *m, bool pairs)
{
	struct pickle_value target;
	enum pickle_kind kind;
	int error = top(m, &target.bits);

	if (error)
		return error;
	kind = pickle_kind(m->pickle, target);
	if (pairs ? kind == PICKLE_LIST || kind == PICKLE_SET :
		    kind == PICKLE_DICT)
		return bad(m, "items of the wrong kind for this container");
	return 0;
}

static int op_set_items(struct pickle_machine *m, uint64_t count, bool pairs)
{
	uint64_t values[2], i;
	int error = 0;

	for (i = count; i > 0 && !error; i--)
		error = pop(m, &values[i - 1]);
	if (!error)
		error = check_target(m, pairs);
	return error ? error : add_batch(m, values, count);
}

static int op_set_items_to_mark(struct pickle_machine *m, bool pairs)
{
	uint64_t *values, count;
	int error = pop_mark(m, &values, &count);

	if (!error)
		error = check_target(m, pairs);
	if (error)
		return error;
	if (pairs && count % 2)
		return bad(m, "key without a value");
	return add_batch(m, values, count);
}

static int push_tuple(struct pickle_machine *m, const uint64_t *values,
		      uint64_t count)
{
	uint64_t index;
	int error;

	if (count == 0)
		return push(m, pickle_make(TAG_CONST, CONST_EMPTY_TUPLE));
	error = allocate(m, 2 + count, &index);
	if (error)
		return error;
	m->pickle->arena[index] = m->opcode << 4 | PICKLE_TUPLE;
	m->pickle->arena[index + 1] = count;
	memcpy(m->pickle->arena + index + 2, values, count * sizeof(*values));
	return push(m, pickle_make(TAG_NODE, index));
}

static int op_tuple(struct pickle_machine *m, unsigned count)
{
	uint64_t values[3];
	unsigned i;
	int error = 0;

	for (i = count; i > 0 && !error; i--)
		error = pop(m, &values[i - 1]);
	return error ? error : push_tuple(m, values, count);
}

static int op_tuple_to_mark(struct pickle_machine *m)
{
	uint64_t *values, count;
	int error = pop_mark(m, &values, &count);

	return error ? error : push_tuple(m, values, count);
}

static int push_container(struct pickle_machine *m, enum pickle_kind kind)
{
	const uint64_t words[] = { 0, 0 };

	return push_node(m, kind, words, 2);
}

static int op_frozenset(struct pickle_machine *m)
{
	uint64_t *values, count, target;
	int error = pop_mark(m, &values, &count);

	if (error)
		return error;
	/* The node takes the place of the mark; the values behind it stay
	 * where they are until they are copied. */
	if (count == 0)
		return push_container(m, PICKLE_SET);
	target = m->depth;
	error = push_container(m, PICKLE_SET);
	return error ? error : add_batch(m, m->stack + target + 1, count);
}

static int op_memo(struct pickle_machine *m, unsigned size, bool get)
{
	uint64_t index;
	int error = take_size(m, size, &index);

	if (error)
		return error;
	return get ? memo_get(m, index) : memo_put(m, index);
}

static int op_dup(struct pickle_machine *m)
{
	uint64_t bits = 0;
	int error = top(m, &bits);

	return error ? error : push(m, bits);
}

static int op_pop(struct pickle_machine *m)
{
	uint64_t bits;

	return pop(m, &bits);
}

static int step(struct pickle_machine *m, unsigned char opcode)
{
	switch (opcode) {
	case 0x80: return op_proto(m);
	case 0x95: return op_skip(m, 8);		/* FRAME */
	case 0x8c: return op_text(m, TAG_STRING, 1);
	case 'X': return op_text(m, TAG_STRING, 4);
	case 0x8d: return op_text(m, TAG_STRING, 8);
	case 'C': return op_text(m, TAG_BYTES, 1);
	case 'B': return op_text(m, TAG_BYTES, 4);
	case 0x8e: return op_text(m, TAG_BYTES, 8);
	case 0x94: return memo_put(m, m->memo_count);	/* MEMOIZE */
	case 'q': return op_memo(m, 1, false);
	case 'r': return op_memo(m, 4, false);
	case 'h': return op_memo(m, 1, true);
	case 'j': return op_memo(m, 4, true);
	case 0x93: return op_stack_global(m);
	case 'c': return op_global(m);
	case 0x81: return op_call(m, PICKLE_OBJECT);	/* NEWOBJ */
	case 'R': return op_call(m, PICKLE_CALL);
	case 'b': return op_build(m);
	case '(': return push_mark(m);
	case ')': return op_tuple(m, 0);
	case 0x85: return op_tuple(m, 1);
	case 0x86: return op_tuple(m, 2);
	case 0x87: return op_tuple(m, 3);
	case 't': return op_tuple_to_mark(m);
	case '}': return push_container(m, PICKLE_DICT);
	case ']': return push_container(m, PICKLE_LIST);
	case 0x8f: return push_container(m, PICKLE_SET);
	case 's': return op_set_items(m, 2, true);
	case 'u': return op_set_items_to_mark(m, true);
	case 'a': return op_set_items(m, 1, false);
	case 'e': return op_set_items_to_mark(m, false);
	case 0x90: return op_set_items_to_mark(m, false); /* ADDITEMS */
	case 0x91: return op_frozenset(m);
	case 'N': return push(m, pickle_make(TAG_CONST, CONST_NONE));
	case 0x88: return push(m, pickle_make(TAG_CONST, CONST_TRUE));
	case 0x89: return push(m, pickle_make(TAG_CONST, CONST_FALSE));
	case 'K': return op_int(m, 1);
	case 'M': return op_int(m, 2);
	case 'J': return op_int(m, 4);
	case 0x8a: return op_long(m);
	case 'G': return op_float(m);
	case 'Q': return op_persid(m);
	case '0': return op_pop(m);
	case '2': return op_dup(m);
	default: return bad(m, "opcode that no checkpoint needs");
	}
}

static int run(struct pickle_machine *m)
{
	int error = 0;

	while (!error) {
		unsigned char opcode;

		m->opcode = m->position;
		if (m->position == m->pickle->size)
			return bad(m, "the pickle ends without STOP");
		opcode = m->pickle->data[m->position++];
		if (opcode == '.') {
			error = pop(m, &m->pickle->root.bits);
			if (!error && m->depth != 0)
				error = bad(m, "values left over at STOP");
			return error;
		}
		error = step(m, opcode);
		m->opcode_count++;
	}
	return error;
}

int pickle_init(struct pickle *pickle, const void *data, uint64_t size,
		struct fault *fault)
{
	struct pickle_machine m = { .pickle = pickle, .fault = fault };
	uint64_t limit;
	int error;

	*pickle = (struct pickle){ .data = data, .size = size };
	if (size > LIMIT_METADATA_SIZE)
		return fault_set(fault, -E2BIG, 0, "the pickle is too large");
	limit = (LIMIT_PICKLE_FACTOR * size + LIMIT_PICKLE_SLACK) /
		sizeof(uint64_t);
	pickle->memory_size = (limit + 2 * (size + 1)) * sizeof(uint64_t);
	pickle_reserve(pickle);
	if (!pickle->memory)
		return fault_set(fault, -ENOMEM, 0, "out of memory");
	pickle->arena = pickle->memory;
	pickle->arena_limit = limit;
	pickle->arena_count = 1;
	m.memo = pickle->arena + limit;
	m.stack = m.memo + size + 1;
	error = run(&m);
	if (error)
		pickle_finish(pickle);
	else
		pickle_trim(pickle, m.memo);
	return error;
}
