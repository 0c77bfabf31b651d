/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slices, against a second parser of another make: it writes out every
 * spelling that a part may have and compares.
 *
 * Input: the number of axes, a byte for the size of each, and the text.
 */
#include "tests/fuzz/fuzz.h"

#include "shard/base/slice.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { AXES_MAX = 6 };

/* Small sizes, and a few at the edges of what numbers can hold. */
static uint64_t size_from_byte(uint8_t byte)
{
	static const uint64_t edges[] = {
		UINT32_MAX, (uint64_t)UINT32_MAX + 1, INT64_MAX,
		UINT64_MAX / 10, UINT64_MAX - 1, UINT64_MAX,
	};

	return byte < 250 ? byte : edges[byte - 250];
}

/* Does @part, a C string, spell [@first, @last) of @whole? */
static bool spells(const char *part, uint64_t whole, uint64_t first,
		   uint64_t last)
{
	char forms[5][64] = { "" };
	unsigned i;

	sprintf(forms[0], "%" PRIu64 ":%" PRIu64, first, last);
	if (last == whole)
		sprintf(forms[1], "%" PRIu64 ":", first);
	if (last - first == 1)
		sprintf(forms[2], "%" PRIu64, first);
	if (first == 0)
		sprintf(forms[3], ":%" PRIu64, last);
	if (first == 0 && last == whole)
		strcpy(forms[4], ":");
	for (i = 0; i < 5; i++)
		if (forms[i][0] && strcmp(forms[i], part) == 0)
			return true;
	return false;
}

/* What @part may mean, from the numbers in it; whether it does is asked of
 * spells. */
static bool guess(const char *part, uint64_t whole, uint64_t *ret_offset,
		  uint64_t *ret_size)
{
	const char *colon = strchr(part, ':');
	uint64_t first = 0, last = whole;

	errno = 0;
	if (colon != part)
		first = strtoull(part, NULL, 10);
	if (!colon)
		last = first + 1;
	else if (colon[1])
		last = strtoull(colon + 1, NULL, 10);
	if (errno || first > last || last > whole || (!colon && !last))
		return false;
	*ret_offset = first;
	*ret_size = last - first;
	return spells(part, whole, first, last);
}

static bool parse(const char *text, size_t size, const struct box *whole,
		  struct box *ret)
{
	char copy[256], *part = copy, *next;
	unsigned axis;

	if (size < 3 || size > sizeof(copy) || text[0] != '[' ||
	    text[size - 1] != ']' || memchr(text, 0, size))
		return false;
	memcpy(copy, text + 1, size - 2);
	copy[size - 2] = '\0';
	*ret = *whole;
	for (axis = 0; part; axis++, part = next) {
		next = strchr(part, ',');
		if (next)
			*next++ = '\0';
		if (axis == whole->ndim ||
		    !guess(part, whole->size[axis], &ret->offset[axis],
			   &ret->size[axis]))
			return false;
	}
	return true;
}

static void check(const char *text, size_t size, const struct box *whole)
{
	struct box box, expected;
	bool is_slice = slice_parse(text, size, whole, &box);
	unsigned i;

	if (size > 256)
		return;
	CHECK(is_slice == parse(text, size, whole, &expected));
	if (!is_slice)
		return;
	CHECK(box.ndim == whole->ndim);
	for (i = 0; i < box.ndim; i++) {
		CHECK(box.offset[i] == expected.offset[i]);
		CHECK(box.size[i] == expected.size[i]);
		CHECK(box.offset[i] <= whole->size[i]);
		CHECK(box.size[i] <= whole->size[i] - box.offset[i]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct box whole = { .ndim = 0 };
	unsigned i;

	if (size < 1 + AXES_MAX)
		return 0;
	whole.ndim = data[0] % (AXES_MAX + 1);
	for (i = 0; i < whole.ndim; i++)
		whole.size[i] = size_from_byte(data[1 + i]);
	check((const char *)data + 1 + AXES_MAX, size - 1 - AXES_MAX, &whole);
	return 0;
}
