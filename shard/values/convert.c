/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All pairs go by way of float32, which holds every value of the narrower
 * types: a widening and a narrowing loop for each type, over blocks that stay
 * in the first cache.
 *
 * A small float of E exponent and M mantissa bits, its sign taken away and
 * shifted so that its mantissa ends where that of a float32 does, needs
 *
 *	normal		the difference of the two biases added to its exponent
 *	subnormal	the value 2^(1 - bias) put on top as a number, and
 *			taken away again by a subtraction, which is exact and
 *			meets no subnormal float32 (those are slow)
 *	inf, NaN	the largest exponent
 *
 * All of them are computed, and the right one selected by masks.
 */
#include "shard/values/convert.h"

#include <assert.h>
#include <string.h>

/* Elements of a block: 4 KiB of float32. */
enum { BLOCK_COUNT = 1024 };

/* Numbers at any address. */
typedef uint16_t any_u16 __attribute__((aligned(1), may_alias));
typedef uint32_t any_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t any_u64 __attribute__((aligned(1), may_alias));
typedef int16_t any_i16 __attribute__((aligned(1), may_alias));
typedef int32_t any_i32 __attribute__((aligned(1), may_alias));
typedef int64_t any_i64 __attribute__((aligned(1), may_alias));
typedef float any_f32 __attribute__((aligned(1), may_alias));
typedef double any_f64 __attribute__((aligned(1), may_alias));

#define F32_SIGN UINT32_C(0x80000000)
#define F32_INF UINT32_C(0x7f800000)
#define F32_NAN UINT32_C(0x7fc00000)

static inline float float_of(uint32_t bits)
{
	float number;

	memcpy(&number, &bits, sizeof(number));
	return number;
}

static inline uint32_t bits_of(float number)
{
	uint32_t bits;

	memcpy(&bits, &number, sizeof(bits));
	return bits;
}

/* @yes where @condition, else @no. */
static inline uint32_t choose(int condition, uint32_t yes, uint32_t no)
{
	uint32_t mask = (uint32_t)-condition;

	return (yes & mask) | (no & ~mask);
}

/*
 * The finite number whose exponent and mantissa are @bits, already where a
 * float32 has them.
 */
static inline uint32_t widen_finite(uint32_t bits, unsigned bias)
{
	uint32_t smallest = (128 - bias) << 23;	/* normal: 2^(1 - bias) */
	uint32_t normal = bits + ((127 - bias) << 23);
	uint32_t subnormal = bits_of(float_of(bits + smallest) -
				     float_of(smallest));

	return choose((int32_t)bits < (1 << 23), subnormal, normal);
}

static inline uint32_t widen_bf16(uint32_t x)
{
	return x << 16;
}

static inline uint32_t widen_f16(uint32_t x)
{
	uint32_t bits = (x & 0x7fff) << 13, sign = (x & 0x8000) << 16;
	uint32_t number = choose((int32_t)bits >= 0x1f << 23, bits | F32_INF,
				 widen_finite(bits, 15));

	return number | sign;
}

static inline uint32_t widen_e4m3(uint32_t x)
{
	uint32_t bits = (x & 0x7f) << 20, sign = (x & 0x80) << 24;
	uint32_t number = choose(bits == 0x7f << 20, F32_NAN,
				 widen_finite(bits, 7));

	return number | sign;
}

/* The upper half of a float16. */
static inline uint32_t widen_e5m2(uint32_t x)
{
	return widen_f16(x << 8);
}

static inline uint32_t widen_e4m3fnuz(uint32_t x)
{
	uint32_t bits = (x & 0x7f) << 20, sign = (x & 0x80) << 24;

	return choose(x == 0x80, F32_NAN, widen_finite(bits, 8) | sign);
}

static inline uint32_t widen_e5m2fnuz(uint32_t x)
{
	uint32_t bits = (x & 0x7f) << 21, sign = (x & 0x80) << 24;

	return choose(x == 0x80, F32_NAN, widen_finite(bits, 16) | sign);
}

/* An exponent alone. The bit below makes 2^-127 of 0, and NaN of 255. */
static inline uint32_t widen_e8m0(uint32_t x)
{
	return x << 23 | choose((x == 0) | (x == 255), 1 << 22, 0);
}

