/* SPDX-License-Identifier: Apache-2.0 */
/* What the reader of pickles refuses, and at which byte. */
#include "support/test.h"
#include "support/put.h"
#include "support/refusal.h"

#include "shard/base/limits.h"
#include "shard/dcp/pickle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
	const char *data;
	size_t size;
	uint64_t offset;
	const char *reason;
};
#define ROW(literal, offset, reason) \
	{ literal, sizeof(literal) - 1, offset, reason }

static const struct row rows[] = {
	ROW("", 0, "without STOP"),
	ROW("N", 1, "without STOP"),
	ROW(".", 0, "underflow"),
	ROW("NN.", 2, "left over"),
	ROW("(N.", 2, "left over"),
	ROW("N(.", 2, "underflow"),
	ROW("\x80\1N.", 0, "protocol"),
	ROW("\x80\6N.", 0, "protocol"),
	ROW("N\x80\1.", 1, "protocol"),
	/* Opcodes cut short. */
	ROW("\x80", 0, "inside an opcode"),
	ROW("N\x95\0\0\0\0\0\0\0", 1, "inside an opcode"),
	ROW("K", 0, "inside an opcode"),
	ROW("M\1", 0, "inside an opcode"),
	ROW("J\1\2\3", 0, "inside an opcode"),
	ROW("\x8a", 0, "inside an opcode"),
	ROW("\x8a\2\1", 0, "inside an opcode"),
	ROW("G\1\2\3\4\5\6\7", 0, "inside an opcode"),
	ROW("q", 0, "inside an opcode"),
	ROW("r\0\0\0", 0, "inside an opcode"),
	ROW("h", 0, "inside an opcode"),
	ROW("\x8c", 0, "inside an opcode"),
	ROW("\x8c\4abc", 0, "inside an opcode"),
	ROW("X\4\0\0\0abc", 0, "inside an opcode"),
	ROW("X\xff\xff\xff\xff" "abc.", 0, "inside an opcode"),
	ROW("\x8d\xff\xff\xff\xff\xff\xff\xff\xff" "abc.", 0,
	    "inside an opcode"),
	ROW("C\4abc", 0, "inside an opcode"),
	ROW("B\4\0\0\0abc", 0, "inside an opcode"),
	ROW("\x8e\xf7\xff\xff\xff\xff\xff\xff\xff" "abc.", 0,
	    "inside an opcode"),
	ROW("c", 0, "end of line"),
	ROW("ctorch", 0, "end of line"),
	ROW("ctorch\nSize", 0, "end of line"),
	/* The stack and its marks. */
	ROW("t.", 0, "no mark"),
	ROW("u.", 0, "no mark"),
	ROW("}e.", 1, "no mark"),
	ROW("]\x90.", 1, "no mark"),
	ROW("\x91.", 0, "no mark"),
	ROW("N(tt.", 3, "no mark"),
	ROW("\x85.", 0, "underflow"),
	ROW("K\1\x86.", 2, "underflow"),
	ROW("K\1K\2\x87.", 4, "underflow"),
	ROW("K\1(\x85.", 3, "underflow"),
	ROW("K\1(\x94.", 3, "underflow"),
	ROW("K\1(0.", 3, "underflow"),
	ROW("K\1(2.", 3, "underflow"),
	ROW("0.", 0, "underflow"),
	ROW("2.", 0, "underflow"),
	ROW("\x94.", 0, "underflow"),
	ROW("q\0.", 0, "underflow"),
	ROW("a.", 0, "underflow"),
	ROW("]a.", 1, "underflow"),
	ROW("(Ne.", 2, "underflow"),
	ROW("s.", 0, "underflow"),
	ROW("NNs.", 2, "underflow"),
	ROW("(NNu.", 3, "underflow"),
	ROW("R.", 0, "underflow"),
	ROW(")R.", 1, "underflow"),
	ROW("\x81.", 0, "underflow"),
	ROW("b.", 0, "underflow"),
	ROW("Nb.", 1, "underflow"),
	ROW("Q.", 0, "underflow"),
	ROW("\x93.", 0, "underflow"),
	ROW("\x8c\1a\x93.", 3, "underflow"),
	/* The memo. */
	ROW("h\0.", 0, "never set"),
	ROW("Nq\1h\0.", 3, "never set"),
	ROW("j\xff\xff\xff\xff.", 0, "never set"),
	ROW("Nq\2.", 1, "beyond the number of opcodes"),
	ROW("Nr\xff\xff\xff\xff.", 1, "beyond the number of opcodes"),
	/* Kinds that do not go together. */
	ROW("N\x8c\1a\x93.", 4, "not a string"),
	ROW("\x8c\1aN\x93.", 4, "not a string"),
	ROW("C\1a\x8c\1a\x93.", 6, "not a string"),
	ROW("ca\nb\nNR.", 6, "not a tuple"),
	ROW("ca\nb\n]\x81.", 6, "not a tuple"),
	ROW("NNb.", 2, "not an object"),
	ROW("]Nb.", 2, "not an object"),
	ROW("N\x85QNb.", 4, "not an object"),
	ROW("ca\nb\n)\x81NbNb.", 10, "second state"),
	ROW("NNa.", 2, "not a container"),
	ROW("N(NNu.", 4, "not a container"),
	ROW(")Na.", 2, "not a container"),
	ROW("N\x85QNa.", 4, "not a container"),
	ROW("]NNs.", 3, "wrong kind"),
	ROW("](NNu.", 4, "wrong kind"),
	ROW("}Na.", 2, "wrong kind"),
	ROW("}(Ne.", 3, "wrong kind"),
	ROW("}(N\x90.", 3, "wrong kind"),
	ROW("\x8fNNs.", 3, "wrong kind"),
	ROW("}(Nu.", 3, "key without a value"),
	ROW("}(NNNu.", 5, "key without a value"),
};

