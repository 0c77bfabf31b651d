/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics of a few elements of any type that has values. */
#ifndef SHARD_VALUES_STATISTICS_BLOCK_H
#define SHARD_VALUES_STATISTICS_BLOCK_H

#include "shard/base/dtype.h"

#include <stdint.h>

struct statistics {
	uint64_t count;			/* of elements */
	uint64_t zeros, nans, infs;	/* of them */
	double min, max;		/* of the finite ones, if any */
	uint64_t low, high;		/* the same exactly, of 64-bit integers;
					 * I64 with its sign bit flipped */
	long double mean;
	long double squares;		/* sum of squares of what each is away
					 * from the mean */
};

/* Numbers of a block; a complex element has two. */
enum { STATISTICS_BLOCK = 1024 };

/* @count > 0 elements, of at most STATISTICS_BLOCK numbers. */
struct statistics statistics_block(enum dtype dtype, const void *data,
				   unsigned count);

#endif