static inline uint32_t narrow_bf16(uint32_t x)
{
	uint32_t number = x + 0x7fff + (x >> 16 & 1);
	uint32_t nan = x | 1 << 22;

	return choose((int32_t)(x & ~F32_SIGN) > (int32_t)F32_INF, nan,
		      number) >> 16;
}

/*
 * Rounded by the addition of a number so much larger that its last bit is the
 * last one that the result keeps: 13 binades above @x, or above the smallest
 * normal result. What is too large for a float16 is made 2^16 before, which
 * comes out as infinity.
 */
static inline uint32_t narrow_f16(uint32_t x)
{
	const uint32_t least = UINT32_C(113) << 23, most = UINT32_C(143) << 23;
	uint32_t bits = x & ~F32_SIGN, sign = x >> 16 & 0x8000;
	uint32_t nan = choose((int32_t)bits > (int32_t)F32_INF, 0x200, 0);
	uint32_t number = choose((int32_t)bits > (int32_t)most, most, bits);
	uint32_t exponent = number & F32_INF, large;

	exponent = choose((int32_t)exponent > (int32_t)least, exponent, least);
	large = exponent + (13 << 23);
	number = bits_of(float_of(number) + float_of(large)) - large;
	return (number + ((exponent - least) >> 13)) | nan | sign;
}

#define DEFINE_LOOP(name, from, to, expression)				\
static void name(const void *source, void *target, uint64_t count)	\
{									\
	const from *restrict in = source;				\
	to *restrict out = target;					\
	uint64_t i;							\
									\
	for (i = 0; i < count; i++)					\
		out[i] = (to)(expression);				\
}

DEFINE_LOOP(bf16_to_f32, any_u16, any_u32, widen_bf16(in[i]))
DEFINE_LOOP(f16_to_f32, any_u16, any_u32, widen_f16(in[i]))
DEFINE_LOOP(e4m3_to_f32, uint8_t, any_u32, widen_e4m3(in[i]))
DEFINE_LOOP(e5m2_to_f32, uint8_t, any_u32, widen_e5m2(in[i]))
DEFINE_LOOP(e4m3fnuz_to_f32, uint8_t, any_u32, widen_e4m3fnuz(in[i]))
DEFINE_LOOP(e5m2fnuz_to_f32, uint8_t, any_u32, widen_e5m2fnuz(in[i]))
DEFINE_LOOP(e8m0_to_f32, uint8_t, any_u32, widen_e8m0(in[i]))
DEFINE_LOOP(f64_to_f32, any_f64, any_f32, in[i])
DEFINE_LOOP(f32_to_bf16, any_u32, any_u16, narrow_bf16(in[i]))
DEFINE_LOOP(f32_to_f16, any_u32, any_u16, narrow_f16(in[i]))

DEFINE_LOOP(f32_to_double, any_f32, any_f64, in[i])
DEFINE_LOOP(i8_to_double, int8_t, any_f64, in[i])
DEFINE_LOOP(u8_to_double, uint8_t, any_f64, in[i])
DEFINE_LOOP(i16_to_double, any_i16, any_f64, in[i])
DEFINE_LOOP(u16_to_double, any_u16, any_f64, in[i])
DEFINE_LOOP(i32_to_double, any_i32, any_f64, in[i])
DEFINE_LOOP(u32_to_double, any_u32, any_f64, in[i])
DEFINE_LOOP(i64_to_double, any_i64, any_f64, in[i])
/* Both halves are exact, so their sum is what is rounded. */
DEFINE_LOOP(u64_to_double, any_u64, any_f64,
	    (double)(in[i] >> 32) * 0x1p32 + (double)(uint32_t)in[i])
DEFINE_LOOP(bool_to_double, uint8_t, any_f64, in[i] != 0)

typedef void loop(const void *source, void *target, uint64_t count);

static void copy_f32(const void *source, void *target, uint64_t count)
{
	memcpy(target, source, count * 4);
}

static void copy_f64(const void *source, void *target, uint64_t count)
{
	memcpy(target, source, count * 8);
}

