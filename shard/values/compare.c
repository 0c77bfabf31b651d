/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of doubles that stay in the first cache. Most blocks are equal in all
 * bytes, or finite numbers of ordinary size on both sides: those go through
 * vectors. All others are looked at one by one, in long double.
 */
#include "shard/values/compare.h"

#include "shard/values/convert.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Numbers of a block; vectors that are at hand at once, and their elements. */
enum { BLOCK_COUNT = 1024, VECTORS = 4, LANES = 2 * VECTORS };

/* Between them, squares and the sum of a block of them are normal doubles. */
static const double least = 1e-140, greatest = 1e140;

typedef double pair __attribute__((vector_size(16)));
typedef int64_t mask __attribute__((vector_size(16)));

struct compare_block {
	const struct compare_side *left, *right;
	const unsigned char *a, *b;	/* their elements */
	unsigned count;			/* of elements */
	unsigned parts;			/* numbers of an element */
	bool same;			/* equal in all bytes */
	double x[BLOCK_COUNT], y[BLOCK_COUNT];
};

static bool is_complex(enum dtype dtype)
{
	return dtype_info(dtype)->kind == DTYPE_KIND_COMPLEX;
}

/* ---- in vectors ---------------------------------------------------------- */

/* Sums of squares and largest sizes of a block, neither of which is a number
 * when one of its elements is not. */
struct compare_totals {
	double distance, norm, most, largest;
};

static inline pair load(const double *x)
{
	pair p;

	memcpy(&p, x, sizeof(p));
	return p;
}

static inline pair size_of(pair x)
{
	return (pair)((mask)x & INT64_MAX);
}

static inline pair larger(pair a, pair b)
{
	mask condition = a > b;

	return (pair)(((mask)a & condition) | ((mask)b & ~condition));
}

/* All of @x and @y, padded to whole lanes. */
static struct compare_totals total(const struct compare_block *b)
{
	pair distance[VECTORS] = { { 0 } }, norm[VECTORS] = { { 0 } };
	pair most[VECTORS] = { { 0 } }, largest[VECTORS] = { { 0 } };
	struct compare_totals t = { 0, 0, 0, 0 };
	unsigned i, k;

	for (i = 0; i < b->count; i += LANES)
		for (k = 0; k < VECTORS; k++) {
			pair x = load(b->x + i + 2 * k);
			pair d = x - load(b->y + i + 2 * k);

			distance[k] += d * d;
			norm[k] += x * x;
			most[k] = larger(size_of(d), most[k]);
			largest[k] = larger(size_of(x), largest[k]);
		}
	for (k = 0; k < LANES; k++) {
		t.distance += distance[k / 2][k % 2];
		t.norm += norm[k / 2][k % 2];
		t.most = fmax(t.most, most[k / 2][k % 2]);
		t.largest = fmax(t.largest, largest[k / 2][k % 2]);
	}
	return t;
}

static bool is_ordinary(double largest)
{
	return largest == 0 || (largest > least && largest < greatest);
}

/* True: done. */
static bool add_fast(struct comparison *c, struct compare_block *b)
{
	struct compare_totals t;
	unsigned i;

	for (i = b->count; i % LANES != 0; i++)
		b->x[i] = b->y[i] = 0;
	t = total(b);
	if (!isfinite(t.distance + t.norm) || !is_ordinary(t.most) ||
	    !is_ordinary(t.largest))
		return false;
	c->most = t.most;
	c->distance = t.distance;
	c->norm = t.norm;
	return true;
}

/* ---- one by one ---------------------------------------------------------- */

static double apart(double x, double y)
{
	return x == y ? 0 : x - y;
}

static double size_of_element(const double *x, unsigned parts)
{
	return parts == 1 ? fabs(x[0]) : hypot(x[0], x[1]);
}

/* How far element @i of both sides is apart. */
static double distance_of(const struct compare_block *b, unsigned i)
{
	const double *x = b->x + i * b->parts, *y = b->y + i * b->parts;
	double d[2] = { apart(x[0], y[0]) };
	uint64_t m, n;

	if (b->left->dtype == b->right->dtype &&
	    (b->left->dtype == DTYPE_I64 || b->left->dtype == DTYPE_U64)) {
		uint64_t flip = b->left->dtype == DTYPE_I64 ?
				UINT64_C(1) << 63 : 0;

		memcpy(&m, b->a + i * sizeof(m), sizeof(m));
		memcpy(&n, b->b + i * sizeof(n), sizeof(n));
		return (m ^ flip) > (n ^ flip) ? (double)(m - n) :
						 (double)(n - m);
	}
	if (b->parts == 2)
		d[1] = apart(x[1], y[1]);
	return size_of_element(d, b->parts);
}