/* In memory of exactly its size. */
static int parse(const void *data, size_t size, struct fault *fault)
{
	unsigned char *copy = malloc(size ? size : 1);
	struct pickle pickle;
	int error;

	assert_non_null(copy);
	memcpy(copy, data, size);
	memset(fault, 0, sizeof(*fault));
	error = pickle_init(&pickle, size ? copy : copy + 1, size, fault);
	if (!error)
		pickle_finish(&pickle);
	free(copy);
	return error;
}

static void refusals(void **state)
{
	struct fault fault;
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(rows); i++) {
		const struct row *row = &rows[i];
		int error = parse(row->data, row->size, &fault);
		char what[16];

		snprintf(what, sizeof(what), "row %u", i);
		assert_int_equal(error, -EBADMSG);
		refusal_check(what, &fault, -EBADMSG, row->offset,
			      row->reason);
	}
}

/* Those of formats.md, section 1.3, and no others. */
static void every_other_opcode_is_refused(void **state)
{
	static const char known[] =
		"\x80\x95\x8c" "X\x8d\x94qrhj\x93" "c\x81Rb()\x85\x86\x87t}su]"
		"aeN\x88\x89KMJ\x8aGQCB\x8e\x8f\x90\x91" "02.";
	unsigned opcode;

	(void)state;
	for (opcode = 0; opcode < 256; opcode++) {
		const char data[] = { 'N', (char)opcode, '.' };
		struct fault fault;
		int error = parse(data, sizeof(data), &fault);

		if (memchr(known, (int)opcode, sizeof(known) - 1)) {
			assert_true(!error ||
				    !strstr(fault.reason, "no checkpoint"));
			continue;
		}
		assert_int_equal(error, -EBADMSG);
		refusal_check("opcode", &fault, -EBADMSG, 1,
			      "no checkpoint needs");
	}
}

