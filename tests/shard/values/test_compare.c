/* SPDX-License-Identifier: Apache-2.0 */
/* Comparisons against the plain definitions, element by element. */
#include "support/test.h"
#include "support/dice.h"

#include "shard/values/compare.h"
#include "shard/values/convert.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static struct dice dice;

/* ---- the model ----------------------------------------------------------- */

struct number {
	double re, im;
	uint64_t bits;		/* of a 64-bit integer */
};

static struct number number_at(enum dtype dtype, const unsigned char *data,
			       uint64_t index)
{
	size_t size = dtype_info(dtype)->size;
	struct number n = { 0, 0, 0 };
	double parts[2] = { 0, 0 };

	assert_true(convert_to_double(dtype, data + index * size, parts, 1));
	n.re = parts[0];
	n.im = parts[1];
	if (size == 8)
		memcpy(&n.bits, data + index * size, 8);
	return n;
}

static double apart(double x, double y)
{
	return isinf(x) && x == y ? 0 : x - y;
}

static double distance_of(enum dtype a, enum dtype b, struct number x,
			  struct number y)
{
	__int128 wide = 0;

	if (a == b && a == DTYPE_I64)
		wide = (__int128)(int64_t)x.bits - (int64_t)y.bits;
	else if (a == b && a == DTYPE_U64)
		wide = (__int128)x.bits - y.bits;
	else
		return hypot(apart(x.re, y.re), apart(x.im, y.im));
	return (double)(wide < 0 ? -wide : wide);
}

static struct comparison model(const struct compare_side *a,
			       const struct compare_side *b, uint64_t count)
{
	struct comparison c = COMPARISON_NONE;
	size_t size = dtype_info(a->dtype)->size;
	uint64_t i;

	c.count = count;
	for (i = 0; i < count; i++) {
		struct number x = number_at(a->dtype, a->data, i);
		struct number y = number_at(b->dtype, b->data, i);
		bool left = isnan(x.re) || isnan(x.im);
		bool right = isnan(y.re) || isnan(y.im);
		bool differs = !((x.re == y.re ||
				  (isnan(x.re) && isnan(y.re))) &&
				 (x.im == y.im ||
				  (isnan(x.im) && isnan(y.im))));
		double distance;

		if (a->dtype == b->dtype)
			differs = memcmp((const char *)a->data + i * size,
					 (const char *)b->data + i * size,
					 size) != 0;
		if (differs && c.first == COMPARE_NONE)
			c.first = i;
		c.left_nans += left;
		c.right_nans += right;
		c.left_out += left || right;
		if (left || right)
			continue;
		distance = distance_of(a->dtype, b->dtype, x, y);
		if (isinf(distance))
			c.infinite++;
		else
			c.distance += (long double)distance * distance;
		if (distance > c.most)
			c.most = distance;
		if (isfinite(x.re) && isfinite(x.im))
			c.norm += (long double)x.re * x.re +
				  (long double)x.im * x.im;
	}
	return c;
}

static void check_near(const char *what, long double found,
		       long double expected)
{
	if (found == expected)
		return;
	if (!(fabsl(found - expected) <= expected * 1e-13L))
		fail_msg("%s is %.20Lg, not %.20Lg", what, found, expected);
}

static void check_same(const struct comparison *found,
		       const struct comparison *expected)
{
	assert_int_equal(found->count, expected->count);
	assert_true(found->first == expected->first);
	assert_int_equal(found->left_nans, expected->left_nans);
	assert_int_equal(found->right_nans, expected->right_nans);
	assert_int_equal(found->left_out, expected->left_out);
	assert_int_equal(found->infinite, expected->infinite);
	check_near("most", found->most, expected->most);
	check_near("distance", found->distance, expected->distance);
	check_near("norm", found->norm, expected->norm);
}

/* ---- inputs -------------------------------------------------------------- */