static bool has_nan(const double *x, unsigned parts)
{
	return isnan(x[0]) || (parts == 2 && isnan(x[1]));
}

static void add_slowly(struct comparison *c, const struct compare_block *b)
{
	unsigned i;

	for (i = 0; i < b->count; i++) {
		const double *x = b->x + i * b->parts;
		bool left = has_nan(x, b->parts);
		bool right = has_nan(b->y + i * b->parts, b->parts);
		double size, distance;

		c->left_nans += left;
		c->right_nans += right;
		c->left_out += left || right;
		if (left || right)
			continue;
		size = size_of_element(x, b->parts);
		distance = distance_of(b, i);
		if (isfinite(size))
			c->norm += (long double)size * size;
		if (isfinite(distance))
			c->distance += (long double)distance * distance;
		else
			c->infinite++;
		c->most = fmax(c->most, distance);
	}
}

/* ---- blocks -------------------------------------------------------------- */

/* Numbers of @side as doubles, as many for each element as @parts says. */
static void fill(double *x, enum dtype dtype, const unsigned char *data,
		 unsigned count, unsigned parts)
{
	unsigned i;

	convert_to_double(dtype, data, x, count);
	if (parts == 1 || is_complex(dtype))
		return;
	/* A real number beside complex ones. */
	for (i = count; i > 0; i--) {
		x[2 * i - 2] = x[i - 1];
		x[2 * i - 1] = 0;
	}
}

static bool differs(const struct compare_block *b, unsigned i)
{
	const double *x = b->x + i * b->parts, *y = b->y + i * b->parts;
	size_t size = dtype_info(b->left->dtype)->size;
	unsigned part;

	if (b->left->dtype == b->right->dtype)
		return memcmp(b->a + i * size, b->b + i * size, size) != 0;
	for (part = 0; part < b->parts; part++)
		if (x[part] != y[part] && !(isnan(x[part]) && isnan(y[part])))
			return true;
	return false;
}

/* Integers that doubles would blur. */
static bool is_wide(const struct compare_block *b)
{
	return b->left->dtype == b->right->dtype && !b->same &&
	       (b->left->dtype == DTYPE_I64 || b->left->dtype == DTYPE_U64);
}

static struct comparison compare_block(struct compare_block *b, bool find_first)
{
	struct comparison c = COMPARISON_NONE;
	size_t size = dtype_info(b->left->dtype)->size;
	unsigned i;

	c.count = b->count;
	b->same = b->left->dtype == b->right->dtype &&
		  memcmp(b->a, b->b, b->count * size) == 0;
	fill(b->x, b->left->dtype, b->a, b->count, b->parts);
	if (b->same)
		memcpy(b->y, b->x, b->count * b->parts * sizeof(*b->x));
	else
		fill(b->y, b->right->dtype, b->b, b->count, b->parts);
	for (i = 0; find_first && !b->same && i < b->count; i++)
		if (differs(b, i)) {
			c.first = i;
			break;
		}
	if (b->parts == 2 || is_wide(b) || !add_fast(&c, b))
		add_slowly(&c, b);
	return c;
}

void compare_add(struct comparison *comparison,
		 const struct compare_side *left,
		 const struct compare_side *right, uint64_t count)
{
	struct compare_block block = {
		.left = left, .right = right,
		.a = left->data, .b = right->data,
		.parts = is_complex(left->dtype) || is_complex(right->dtype) ?
			 2 : 1,
	};
	unsigned limit = BLOCK_COUNT / block.parts;
	struct comparison part;

	while (count > 0) {
		block.count = count < limit ? (unsigned)count : limit;
		part = compare_block(&block, comparison->first == COMPARE_NONE);
		compare_merge(comparison, &part);
		block.a += block.count * dtype_info(left->dtype)->size;
		block.b += block.count * dtype_info(right->dtype)->size;
		count -= block.count;
	}
}

void compare_merge(struct comparison *comparison,
		   const struct comparison *other)
{
	if (comparison->first == COMPARE_NONE && other->first != COMPARE_NONE)
		comparison->first = comparison->count + other->first;
	comparison->count += other->count;
	comparison->left_nans += other->left_nans;
	comparison->right_nans += other->right_nans;
	comparison->left_out += other->left_out;
	comparison->infinite += other->infinite;
	comparison->most = fmax(comparison->most, other->most);
	comparison->distance += other->distance;
	comparison->norm += other->norm;
}

double compare_relative(const struct comparison *comparison)
{
	if (comparison->infinite > 0)
		return (double)INFINITY;
	if (comparison->distance == 0)
		return 0;
	return (double)sqrtl(comparison->distance / comparison->norm);
}
