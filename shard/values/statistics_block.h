/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics of a few elements of any type that has values. */
#ifndef SHARD_VALUES_STATISTICS_BLOCK_H
#define SHARD_VALUES_STATISTICS_BLOCK_H

#include "shard/values/statistics.h"

/* Numbers of a block; a complex element has two. */
enum { STATISTICS_BLOCK = 1024 };

/* @count > 0 elements, of at most STATISTICS_BLOCK numbers. */
struct statistics statistics_block(enum dtype dtype, const void *data,
				   unsigned count);

#endif
