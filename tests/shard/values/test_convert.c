/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversions against numbers that are put together from the fields of each
 * format (sign, exponent, mantissa) with ldexp, and rounded by nearbyint at
 * the last bit that the result has: nothing here looks at bits of a float32.
 */
#include "support/test.h"
#include "support/dice.h"

#include "shard/values/convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What the largest exponent stands for. */
enum special {
	IEEE,		/* infinity, and NaN when there is a mantissa */
	FN,		/* NaN only when all bits are set, else numbers */
	FNUZ,		/* numbers; NaN is the negative zero */
};

struct format {
	enum dtype dtype;
	unsigned exponent, mantissa;	/* bits */
	int bias;
	enum special special;
};

static const struct format formats[] = {
	{ DTYPE_F16, 5, 10, 15, IEEE },
	{ DTYPE_BF16, 8, 7, 127, IEEE },
	{ DTYPE_F8_E4M3, 4, 3, 7, FN },
	{ DTYPE_F8_E5M2, 5, 2, 15, IEEE },
	{ DTYPE_F8_E4M3FNUZ, 4, 3, 8, FNUZ },
	{ DTYPE_F8_E5M2FNUZ, 5, 2, 16, FNUZ },
};

static struct dice dice;

static const struct format *format_of(enum dtype dtype)
{
	unsigned i;

	for (i = 0; i < COUNT_OF(formats); i++)
		if (formats[i].dtype == dtype)
			return &formats[i];
	fail_msg("no format of type %d", (int)dtype);
	return NULL;
}

static unsigned width_of(const struct format *format)
{
	return 1 + format->exponent + format->mantissa;
}

static double decode(const struct format *f, unsigned bits)
{
	unsigned top = (1u << f->exponent) - 1;
	unsigned sign = bits >> (width_of(f) - 1);
	unsigned exponent = bits >> f->mantissa & top;
	unsigned mantissa = bits & ((1u << f->mantissa) - 1);
	double number;

	if (f->special == IEEE && exponent == top)
		number = mantissa ? (double)NAN : (double)INFINITY;
	else if (f->special == FN && exponent == top && mantissa == 7)
		number = (double)NAN;
	else if (f->special == FNUZ && sign && !exponent && !mantissa)
		number = (double)NAN;
	else if (exponent == 0)
		number = ldexp(mantissa, 1 - f->bias - (int)f->mantissa);
	else
		number = ldexp((1 << f->mantissa) + (int)mantissa,
			       (int)exponent - f->bias - (int)f->mantissa);
	return sign ? -number : number;
}

/* The number of @f that is nearest to @number, to even when two are. */
static double round_to(const struct format *f, double number)
{
	int exponent, least = 1 - f->bias;
	double step, rounded;

	if (isnan(number) || isinf(number))
		return number;
	frexp(number, &exponent); /* of 0.5 to 1 */
	exponent--;
	step = ldexp(1, (exponent < least ? least : exponent) -
			(int)f->mantissa);
	rounded = nearbyint(number / step) * step;
	/* The largest exponent is that of infinity. */
	if (fabs(rounded) >= ldexp(1, (1 << f->exponent) - 1 - f->bias))
		return copysign((double)INFINITY, number);
	return copysign(rounded, number);
}

static void check_number(double found, double expected, const char *what,
			 uint64_t bits)
{
	if (isnan(expected) ? isnan(found) :
	    found == expected && !signbit(found) == !signbit(expected))
		return;
	fail_msg("%s of 0x%llx is %.17g, not %.17g", what,
		 (unsigned long long)bits, found, expected);
}

static double e8m0(unsigned bits)
{
	return bits == 255 ? (double)NAN : ldexp(1, (int)bits - 127);
}

/* ---- widening ------------------------------------------------------------ */

static void check_all_patterns(const struct format *f)
{
	const char *name = dtype_info(f->dtype)->name;
	unsigned count = 1u << width_of(f), i;
	unsigned char *in = malloc((size_t)count * 2);
	float *wide = malloc(count * sizeof(*wide));
	double *numbers = malloc(count * sizeof(*numbers));

	assert_true(in && wide && numbers);
	for (i = 0; i < count; i++) {
		if (dtype_info(f->dtype)->size == 1) {
			in[i] = (unsigned char)i;
		} else {
			in[2 * i] = (unsigned char)i;
			in[2 * i + 1] = (unsigned char)(i >> 8);
		}
	}
	convert(f->dtype, DTYPE_F32, in, wide, count);
	assert_true(convert_to_double(f->dtype, in, numbers, count));
	for (i = 0; i < count; i++) {
		check_number((double)wide[i], decode(f, i), name, i);
		check_number(numbers[i], decode(f, i), name, i);
	}
	free(in);
	free(wide);
	free(numbers);
}

