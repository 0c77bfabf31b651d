/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the values of a tensor are like. NaN and infinity are counted, and left
 * out of all the rest. Of a complex element its absolute value is what counts.
 *
 * Means are those of blocks, merged (Chan, Golub, LeVeque, "Updating formulae
 * and a pairwise algorithm for computing sample variances", 1979), so they
 * depend on where blocks begin and in which order they are merged, and on
 * nothing else.
 */
#ifndef SHARD_VALUES_STATISTICS_H
#define SHARD_VALUES_STATISTICS_H

#include "shard/values/statistics_block.h"

/* Of no elements: all zero. */
#define STATISTICS_NONE ((struct statistics){ .count = 0 })

/* Add @count elements, of a type that has values (convert.h). */
void statistics_add(struct statistics *statistics, enum dtype dtype,
		    const void *data, uint64_t count);

/* Add all of @other, which comes behind. */
void statistics_merge(struct statistics *statistics,
		      const struct statistics *other);

/* Elements that are numbers. */
uint64_t statistics_finite(const struct statistics *statistics);
/* Of the population; 0 when there are none. */
double statistics_deviation(const struct statistics *statistics);

#endif
