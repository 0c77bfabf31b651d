/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics against the plain definitions, element by element and in long
 * double. */
#include "support/test.h"
#include "support/dice.h"

#include "shard/values/convert.h"
#include "shard/values/statistics.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static struct dice dice;

/* ---- the model ----------------------------------------------------------- */

static double magnitude(enum dtype dtype, const unsigned char *element)
{
	double parts[2];

	assert_true(convert_to_double(dtype, element, parts, 1));
	return dtype_info(dtype)->kind == DTYPE_KIND_COMPLEX ?
	       hypot(parts[0], parts[1]) : parts[0];
}

static struct statistics model(enum dtype dtype, const unsigned char *data,
			       uint64_t count)
{
	size_t size = dtype_info(dtype)->size;
	struct statistics s = { .count = count };
	long double sum = 0;
	uint64_t finite = 0, i;

	for (i = 0; i < count; i++) {
		double x = magnitude(dtype, data + i * size);

		s.nans += isnan(x) ? 1 : 0;
		s.infs += isinf(x) ? 1 : 0;
		s.zeros += x == 0 ? 1 : 0;
		if (!isfinite(x))
			continue;
		s.min = finite == 0 || x < s.min ? x : s.min;
		s.max = finite == 0 || x > s.max ? x : s.max;
		sum += x;
		finite++;
	}
	s.mean = finite ? sum / finite : 0;
	for (i = 0; i < count; i++) {
		long double x = magnitude(dtype, data + i * size);

		if (isfinite((double)x))
			s.squares += (x - s.mean) * (x - s.mean);
	}
	return s;
}

/* Equal but for a part in @parts of @scale. */
static void check_near(const char *what, long double found,
		       long double expected, long double scale)
{
	if (!(fabsl(found - expected) <= scale * 1e-13L))
		fail_msg("%s is %.20Lg, not %.20Lg", what, found, expected);
}

static void check_same(enum dtype dtype, const struct statistics *found,
		       const struct statistics *expected)
{
	long double scale = fmaxl(fabsl(expected->min), fabsl(expected->max));

	assert_int_equal(found->count, expected->count);
	assert_int_equal(found->zeros, expected->zeros);
	assert_int_equal(found->nans, expected->nans);
	assert_int_equal(found->infs, expected->infs);
	if (statistics_finite(expected) == 0)
		return;
	/* Of what is not a number of the type itself. */
	if (dtype_info(dtype)->kind == DTYPE_KIND_COMPLEX) {
		check_near("min", found->min, expected->min, scale);
		check_near("max", found->max, expected->max, scale);
	} else {
		assert_true(found->min == expected->min);
		assert_true(found->max == expected->max);
	}
	check_near("mean", found->mean, expected->mean, scale);
	check_near("squares", found->squares, expected->squares,
		   expected->squares);
}

/* ---- inputs -------------------------------------------------------------- */

static uint64_t random_bits(enum dtype dtype, unsigned size)
{
	static const uint64_t specials[9][3] = {
		[1] = { 0x7c, 0x80, 0xff },
		[2] = { 0x7c00, 0xff80, 0xffff },
		[4] = { 0x7f800000, 0xff800000, 0x7fc00001 },
		[8] = { UINT64_C(0x7ff0) << 48, UINT64_C(0xfff0) << 48,
			UINT64_MAX },
	};
	uint64_t bits = dice_any(&dice);
	float single = (float)dice_below(&dice, 2000) / 16 - 50;
	double number = (double)dice_below(&dice, 2000) / 16 - 50;

	switch (dice_below(&dice, 20)) {
	case 0:
		return 0;
	case 1: /* NaN or infinity of some type of that size */
		return specials[size][bits % 3];
	case 2:
		return bits;
	default:
		break;
	}
	if (size == 4 && dtype != DTYPE_I32 && dtype != DTYPE_U32) {
		memcpy(&bits, &single, 4);
		return bits & UINT32_MAX;
	}
	if (size == 8 && dtype != DTYPE_I64 && dtype != DTYPE_U64) {
		memcpy(&bits, &number, 8);
		return bits;
	}
	/* Halves and bytes of any kind, but few of the largest exponents. */
	return bits & (size < 4 ? UINT64_C(0xbfbf) : UINT64_MAX);
}

