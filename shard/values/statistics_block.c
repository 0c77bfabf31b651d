/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block is made of doubles that stay in the first cache, and gone through
 * more than once: for sum and zeros, for extremes, and then for the squares of
 * what is left without the mean. A block with NaN or infinity shows by its
 * sum; then what is no number is counted and taken out, and it starts again.
 *
 * Sums are kept in lanes, which makes vectors of them without changing the
 * order of additions. Where squares would overflow or vanish in a double, both
 * sums are made in long double instead.
 */
#include "shard/values/statistics_block.h"

#include "shard/values/convert.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Vectors that are at hand at once, and their elements. */
enum { VECTORS = 4, LANES = 2 * VECTORS };

/* Between them, squares and the sum of a block of them are normal doubles. */
static const double least = 1e-140, most = 1e140;

typedef double pair __attribute__((vector_size(16)));
typedef int64_t mask __attribute__((vector_size(16)));

/* Padded to whole lanes. */
struct statistics_block {
	double x[STATISTICS_BLOCK];
	unsigned count;
};

static void pad(struct statistics_block *b, double value)
{
	unsigned i;

	for (i = b->count; i % LANES != 0; i++)
		b->x[i] = value;
}

static inline pair load(const double *x)
{
	pair p;

	memcpy(&p, x, sizeof(p));
	return p;
}

static inline pair choose(mask condition, pair yes, pair no)
{
	return (pair)(((mask)yes & condition) | ((mask)no & ~condition));
}

/* Of a block without NaN. */
static void find_extremes(const struct statistics_block *b, double *ret_min,
			  double *ret_max)
{
	pair low[VECTORS], high[VECTORS];
	unsigned i, k;

	for (k = 0; k < VECTORS; k++)
		low[k] = high[k] = load(b->x);
	for (i = 0; i < b->count; i += LANES)
		for (k = 0; k < VECTORS; k++) {
			pair x = load(b->x + i + 2 * k);

			low[k] = choose(x < low[k], x, low[k]);
			high[k] = choose(x > high[k], x, high[k]);
		}
	*ret_min = *ret_max = b->x[0];
	for (k = 0; k < LANES; k++) {
		double min = low[k / 2][k % 2], max = high[k / 2][k % 2];

		*ret_min = min < *ret_min ? min : *ret_min;
		*ret_max = max > *ret_max ? max : *ret_max;
	}
}

/* What all are more than the first, in all; not finite when one is not. The
 * difference makes the mean of equal numbers exact. */
static double sum(const struct statistics_block *b, uint64_t *ret_zeros)
{
	pair total[VECTORS] = { { 0 } };
	pair first = { b->x[0], b->x[0] };
	mask zeros[VECTORS] = { { 0 } };
	double result = 0;
	unsigned i, k;

	for (i = 0; i < b->count; i += LANES)
		for (k = 0; k < VECTORS; k++) {
			pair x = load(b->x + i + 2 * k);

			total[k] += x - first;
			zeros[k] -= x == (pair){ 0 };
		}
	*ret_zeros = 0;
	for (k = 0; k < LANES; k++) {
		result += total[k / 2][k % 2];
		*ret_zeros += (uint64_t)zeros[k / 2][k % 2];
	}
	/* What it was padded with. */
	if (b->x[0] == 0)
		*ret_zeros -= (LANES - b->count % LANES) % LANES;
	return result;
}

static double sum_squares(struct statistics_block *b, double mean)
{
	pair total[VECTORS] = { { 0 } };
	pair middle = { mean, mean };
	double result = 0;
	unsigned i, k;

	pad(b, mean);
	for (i = 0; i < b->count; i += LANES)
		for (k = 0; k < VECTORS; k++) {
			pair x = load(b->x + i + 2 * k) - middle;

			total[k] += x * x;
		}
	for (k = 0; k < LANES; k++)
		result += total[k / 2][k % 2];
	return result;
}

static void sum_long(const struct statistics_block *b, struct statistics *s)
{
	unsigned i;

	for (i = 0; i < b->count; i++)
		s->mean += b->x[i];
	s->mean /= b->count;
	for (i = 0; i < b->count; i++) {
		long double x = b->x[i] - s->mean;

		s->squares += x * x;
	}
}

static void take_out_specials(struct statistics_block *b, struct statistics *s)
{
	unsigned i, count = 0;

	for (i = 0; i < b->count; i++) {
		if (isnan(b->x[i]))
			s->nans++;
		else if (isinf(b->x[i]))
			s->infs++;
		else
			b->x[count++] = b->x[i];
	}
	b->count = count;
}

static struct statistics describe(struct statistics_block *b)
{
	struct statistics s = { .count = b->count };
	double extra, largest;

	pad(b, b->x[0]);
	extra = sum(b, &s.zeros);
	if (!isfinite(extra)) {
		take_out_specials(b, &s);
		if (b->count == 0)
			return s;
		pad(b, b->x[0]);
		extra = sum(b, &s.zeros);
	}
	find_extremes(b, &s.min, &s.max);
	largest = fmax(fabs(s.min), fabs(s.max));
	if (largest == 0)
		return s;
	if (largest > least && largest < most) {
		s.mean = b->x[0] + (long double)extra / b->count;
		s.squares = sum_squares(b, (double)s.mean);
	} else {
		sum_long(b, &s);
	}
	return s;
}

/* Absolute values of @count complex elements, in place. */
static void make_absolute(double *x, unsigned count, bool wide)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		double a = x[2 * i], b = x[2 * i + 1];
		double size = wide ? 0 : sqrt(a * a + b * b);

		/* Squares of what was a float32 are doubles, but NaN may
		 * stand beside infinity. */
		x[i] = wide || isnan(size) ? hypot(a, b) : size;
	}
}

static void find_exact(struct statistics *s, enum dtype dtype,
		       const unsigned char *data, unsigned count)
{
	uint64_t flip = dtype == DTYPE_I64 ? UINT64_C(1) << 63 : 0, x;
	unsigned i;

	s->low = UINT64_MAX;
	s->high = 0;
	for (i = 0; i < count; i++) {
		memcpy(&x, data + i * sizeof(x), sizeof(x));
		x ^= flip;
		s->low = x < s->low ? x : s->low;
		s->high = x > s->high ? x : s->high;
	}
}

struct statistics statistics_block(enum dtype dtype, const void *data,
				   unsigned count)
{
	struct statistics s;
	struct statistics_block block;

	block.count = count;
	convert_to_double(dtype, data, block.x, count);
	if (dtype_info(dtype)->kind == DTYPE_KIND_COMPLEX)
		make_absolute(block.x, count, dtype == DTYPE_C128);
	s = describe(&block);
	if (dtype == DTYPE_I64 || dtype == DTYPE_U64)
		find_exact(&s, dtype, data, count);
	return s;
}
