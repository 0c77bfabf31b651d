/* SPDX-License-Identifier: Apache-2.0 */
/* bytes.h, and the small carriers of messages: fault and notes. */
#include "support/test.h"

#include "shard/base/bytes.h"
#include "shard/base/fault.h"
#include "shard/base/notes.h"

#include <errno.h>
#include <string.h>

static void numbers_at_any_alignment(void **state)
{
	unsigned char data[16] = { 0 };
	unsigned shift;

	(void)state;
	for (shift = 0; shift < 8; shift++) {
		unsigned char *p = data + shift;

		memcpy(p, "\x01\x02\x83\x04\x05\x06\x07\xf8", 8);
		assert_int_equal(bytes_u16le(p), 0x0201);
		assert_int_equal(bytes_u32le(p), 0x04830201);
		assert_true(bytes_u64le(p) == UINT64_C(0xf807060504830201));
		assert_true(bytes_u64be(p) == UINT64_C(0x01028304050607f8));
	}
}

static void high_bits_are_not_signs(void **state)
{
	static const unsigned char ones[8] = { 255, 255, 255, 255,
					       255, 255, 255, 255 };

	(void)state;
	assert_true(bytes_u16le(ones) == UINT16_MAX);
	assert_true(bytes_u32le(ones) == UINT32_MAX);
	assert_true(bytes_u64le(ones) == UINT64_MAX);
}

static void fault_keeps_what_it_is_told(void **state)
{
	struct fault fault;

	(void)state;
	memset(&fault, 0xaa, sizeof(fault));
	assert_int_equal(fault_set(&fault, -EIO, UINT64_C(1) << 40, "torn"),
			 -EIO);
	assert_int_equal(fault.error, -EIO);
	assert_true(fault.offset == UINT64_C(1) << 40);
	assert_string_equal(fault.reason, "torn");
	assert_string_equal(fault.detail, "");
	assert_int_equal(fault_set(NULL, -E2BIG, 1, "no place for it"),
			 -E2BIG);
}

static void fault_detail_is_printable_and_cut(void **state)
{
	struct fault fault;
	char name[400];

	(void)state;
	fault_set_detail(&fault, -EIO, 0, "x",
			 (struct fault_detail){ "a\n\0\x1b\xff" "b", 6 });
	assert_string_equal(fault.detail, "a????b");
	memset(name, 'n', sizeof(name));
	fault_set_detail(&fault, -EIO, 0, "x",
			 (struct fault_detail){ name, sizeof(name) });
	assert_int_equal(strlen(fault.detail), sizeof(fault.detail) - 1);
	fault_set_detail(&fault, -EIO, 0, "x",
			 (struct fault_detail){ name, 3 });
	assert_string_equal(fault.detail, "nnn");
}

static void notes_are_printable_and_bounded(void **state)
{
	static struct notes notes;
	char name[600];
	unsigned i;

	(void)state;
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	notes_add(&notes, "%s: %d", "a\nb\x7f", 7);
	assert_string_equal(notes.line[0], "a?b?: 7");
	notes_add(&notes, "%s", name);
	assert_int_equal(strlen(notes.line[1]), sizeof(notes.line[1]) - 1);
	for (i = 2; i < LIMIT_NOTES + 5; i++)
		notes_add(&notes, "%u", i);
	assert_int_equal(notes.count, LIMIT_NOTES);
	assert_int_equal(notes.dropped, 5);
	assert_string_equal(notes.line[LIMIT_NOTES - 1], "31");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_at_any_alignment),
		cmocka_unit_test(high_bits_are_not_signs),
		cmocka_unit_test(fault_keeps_what_it_is_told),
		cmocka_unit_test(fault_detail_is_printable_and_cut),
		cmocka_unit_test(notes_are_printable_and_bounded),
	};

	return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