static uint64_t random_part(enum dtype dtype, unsigned size)
{
	static const uint64_t specials[9][4] = {
		[1] = { 0x7c, 0x80, 0xff, 0 },
		[2] = { 0x7c00, 0xff80, 0xffff, 0x8000 },
		[4] = { 0x7f800000, 0xff800000, 0x7fc00001, 0x80000000 },
		[8] = { UINT64_C(0x7ff0) << 48, UINT64_C(0xfff0) << 48,
			UINT64_MAX, UINT64_C(1) << 63 },
	};
	uint64_t bits = dice_any(&dice);
	float single = (float)dice_below(&dice, 2000) / 16 - 50;
	double number = (double)dice_below(&dice, 2000) / 16 - 50;

	if (dice_chance(&dice, 3))
		return specials[size][bits % 4];
	if (dice_chance(&dice, 1))
		return bits;
	if (size == 4 && dtype != DTYPE_I32 && dtype != DTYPE_U32) {
		memcpy(&bits, &single, 4);
		return bits & UINT32_MAX;
	}
	if (size == 8 && dtype != DTYPE_I64 && dtype != DTYPE_U64) {
		memcpy(&bits, &number, 8);
		return bits;
	}
	return bits & (size < 4 ? UINT64_C(0xbf3f) : UINT64_MAX);
}

/* What it holds is mostly that of @other, when that is given. */
static unsigned char *make_side(enum dtype dtype, uint64_t count,
				const unsigned char *other)
{
	const struct dtype_info *info = dtype_info(dtype);
	unsigned width = info->component;
	unsigned char *data = malloc(count * info->size + 1);
	bool plain = dice_chance(&dice, 40);
	uint64_t i;

	assert_non_null(data);
	for (i = 0; i < count * info->size / width; i++) {
		uint64_t bits = random_part(dtype, width);

		if (plain)
			bits &= UINT64_C(0x3f) << (8 * width - 8) | 0x3f;
		if (other && !dice_chance(&dice, 2))
			memcpy(data + i * width, other + i * width, width);
		else
			memcpy(data + i * width, &bits, width);
	}
	return data;
}

static void check_pair(enum dtype a, enum dtype b, uint64_t count)
{
	unsigned char *x = make_side(a, count, NULL);
	unsigned char *y = make_side(b, count, a == b ? x : NULL);
	struct compare_side left = { a, x }, right = { b, y };
	struct comparison expected = model(&left, &right, count);
	struct comparison whole = COMPARISON_NONE, parts = COMPARISON_NONE;
	uint64_t i, part;

	compare_add(&whole, &left, &right, count);
	check_same(&whole, &expected);
	for (i = 0; i < count; i += part) {
		struct comparison other = COMPARISON_NONE;

		part = 1 + dice_below(&dice, count - i);
		left.data = x + i * dtype_info(a)->size;
		right.data = y + i * dtype_info(b)->size;
		compare_add(&other, &left, &right, part);
		compare_merge(&parts, &other);
	}
	check_same(&parts, &expected);
	free(x);
	free(y);
}

static void every_pair_of_types(void **state)
{
	unsigned a, b, i;

	(void)state;
	for (a = 0; a < DTYPE_COUNT; a++)
		for (b = 0; b < DTYPE_COUNT; b++) {
			if (!convert_has_value(a) || !convert_has_value(b))
				continue;
			for (i = 0; i < 20; i++)
				check_pair(a, b, i);
			check_pair(a, b, dice_below(&dice, 3000));
		}
}

static void pairs_of_one_type(void **state)
{
	unsigned type, i;

	(void)state;
	for (type = 0; type < DTYPE_COUNT; type++) {
		if (!convert_has_value(type))
			continue;
		for (i = 0; i < 30; i++)
			check_pair(type, type, dice_below(&dice, 5000));
		for (i = 1023; i < 1026; i++)
			check_pair(type, type, i);
	}
}

/* ---- what is easily wrong ------------------------------------------------ */

static struct comparison of_doubles(const double *x, const double *y,
				    uint64_t count)
{
	struct compare_side left = { DTYPE_F64, x }, right = { DTYPE_F64, y };
	struct comparison c = COMPARISON_NONE;

	compare_add(&c, &left, &right, count);
	return c;
}

static void equal_sides(void **state)
{
	static double x[3000];
	struct comparison c;
	unsigned i;

	(void)state;
	for (i = 0; i < 3000; i++)
		x[i] = i % 7 ? i : (double)NAN;
	c = of_doubles(x, x, 3000);
	assert_true(c.first == COMPARE_NONE);
	assert_true(c.most == 0 && compare_relative(&c) == 0);
	assert_int_equal(c.left_nans, 429);
	assert_int_equal(c.right_nans, 429);
	assert_int_equal(c.left_out, 429);
	c = of_doubles(x, x, 0);
	assert_true(compare_relative(&c) == 0);
}

