/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/slice.h"

/* Digits without leading zeros, one spelling for one number. */
static bool parse_number(const char **p, const char *end, uint64_t *ret)
{
	const char *start = *p;
	uint64_t number = 0;

	while (*p < end && **p >= '0' && **p <= '9') {
		if (__builtin_mul_overflow(number, 10, &number) ||
		    __builtin_add_overflow(number, **p - '0', &number))
			return false;
		(*p)++;
	}
	if (*p == start || (*start == '0' && *p - start > 1))
		return false;
	*ret = number;
	return true;
}

static bool at_digit(const char *p, const char *end)
{
	return p < end && *p >= '0' && *p <= '9';
}

static bool parse_axis(const char **p, const char *end, uint64_t whole,
		       uint64_t *ret_offset, uint64_t *ret_size)
{
	uint64_t first = 0, last = whole;
	bool has_first = at_digit(*p, end);

	if (has_first && !parse_number(p, end, &first))
		return false;
	if (*p < end && **p == ':') {
		(*p)++;
		if (at_digit(*p, end) && !parse_number(p, end, &last))
			return false;
	} else if (has_first) {
		if (first >= whole)
			return false;
		last = first + 1;
	} else {
		return false;
	}
	if (first > last || last > whole)
		return false;
	*ret_offset = first;
	*ret_size = last - first;
	return true;
}

bool slice_parse(const char *text, size_t size, const struct box *whole,
		 struct box *ret_box)
{
	const char *p = text + 1, *end = text + size - 1;
	struct box box = *whole;
	unsigned axis;

	if (size < 3 || text[0] != '[' || *end != ']')
		return false;
	for (axis = 0; axis < whole->ndim; axis++) {
		if (!parse_axis(&p, end, whole->size[axis], &box.offset[axis],
				&box.size[axis]))
			return false;
		if (p == end) {
			*ret_box = box;
			return true;
		}
		if (*p++ != ',')
			return false;
	}
	return false;
}