static void every_pattern_is_widened(void **state)
{
	unsigned char in[256];
	float wide[256];
	double numbers[256];
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(formats); i++)
		check_all_patterns(&formats[i]);
	for (i = 0; i < 256; i++)
		in[i] = (unsigned char)i;
	convert(DTYPE_F8_E8M0, DTYPE_F32, in, wide, 256);
	assert_true(convert_to_double(DTYPE_F8_E8M0, in, numbers, 256));
	for (i = 0; i < 256; i++) {
		check_number((double)wide[i], e8m0(i), "E8M0", i);
		check_number(numbers[i], e8m0(i), "E8M0", i);
	}
}

/* The oracle itself, at values that the documents of the formats give. */
static void known_values(void **state)
{
	(void)state;
	assert_true(decode(format_of(DTYPE_F8_E4M3), 0x7e) == 448);
	assert_true(decode(format_of(DTYPE_F8_E4M3), 0x01) == ldexp(1, -9));
	assert_true(isnan(decode(format_of(DTYPE_F8_E4M3), 0xff)));
	assert_true(decode(format_of(DTYPE_F8_E5M2), 0x7b) == 57344);
	assert_true(isinf(decode(format_of(DTYPE_F8_E5M2), 0xfc)));
	assert_true(decode(format_of(DTYPE_F8_E4M3FNUZ), 0x7f) == 240);
	assert_true(decode(format_of(DTYPE_F8_E5M2FNUZ), 0xff) == -57344);
	assert_true(isnan(decode(format_of(DTYPE_F8_E5M2FNUZ), 0x80)));
	assert_true(decode(format_of(DTYPE_F16), 0x7bff) == 65504);
	assert_true(round_to(format_of(DTYPE_F16), 65520) ==
		    (double)INFINITY);
	assert_true(round_to(format_of(DTYPE_F16), 65519) == 65504);
	assert_true(round_to(format_of(DTYPE_F16), ldexp(1, -25)) == 0);
	assert_true(round_to(format_of(DTYPE_BF16), 257) == 256);
	assert_true(round_to(format_of(DTYPE_BF16), 259) == 260);
}

/* ---- narrowing ----------------------------------------------------------- */

static void check_narrowed(const struct format *f, const float *numbers,
			   unsigned count)
{
	uint16_t *narrow = malloc(count * sizeof(*narrow));
	unsigned i;

	assert_non_null(narrow);
	convert(DTYPE_F32, f->dtype, numbers, narrow, count);
	for (i = 0; i < count; i++) {
		uint32_t bits;

		memcpy(&bits, &numbers[i], 4);
		check_number(decode(f, narrow[i]),
			     round_to(f, (double)numbers[i]),
			     dtype_info(f->dtype)->name, bits);
	}
	free(narrow);
}

static void check_narrowed_f64(const struct format *f, const double *numbers,
			       unsigned count)
{
	uint16_t *narrow = malloc(count * sizeof(*narrow));
	float *single = malloc(count * sizeof(*single));
	unsigned i;

	assert_true(narrow && single);
	convert(DTYPE_F64, f->dtype, numbers, narrow, count);
	convert(DTYPE_F64, DTYPE_F32, numbers, single, count);
	for (i = 0; i < count; i++) {
		volatile float rounded = (float)numbers[i];
		uint64_t bits;

		memcpy(&bits, &numbers[i], 8);
		check_number((double)single[i], (double)rounded, "F64", bits);
		check_number(decode(f, narrow[i]),
			     round_to(f, (double)rounded),
			     dtype_info(f->dtype)->name, bits);
	}
	free(narrow);
	free(single);
}

/* Around each number of the format and each middle between two: itself, and
 * what is a bit more or less, as float32 and as float64. */
static void boundaries_are_rounded_to_even(void **state)
{
	enum { COUNT = 6 << 16 };
	float *singles = malloc(COUNT * sizeof(*singles));
	double *doubles = malloc(COUNT * sizeof(*doubles));
	unsigned i, k, n;

	(void)state;
	assert_true(singles && doubles);
	for (k = 0; k < 2; k++) {
		const struct format *f = &formats[k];

		for (i = n = 0; i < 1u << 16; i++) {
			double here = decode(f, i), next = decode(f, i + 1);
			double middle = here / 2 + next / 2;
			float single = (float)middle;

			singles[n] = (float)here;
			doubles[n++] = nextafter(here, 0);
			singles[n] = nextafterf((float)here, 1e30f);
			doubles[n++] = nextafter(here, 1e300);
			singles[n] = nextafterf((float)here, -1e30f);
			doubles[n++] = here;
			singles[n] = single;
			doubles[n++] = middle;
			singles[n] = nextafterf(single, 1e30f);
			doubles[n++] = nextafter(middle, 1e300);
			singles[n] = nextafterf(single, -1e30f);
			doubles[n++] = nextafter(middle, -1e300);
		}
		check_narrowed(f, singles, n);
		check_narrowed_f64(f, doubles, n);
	}
	free(singles);
	free(doubles);
}