static void fill(enum dtype dtype, unsigned char *data, uint64_t count)
{
	const struct dtype_info *info = dtype_info(dtype);
	uint64_t parts = info->size / info->component * count, i;

	for (i = 0; i < parts; i++) {
		uint64_t bits = random_bits(dtype, info->component);

		memcpy(data + i * info->component, &bits, info->component);
	}
}

static void check_count(enum dtype dtype, uint64_t count)
{
	size_t size = dtype_info(dtype)->size, shift = dice_below(&dice, 8);
	unsigned char *memory = malloc(count * size + shift + 1);
	unsigned char *data = memory + shift;
	struct statistics whole = STATISTICS_NONE, parts = STATISTICS_NONE;
	struct statistics expected;
	uint64_t i, part;

	assert_non_null(memory);
	fill(dtype, data, count);
	expected = model(dtype, data, count);
	statistics_add(&whole, dtype, data, count);
	check_same(dtype, &whole, &expected);
	for (i = 0; i < count; i += part) {
		struct statistics other = STATISTICS_NONE;

		part = 1 + dice_below(&dice, count - i);
		statistics_add(&other, dtype, data + i * size, part);
		statistics_merge(&parts, &other);
	}
	check_same(dtype, &parts, &expected);
	if (dtype == DTYPE_I64 || dtype == DTYPE_U64) {
		assert_true(parts.low == whole.low);
		assert_true(parts.high == whole.high);
	}
	free(memory);
}

static void every_type_and_count(void **state)
{
	unsigned type, i;

	(void)state;
	for (type = 0; type < DTYPE_COUNT; type++) {
		if (!convert_has_value(type))
			continue;
		for (i = 0; i < 40; i++)
			check_count(type, i);
		for (i = 1023; i < 1026; i++)
			check_count(type, i);
		for (i = 0; i < 20; i++)
			check_count(type, dice_below(&dice, 5000));
	}
}

/* Beyond 65536 elements halves are counted by patterns. */
static void many_elements(void **state)
{
	static const enum dtype types[] = {
		DTYPE_BF16, DTYPE_F16, DTYPE_I16, DTYPE_U16, DTYPE_F32,
		DTYPE_U8, DTYPE_C32,
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(types); i++) {
		check_count(types[i], 65535);
		check_count(types[i], 65536);
		check_count(types[i], 100001);
		check_count(types[i], 65536 + dice_below(&dice, 100000));
	}
}

/* ---- what is easily wrong ------------------------------------------------ */

static struct statistics of_doubles(const double *x, uint64_t count)
{
	struct statistics s = STATISTICS_NONE;

	statistics_add(&s, DTYPE_F64, x, count);
	return s;
}

static void nothing_at_all(void **state)
{
	static const double nans[] = { NAN, INFINITY, NAN, -INFINITY, NAN };
	struct statistics s = STATISTICS_NONE;

	(void)state;
	statistics_add(&s, DTYPE_F32, NULL, 0);
	assert_int_equal(s.count, 0);
	assert_true(statistics_deviation(&s) == 0);
	s = of_doubles(nans, 5);
	assert_int_equal(s.nans, 3);
	assert_int_equal(s.infs, 2);
	assert_int_equal(statistics_finite(&s), 0);
	assert_true(statistics_deviation(&s) == 0);
}

/* Equal numbers have no deviation, and their mean is one of them. */
static void equal_numbers(void **state)
{
	enum { COUNT = 70001 };
	static unsigned char data[COUNT * 16];
	unsigned type, i;

	(void)state;
	for (type = 0; type < DTYPE_COUNT; type++) {
		size_t size = dtype_info(type)->size;
		struct statistics s = STATISTICS_NONE;

		if (!convert_has_value(type))
			continue;
		fill(type, data, 1);
		while (!isfinite(magnitude(type, data)))
			fill(type, data, 1);
		for (i = 1; i < COUNT; i++)
			memcpy(data + i * size, data, size);
		statistics_add(&s, type, data, COUNT);
		assert_true(s.min == s.max && (double)s.mean == s.min);
		assert_true(statistics_deviation(&s) == 0);
		assert_int_equal(s.zeros, s.min == 0 ? COUNT : 0);
	}
}

