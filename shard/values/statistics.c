/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Of elements of one or two bytes it is counted how often each of the few
 * possible values occurs. All others go through blocks.
 */
#include "shard/values/statistics.h"

#include "shard/values/convert.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Elements that are counted at a time: fewer than the counts can hold. */
enum { PART_MAX = 1 << 30 };

/* ---- by patterns --------------------------------------------------------- */

/* Of 256 numbers that occur @counts times. */
static struct statistics weigh(const double *x, const uint32_t *counts)
{
	struct statistics s = STATISTICS_NONE;
	uint64_t finite = 0;
	unsigned i;

	for (i = 0; i < 256; i++) {
		uint32_t count = counts[i];

		s.count += count;
		if (count == 0 || isnan(x[i]) || isinf(x[i])) {
			s.nans += isnan(x[i]) ? count : 0;
			s.infs += isinf(x[i]) ? count : 0;
			continue;
		}
		s.zeros += x[i] == 0 ? count : 0;
		s.min = finite && s.min < x[i] ? s.min : x[i];
		s.max = finite && s.max > x[i] ? s.max : x[i];
		s.mean += (long double)x[i] * count;
		finite += count;
	}
	if (finite > 0)
		s.mean /= finite;
	for (i = 0; i < 256; i++)
		if (counts[i] > 0 && isfinite(x[i]))
			s.squares += (x[i] - s.mean) * (x[i] - s.mean) *
				     counts[i];
	return s;
}

/* Elements of one byte. Four tables: where one value follows the other, they
 * need not wait for each other. */
static void add_bytes(struct statistics *statistics, enum dtype dtype,
		      const unsigned char *data, uint32_t count)
{
	uint32_t counts[4][256] = { { 0 } }, i;
	unsigned char patterns[256];
	struct statistics s;
	double x[256];

	for (i = 0; i + 4 <= count; i += 4) {
		counts[0][data[i]]++;
		counts[1][data[i + 1]]++;
		counts[2][data[i + 2]]++;
		counts[3][data[i + 3]]++;
	}
	for (; i < count; i++)
		counts[0][data[i]]++;
	for (i = 0; i < 256; i++) {
		patterns[i] = (unsigned char)i;
		counts[0][i] += counts[1][i] + counts[2][i] + counts[3][i];
	}
	convert_to_double(dtype, patterns, x, 256);
	s = weigh(x, counts[0]);
	statistics_merge(statistics, &s);
}

enum { HALVES = 1 << 16 };

struct half_counts {
	uint32_t even[HALVES], odd[HALVES];
};

/* The patterns from @first on, 256 of them. */
static void add_patterns(struct statistics *statistics, enum dtype dtype,
			 const struct half_counts *counts, unsigned first)
{
	uint32_t both[256], any = 0;
	uint16_t patterns[256];
	struct statistics s;
	double x[256];
	unsigned i;

	for (i = 0; i < 256; i++) {
		patterns[i] = (uint16_t)(first + i);
		both[i] = counts->even[first + i] + counts->odd[first + i];
		any |= both[i];
	}
	if (!any)
		return;
	convert_to_double(dtype, patterns, x, 256);
	s = weigh(x, both);
	statistics_merge(statistics, &s);
}

/* Elements of two bytes. False: no memory. */
static bool add_halves(struct statistics *statistics, enum dtype dtype,
		       const unsigned char *data, uint32_t count)
{
	struct half_counts *counts = calloc(1, sizeof(*counts));
	uint16_t x[2];
	uint32_t i;

	if (!counts)
		return false;
	for (i = 0; i + 2 <= count; i += 2) {
		memcpy(x, data + (size_t)i * 2, 4);
		counts->even[x[0]]++;
		counts->odd[x[1]]++;
	}
	if (i < count) {
		memcpy(x, data + (size_t)i * 2, 2);
		counts->even[x[0]]++;
	}
	for (i = 0; i < HALVES; i += 256)
		add_patterns(statistics, dtype, counts, i);
	free(counts);
	return true;
}

/* ---- all of them --------------------------------------------------------- */

static void add_blocks(struct statistics *statistics, enum dtype dtype,
		       const unsigned char *data, uint32_t count)
{
	const struct dtype_info *info = dtype_info(dtype);
	uint32_t limit = STATISTICS_BLOCK, part;
	struct statistics s;

	if (info->kind == DTYPE_KIND_COMPLEX)
		limit /= 2;
	for (; count > 0; count -= part) {
		part = count < limit ? count : limit;
		s = statistics_block(dtype, data, part);
		statistics_merge(statistics, &s);
		data += (size_t)part * info->size;
	}
}

void statistics_add(struct statistics *statistics, enum dtype dtype,
		    const void *data, uint64_t count)
{
	size_t size = dtype_info(dtype)->size;
	const unsigned char *p = data;
	uint32_t part;

	for (; count > 0; count -= part) {
		part = count < PART_MAX ? (uint32_t)count : PART_MAX;
		if (size == 1)
			add_bytes(statistics, dtype, p, part);
		else if (size > 2 || part < HALVES ||
			 !add_halves(statistics, dtype, p, part))
			add_blocks(statistics, dtype, p, part);
		p += part * size;
	}
}

static void merge_numbers(struct statistics *s, const struct statistics *other)
{
	uint64_t mine = statistics_finite(s);
	uint64_t theirs = statistics_finite(other);
	long double all = (long double)mine + theirs;
	long double apart = other->mean - s->mean;

	if (theirs == 0)
		return;
	if (mine == 0 || other->min < s->min)
		s->min = other->min;
	if (mine == 0 || other->max > s->max)
		s->max = other->max;
	if (mine == 0 || other->low < s->low)
		s->low = other->low;
	if (mine == 0 || other->high > s->high)
		s->high = other->high;
	s->mean += apart * (theirs / all);
	s->squares += other->squares + apart * apart * (mine / all * theirs);
}

void statistics_merge(struct statistics *statistics,
		      const struct statistics *other)
{
	merge_numbers(statistics, other);
	statistics->count += other->count;
	statistics->zeros += other->zeros;
	statistics->nans += other->nans;
	statistics->infs += other->infs;
}

uint64_t statistics_finite(const struct statistics *statistics)
{
	return statistics->count - statistics->nans - statistics->infs;
}

double statistics_deviation(const struct statistics *statistics)
{
	uint64_t count = statistics_finite(statistics);

	return count ? (double)sqrtl(statistics->squares / count) : 0;
}