static void random_numbers_are_narrowed(void **state)
{
	enum { COUNT = 1 << 18 };
	float *singles = malloc(COUNT * sizeof(*singles));
	double *doubles = malloc(COUNT * sizeof(*doubles));
	unsigned i, k;

	(void)state;
	assert_true(singles && doubles);
	for (i = 0; i < COUNT; i++) {
		uint32_t bits = (uint32_t)dice_any(&dice);
		uint64_t wide = dice_any(&dice);

		memcpy(&singles[i], &bits, 4);
		/* Half of them in the range of a float32. */
		if (i % 2)
			wide = (wide & UINT64_C(0x800fffffffffffff)) |
			       (uint64_t)(1023 - 150 + dice_below(&dice, 300))
			       << 52;
		memcpy(&doubles[i], &wide, 8);
	}
	for (k = 0; k < 2; k++) {
		check_narrowed(&formats[k], singles, COUNT);
		check_narrowed_f64(&formats[k], doubles, COUNT);
	}
	free(singles);
	free(doubles);
}

/* From each of the small formats to bfloat16 and float16. */
static void between_small_formats(void **state)
{
	static unsigned char in[1 << 17];
	static uint16_t out[1 << 16];
	unsigned i, k, n;

	(void)state;
	for (k = 0; k < 2 * COUNT_OF(formats); k++) {
		const struct format *from = &formats[k / 2];
		const struct format *to = &formats[k % 2];
		unsigned count = 1u << width_of(from);

		for (i = n = 0; i < count; i++) {
			in[n++] = (unsigned char)i;
			if (width_of(from) == 16)
				in[n++] = (unsigned char)(i >> 8);
		}
		convert(from->dtype, to->dtype, in, out, count);
		for (i = 0; i < count; i++)
			check_number(decode(to, out[i]),
				     round_to(to, decode(from, i)),
				     dtype_info(from->dtype)->name, i);
	}
}

/* ---- to double ----------------------------------------------------------- */

static void integers_become_doubles(void **state)
{
	static const int64_t numbers[] = {
		0, 1, -1, 127, -128, 255, 32767, -32768, 65535, INT32_MAX,
		INT32_MIN, UINT32_MAX, INT64_C(1) << 53,
		(INT64_C(1) << 53) + 1, (INT64_C(1) << 53) + 3,
		-(INT64_C(1) << 53) - 1, INT64_MAX, INT64_MIN, -2,
		-1025, -INT64_C(2049) * (INT64_C(1) << 42),
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(numbers) + 100000; i++) {
		int64_t n = i < COUNT_OF(numbers) ? numbers[i] :
			    (int64_t)dice_any(&dice);
		double found;

#define CHECK(dtype, type)						\
		do {							\
			type part = (type)n;				\
									\
			assert_true(convert_to_double(dtype, &part,	\
						      &found, 1));	\
			check_number(found, (double)part, #type,	\
				     (uint64_t)n);			\
		} while (0)
		CHECK(DTYPE_I8, int8_t);
		CHECK(DTYPE_U8, uint8_t);
		CHECK(DTYPE_I16, int16_t);
		CHECK(DTYPE_U16, uint16_t);
		CHECK(DTYPE_I32, int32_t);
		CHECK(DTYPE_U32, uint32_t);
		CHECK(DTYPE_I64, int64_t);
		CHECK(DTYPE_U64, uint64_t);
#undef CHECK
	}
}

static void bools_are_0_or_1(void **state)
{
	static const unsigned char bools[] = { 0, 1, 2, 255 };
	double found[4];

	(void)state;
	assert_true(convert_to_double(DTYPE_BOOL, bools, found, 4));
	assert_true(found[0] == 0 && found[1] == 1 && found[2] == 1 &&
		    found[3] == 1);
}

static void complex_elements_are_two_numbers(void **state)
{
	static const float singles[] = { 1.5f, -2, 3, 4 };
	static const double doubles[] = { 1e300, -2, 3, 4 };
	static const uint16_t halves[] = { 0x3c00, 0xc000 };
	static const uint16_t brains[] = { 0x3f80, 0xc000 };
	double found[4];
	unsigned i;

	(void)state;
	assert_true(convert_to_double(DTYPE_C64, singles, found, 2));
	for (i = 0; i < 4; i++)
		assert_true(found[i] == (double)singles[i]);
	assert_true(convert_to_double(DTYPE_C128, doubles, found, 2));
	assert_memory_equal(found, doubles, sizeof(doubles));
	assert_true(convert_to_double(DTYPE_C32, halves, found, 1));
	assert_true(found[0] == 1 && found[1] == -2);
	assert_true(convert_to_double(DTYPE_BC32, brains, found, 1));
	assert_true(found[0] == 1 && found[1] == -2);
}