static void integers_are_exact(void **state)
{
	static const int64_t a[] = { 5, INT64_MIN + 1, -1, INT64_MAX - 1, 0 };
	static const uint64_t b[] = { UINT64_MAX - 1, 7, UINT64_MAX - 2 };
	static const int64_t near[] = {
		(INT64_C(1) << 60) + 1, (INT64_C(1) << 60) + 3,
		(INT64_C(1) << 60) + 2,
	};
	struct statistics s = STATISTICS_NONE;

	(void)state;
	statistics_add(&s, DTYPE_I64, a, 5);
	assert_true((int64_t)(s.low ^ UINT64_C(1) << 63) == INT64_MIN + 1);
	assert_true((int64_t)(s.high ^ UINT64_C(1) << 63) == INT64_MAX - 1);
	s = STATISTICS_NONE;
	statistics_add(&s, DTYPE_U64, b, 3);
	assert_true(s.low == 7 && s.high == UINT64_MAX - 1);
	s = STATISTICS_NONE;
	statistics_add(&s, DTYPE_I64, near, 3);
	assert_true((int64_t)(s.low ^ UINT64_C(1) << 63) == near[0]);
	assert_true((int64_t)(s.high ^ UINT64_C(1) << 63) == near[1]);
}

/* What squares would overflow of, or vanish. */
static void extreme_numbers(void **state)
{
	static const double scales[] = {
		1e300, 1e-300, 0x1p1023, 0x1p-1074, 1e140, 1e-140, 1e155,
	};
	static const double shape[] = { 1, 0, 1, 1, 0, 0, 0, 1, 1, 0 };
	double x[10];
	unsigned i, k;

	(void)state;
	for (k = 0; k < COUNT_OF(scales); k++) {
		struct statistics s;

		for (i = 0; i < 10; i++)
			x[i] = shape[i] * scales[k];
		s = of_doubles(x, 10);
		check_near("mean", s.mean, scales[k] * 0.5L, scales[k]);
		check_near("deviation", sqrtl(s.squares / 10),
			   scales[k] * 0.5L, scales[k]);
		assert_int_equal(s.zeros, 5);
	}
	/* Their sum overflows, their mean does not. */
	for (i = 0; i < 10; i++)
		x[i] = i % 2 ? DBL_MAX : -DBL_MAX;
	x[0] = DBL_MAX;
	assert_true(of_doubles(x, 10).infs == 0);
	check_near("mean", of_doubles(x, 10).mean, DBL_MAX * 0.2L, DBL_MAX);
	check_near("deviation", statistics_deviation(
			   &(struct statistics){ .count = 1, .squares = 4 }),
		   2, 1);
}

/* A small deviation far from zero. */
static void far_from_zero(void **state)
{
	enum { COUNT = 100000 };
	double *x = malloc(COUNT * sizeof(*x));
	struct statistics s;
	unsigned i;

	(void)state;
	assert_non_null(x);
	for (i = 0; i < COUNT; i++)
		x[i] = 1e9 + i % 2;
	s = of_doubles(x, COUNT);
	check_near("mean", s.mean, 1e9L + 0.5L, 1);
	check_near("deviation", statistics_deviation(&s), 0.5, 1);
	free(x);
}

static void complex_elements(void **state)
{
	static const float x[] = { 3, 4, 0, 0, -6, 8, INFINITY, NAN, NAN, 1,
				   1, INFINITY };
	static const double y[] = { 3e300, 4e300, 3e-300, -4e-300 };
	struct statistics s = STATISTICS_NONE;

	(void)state;
	statistics_add(&s, DTYPE_C64, x, 6);
	assert_int_equal(s.count, 6);
	assert_int_equal(s.zeros, 1);
	assert_int_equal(s.nans, 1);
	assert_int_equal(s.infs, 2);
	assert_true(s.min == 0 && s.max == 10 && s.mean == 5);
	s = STATISTICS_NONE;
	statistics_add(&s, DTYPE_C128, y, 2);
	check_near("max", s.max, 5e300L, 5e300L);
	check_near("min", s.min, 5e-300L, 5e-300L);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_and_count),
		cmocka_unit_test(many_elements),
		cmocka_unit_test(nothing_at_all),
		cmocka_unit_test(equal_numbers),
		cmocka_unit_test(integers_are_exact),
		cmocka_unit_test(extreme_numbers),
		cmocka_unit_test(far_from_zero),
		cmocka_unit_test(complex_elements),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("statistics", tests, NULL, NULL);
}