static const struct conversion {
	loop *widen;		/* to float32; F64 is narrowed */
	loop *narrow;		/* from float32 */
	loop *to_double;	/* where not by way of float32 */
	uint8_t part;		/* enum dtype; both halves of complex types */
} conversions[DTYPE_COUNT] = {
	[DTYPE_F64] = { .widen = f64_to_f32, .to_double = copy_f64 },
	[DTYPE_F32] = { .widen = copy_f32, .narrow = copy_f32,
			.to_double = f32_to_double },
	[DTYPE_F16] = { .widen = f16_to_f32, .narrow = f32_to_f16 },
	[DTYPE_BF16] = { .widen = bf16_to_f32, .narrow = f32_to_bf16 },
	[DTYPE_F8_E4M3] = { .widen = e4m3_to_f32 },
	[DTYPE_F8_E5M2] = { .widen = e5m2_to_f32 },
	[DTYPE_F8_E4M3FNUZ] = { .widen = e4m3fnuz_to_f32 },
	[DTYPE_F8_E5M2FNUZ] = { .widen = e5m2fnuz_to_f32 },
	[DTYPE_F8_E8M0] = { .widen = e8m0_to_f32 },
	[DTYPE_I64] = { .to_double = i64_to_double },
	[DTYPE_I32] = { .to_double = i32_to_double },
	[DTYPE_I16] = { .to_double = i16_to_double },
	[DTYPE_I8] = { .to_double = i8_to_double },
	[DTYPE_U8] = { .to_double = u8_to_double },
	[DTYPE_U16] = { .to_double = u16_to_double },
	[DTYPE_U32] = { .to_double = u32_to_double },
	[DTYPE_U64] = { .to_double = u64_to_double },
	[DTYPE_BOOL] = { .to_double = bool_to_double },
	[DTYPE_C64] = { .part = DTYPE_F32 },
	[DTYPE_C128] = { .part = DTYPE_F64 },
	[DTYPE_C32] = { .part = DTYPE_F16 },
	[DTYPE_BC32] = { .part = DTYPE_BF16 },
};

bool convert_is_possible(enum dtype from, enum dtype to)
{
	if (from == to)
		return dtype_info(from)->size > 0;
	return conversions[from].widen && conversions[to].narrow;
}

bool convert_is_exact(enum dtype from, enum dtype to)
{
	return to == DTYPE_F32 && from != DTYPE_F64 &&
	       conversions[from].widen;
}

bool convert_has_value(enum dtype dtype)
{
	const struct conversion *c = &conversions[dtype];

	return c->widen || c->to_double || c->part;
}

/* What is done with numbers that were widened to float. */
struct after_widening {
	loop *run;
	size_t size;			/* bytes of an element that it makes */
};

/* Widen, then @next, one block after the other. */
static void chain(enum dtype from, struct after_widening next,
		  const unsigned char *source, unsigned char *target,
		  uint64_t count)
{
	float block[BLOCK_COUNT];

	while (count > 0) {
		uint64_t part = count < BLOCK_COUNT ? count : BLOCK_COUNT;

		conversions[from].widen(source, block, part);
		next.run(block, target, part);
		source += part * dtype_info(from)->size;
		target += part * next.size;
		count -= part;
	}
}

void convert(enum dtype from, enum dtype to, const void *source, void *target,
	     uint64_t count)
{
	assert(convert_is_possible(from, to));
	if (from == to)
		memcpy(target, source, count * dtype_info(from)->size);
	else if (to == DTYPE_F32)
		conversions[from].widen(source, target, count);
	else if (from == DTYPE_F32)
		conversions[to].narrow(source, target, count);
	else
		chain(from, (struct after_widening){ conversions[to].narrow,
						     dtype_info(to)->size },
		      source, target, count);
}

bool convert_to_double(enum dtype from, const void *source, double *target,
		       uint64_t count)
{
	const struct conversion *c = &conversions[from];

	if (c->part)
		return convert_to_double(c->part, source, target, 2 * count);
	if (c->to_double)
		c->to_double(source, target, count);
	else if (c->widen)
		chain(from, (struct after_widening){ f32_to_double,
						     sizeof(*target) },
		      source, (unsigned char *)target, count);
	return c->to_double || c->widen;
}