static void every_cut_is_refused(void **state)
{
	static const char data[] =
		"\x80\4\x95\1\0\0\0\0\0\0\0}\x94(\x8c\1aK\1X\1\0\0\0bM\1\2"
		"\x8c\1cJ\1\2\3\4\x8c\1d\x8a\3\1\2\3\x8c\1eG\0\0\0\0\0\0\0\0"
		"\x8c\1f" "ca\nB\n)\x81}b\x8c\1gh\0u.";
	struct fault fault;
	size_t size;

	(void)state;
	assert_int_equal(parse(data, sizeof(data) - 1, &fault), 0);
	for (size = 0; size < sizeof(data) - 1; size++) {
		assert_int_equal(parse(data, size, &fault), -EBADMSG);
		assert_true(fault.offset <= size);
	}
}

static void fault_is_optional(void **state)
{
	struct pickle pickle;

	(void)state;
	assert_int_equal(pickle_init(&pickle, "t.", 2, NULL), -EBADMSG);
}

static void too_large_a_pickle(void **state)
{
	struct pickle pickle;
	struct fault fault;

	(void)state;
	assert_int_equal(pickle_init(&pickle, "N.", LIMIT_METADATA_SIZE + 1,
				     &fault), -E2BIG);
	refusal_check("size", &fault, -E2BIG, 0, "too large");
}

static void long_global_is_refused(void **state)
{
	struct array out = { .data = NULL };
	struct fault fault;
	size_t size;

	(void)state;
	for (size = LIMIT_PATH_SIZE; size <= LIMIT_PATH_SIZE + 1; size++) {
		out.size = 0;
		PUT(&out, "c");
		memset(array_add(&out, size), 'm', size);
		PUT(&out, "\nn\n.");
		assert_int_equal(parse(out.data, out.size, &fault),
				 size == LIMIT_PATH_SIZE ? 0 : -EBADMSG);
	}
	array_finish(&out);
}

/* @count times @unit, which leaves one value, in a list. */
static int parse_dense(const char *unit, size_t unit_size, size_t count,
		       struct fault *fault)
{
	struct array out = { .data = NULL };
	size_t i;
	int error;

	PUT(&out, "](");
	for (i = 0; i < count; i++)
		put_bytes(&out, unit, unit_size);
	PUT(&out, "e.");
	error = parse(out.data, out.size, fault);
	array_finish(&out);
	return error;
}

static void memory_is_bounded_by_the_input(void **state)
{
	struct fault fault;

	(void)state;
	/* Small ones may be as dense as they like. */
	assert_int_equal(parse_dense("]", 1, 400, &fault), 0);
	/* 24 bytes of memory for each byte. */
	assert_int_equal(parse_dense("]", 1, 100000, &fault), -E2BIG);
	assert_string_equal(fault.reason, "the pickle needs more memory than "
					  "its size justifies");
	/* 40 and more for 3. */
	assert_int_equal(parse_dense("))R", 3, 100000, &fault), -E2BIG);
	/* As dense as real ones. */
	assert_int_equal(parse_dense("\x8c\1a\x94\x85", 5, 100000, &fault), 0);
}

/* Deep nesting is only data: nothing walks it. */
static void depth_costs_no_stack(void **state)
{
	struct array out = { .data = NULL };
	struct fault fault;
	unsigned i;

	(void)state;
	for (i = 0; i < 1000000; i++)
		PUT(&out, "N\x85""0");
	PUT(&out, "N");
	for (i = 0; i < 500000; i++)
		PUT(&out, "\x85" "q\0");
	PUT(&out, ".");
	assert_int_equal(parse(out.data, out.size, &fault), 0);
	out.size = 0;
	for (i = 0; i < 500000; i++)
		PUT(&out, "(");
	PUT(&out, "N");
	for (i = 0; i < 500000; i++)
		PUT(&out, "t");
	PUT(&out, ".");
	parse(out.data, out.size, &fault);
	array_finish(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refusals),
		cmocka_unit_test(every_other_opcode_is_refused),
		cmocka_unit_test(every_cut_is_refused),
		cmocka_unit_test(fault_is_optional),
		cmocka_unit_test(too_large_a_pickle),
		cmocka_unit_test(long_global_is_refused),
		cmocka_unit_test(memory_is_bounded_by_the_input),
		cmocka_unit_test(depth_costs_no_stack),
	};

	return cmocka_run_group_tests_name("pickle_limits", tests, NULL, NULL);
}