/* ---- what there is ------------------------------------------------------- */

static bool is_one_of(enum dtype dtype, const enum dtype *list, unsigned count)
{
	while (count-- > 0)
		if (list[count] == dtype)
			return true;
	return false;
}

static void which_pairs_there_are(void **state)
{
	static const enum dtype floats[] = {
		DTYPE_F64, DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F8_E4M3,
		DTYPE_F8_E5M2, DTYPE_F8_E4M3FNUZ, DTYPE_F8_E5M2FNUZ,
		DTYPE_F8_E8M0,
	};
	static const enum dtype targets[] = {
		DTYPE_F32, DTYPE_F16, DTYPE_BF16,
	};
	unsigned a, b;

	(void)state;
	for (a = 0; a < DTYPE_COUNT; a++)
		for (b = 0; b < DTYPE_COUNT; b++) {
			bool source = is_one_of(a, floats, COUNT_OF(floats));
			bool target = is_one_of(b, targets, COUNT_OF(targets));
			bool same = a == b && dtype_info(a)->size > 0;

			assert_int_equal(convert_is_possible(a, b),
					 same || (source && target));
			assert_int_equal(convert_is_exact(a, b),
					 source && a != DTYPE_F64 &&
					 b == DTYPE_F32);
		}
}

static void which_types_have_values(void **state)
{
	static const enum dtype without[] = {
		DTYPE_UNKNOWN, DTYPE_F4, DTYPE_QI8, DTYPE_QU8, DTYPE_QI32,
		DTYPE_QU4X2, DTYPE_QU2X4, DTYPE_BITS8, DTYPE_BITS16,
		DTYPE_BITS1X8, DTYPE_BITS2X4, DTYPE_BITS4X2, DTYPE_F6_E2M3,
		DTYPE_F6_E3M2,
	};
	static const unsigned char in[16];
	double out[2] = { 7, 7 };
	unsigned i;

	(void)state;
	for (i = 0; i < DTYPE_COUNT; i++) {
		bool has = !is_one_of(i, without, COUNT_OF(without));

		assert_int_equal(convert_has_value(i), has);
		out[0] = out[1] = 7;
		assert_int_equal(convert_to_double(i, in, out, 1), has);
		assert_true(has || (out[0] == 7 && out[1] == 7));
	}
}

/* ---- buffers ------------------------------------------------------------- */

enum { GUARD = 16, LONGEST = 3000 };

/* @count elements at odd addresses give what they give one by one, and no
 * byte beside them changes. */
static void check_buffers(enum dtype from, enum dtype to, uint64_t count)
{
	size_t a = dtype_info(from)->size, b = dtype_info(to)->size, i;
	size_t shift = dice_below(&dice, 8), out_shift = dice_below(&dice, 8);
	unsigned char *in = malloc(count * a + shift);
	unsigned char *out = malloc(count * b + out_shift + 2 * GUARD);
	unsigned char *to_bytes = out + out_shift + GUARD, one[16];

	assert_true(in && out);
	for (i = 0; i < count * a + shift; i++)
		in[i] = (unsigned char)dice_any(&dice);
	memset(out, 0xa5, count * b + out_shift + 2 * GUARD);
	convert(from, to, in + shift, to_bytes, count);
	for (i = 0; i < count; i++) {
		convert(from, to, in + shift + i * a, one, 1);
		assert_memory_equal(to_bytes + i * b, one, b);
	}
	for (i = 0; i < GUARD; i++) {
		assert_int_equal(out[out_shift + i], 0xa5);
		assert_int_equal(to_bytes[count * b + i], 0xa5);
	}
	free(in);
	free(out);
}

static void any_address_and_count(void **state)
{
	unsigned a, b, i;

	(void)state;
	for (a = 0; a < DTYPE_COUNT; a++)
		for (b = 0; b < DTYPE_COUNT; b++) {
			if (!convert_is_possible(a, b))
				continue;
			for (i = 0; i < 40; i++)
				check_buffers(a, b, i);
			for (i = 0; i < 4; i++)
				check_buffers(a, b,
					      dice_below(&dice, LONGEST));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_values),
		cmocka_unit_test(every_pattern_is_widened),
		cmocka_unit_test(boundaries_are_rounded_to_even),
		cmocka_unit_test(random_numbers_are_narrowed),
		cmocka_unit_test(between_small_formats),
		cmocka_unit_test(integers_become_doubles),
		cmocka_unit_test(bools_are_0_or_1),
		cmocka_unit_test(complex_elements_are_two_numbers),
		cmocka_unit_test(which_pairs_there_are),
		cmocka_unit_test(which_types_have_values),
		cmocka_unit_test(any_address_and_count),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("convert", tests, NULL, NULL);
}
