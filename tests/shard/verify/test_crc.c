/* SPDX-License-Identifier: Apache-2.0 */
/* Checksums, against the definition: a remainder, a bit at a time. */
#include "support/test.h"
#include "support/dice.h"

#include "shard/verify/crc.h"

#include <stdlib.h>
#include <string.h>

enum { SIZE = 10000 };

static uint32_t remainder_of(const unsigned char *p, size_t size)
{
	uint32_t crc = UINT32_MAX;
	size_t i;
	unsigned bit;

	for (i = 0; i < size; i++) {
		crc ^= p[i];
		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^
			      (crc & 1 ? UINT32_C(0xedb88320) : 0);
	}
	return ~crc;
}

static unsigned char *make_bytes(struct dice *dice)
{
	unsigned char *bytes = malloc(SIZE);
	unsigned i;

	assert_non_null(bytes);
	for (i = 0; i < SIZE; i++)
		bytes[i] = (unsigned char)dice_any(dice);
	return bytes;
}

static void known_values(void **state)
{
	(void)state;
	assert_int_equal(crc_add(0, "", 0), 0);
	assert_int_equal(crc_add(0, "123456789", 9), 0xcbf43926);
}

/* All sizes around those at which other code takes over. */
static void every_size(void **state)
{
	struct dice dice = dice_make();
	unsigned char *bytes = make_bytes(&dice), *copy;
	size_t size;

	(void)state;
	for (size = 0; size < 2600; size++) {
		copy = malloc(size + 1);
		assert_non_null(copy);
		memcpy(copy, bytes, size);
		assert_int_equal(crc_add(0, copy, size),
				 remainder_of(bytes, size));
		free(copy);
	}
	free(bytes);
}

static void piece_by_piece(void **state)
{
	struct dice dice = dice_make();
	unsigned char *bytes = make_bytes(&dice);
	unsigned i;

	(void)state;
	for (i = 0; i < 500; i++) {
		size_t begin = dice_below(&dice, 64);
		size_t size = dice_below(&dice, SIZE - begin);
		size_t cut = dice_below(&dice, size + 1);
		const unsigned char *p = bytes + begin;
		uint32_t first = crc_add(0, p, cut);
		uint32_t second = crc_add(0, p + cut, size - cut);
		uint32_t all = remainder_of(p, size);

		assert_int_equal(crc_add(first, p + cut, size - cut), all);
		assert_int_equal(crc_join(first, second, size - cut), all);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_values),
		cmocka_unit_test(every_size),
		cmocka_unit_test(piece_by_piece),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