/* Bytes decide what is first, values how far it is. */
static void signs_of_zero(void **state)
{
	static const double x[] = { 1, 0, 2 }, y[] = { 1, -0.0, 2 };
	struct comparison c = of_doubles(x, y, 3);

	(void)state;
	assert_int_equal(c.first, 1);
	assert_true(c.most == 0 && compare_relative(&c) == 0);
}

static void infinities(void **state)
{
	static const double x[] = { INFINITY, -INFINITY, INFINITY, 3, NAN };
	static const double y[] = { INFINITY, -INFINITY, -INFINITY, 4, 1 };
	struct comparison c = of_doubles(x, y, 2);

	(void)state;
	assert_true(c.most == 0 && c.infinite == 0);
	assert_true(compare_relative(&c) == 0);
	c = of_doubles(x, y, 5);
	assert_int_equal(c.first, 2);
	assert_int_equal(c.infinite, 1);
	assert_int_equal(c.left_nans, 1);
	assert_int_equal(c.right_nans, 0);
	assert_true(isinf(c.most) && isinf(compare_relative(&c)));
	assert_true(c.distance == 1 && c.norm == 9);
}

static void relative_distance(void **state)
{
	static const double x[] = { 3, 4, 0 }, y[] = { 3, 4, 0.5 };
	static const double zeros[] = { 0, 0, 0 };
	static const double far[] = { 1e300, 1e-300 };
	static const double near[] = { 1.5e300, 1e-300 };
	static const double small[] = { 1e-300 }, smaller[] = { 0.5e-300 };
	static const double one[] = { 1, 0 }, bit_more[] = { 1, 1e-200 };
	struct comparison c = of_doubles(x, y, 3);

	(void)state;
	assert_true(compare_relative(&c) == 0.1);
	c = of_doubles(zeros, y, 3);
	assert_true(isinf(compare_relative(&c)));
	c = of_doubles(far, near, 2);
	check_near("relative", compare_relative(&c), 0.5L);
	c = of_doubles(small, smaller, 1);
	check_near("relative", compare_relative(&c), 0.5L);
	c = of_doubles(one, bit_more, 2);
	check_near("relative", compare_relative(&c), 1e-200L);
}

/* Doubles would see no difference. */
static void neighbouring_integers(void **state)
{
	static const int64_t x[] = { 0, INT64_MAX, INT64_MIN };
	static const int64_t y[] = { 0, INT64_MAX - 1, INT64_MAX };
	static const uint64_t u[] = { UINT64_MAX }, v[] = { UINT64_MAX - 3 };
	struct compare_side left = { DTYPE_I64, x }, right = { DTYPE_I64, y };
	struct comparison c = COMPARISON_NONE;

	(void)state;
	compare_add(&c, &left, &right, 2);
	assert_true(c.first == 1 && c.most == 1);
	compare_add(&c, &left, &right, 3);
	assert_true(c.most == (double)UINT64_MAX);
	c = COMPARISON_NONE;
	left = (struct compare_side){ DTYPE_U64, u };
	right = (struct compare_side){ DTYPE_U64, v };
	compare_add(&c, &left, &right, 1);
	assert_true(c.first == 0 && c.most == 3);
}

/* The same numbers in two types do not differ. */
static void types_that_agree(void **state)
{
	static const float single[] = { 1, -2.5f, INFINITY, NAN, 0 };
	static const double number[] = { 1, -2.5, INFINITY, NAN, -0.0 };
	static const float complex_number[] = { 1, 0, -2.5f, 1 };
	struct compare_side left = { DTYPE_F32, single };
	struct compare_side right = { DTYPE_F64, number };
	struct comparison c = COMPARISON_NONE;

	(void)state;
	compare_add(&c, &left, &right, 5);
	assert_true(c.first == COMPARE_NONE && c.most == 0);
	assert_int_equal(c.left_nans + c.right_nans, 2);
	right = (struct compare_side){ DTYPE_C64, complex_number };
	c = COMPARISON_NONE;
	compare_add(&c, &left, &right, 2);
	assert_true(c.first == 1 && c.most == 1);
	assert_true(c.norm == 7.25L);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_pair_of_types),
		cmocka_unit_test(pairs_of_one_type),
		cmocka_unit_test(equal_sides),
		cmocka_unit_test(signs_of_zero),
		cmocka_unit_test(infinities),
		cmocka_unit_test(relative_distance),
		cmocka_unit_test(neighbouring_integers),
		cmocka_unit_test(types_that_agree),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("compare", tests, NULL, NULL);
}
