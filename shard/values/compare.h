/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far two tensors of one shape are apart, by value. Types may differ; each
 * element is taken as a double, but 64-bit integers of one type are subtracted
 * as they are. Elements that are NaN on either side are counted and left out.
 * Two infinities of one sign are not apart, other pairs with an infinity are
 * infinitely far.
 */
#ifndef SHARD_VALUES_COMPARE_H
#define SHARD_VALUES_COMPARE_H

#include "shard/base/dtype.h"

/* What `first` is where nothing differs. */
#define COMPARE_NONE UINT64_MAX

struct comparison {
	uint64_t count;		/* of elements on each side */
	uint64_t first;		/* index of the first that differs: in a byte
				 * where the types are the same, else in value;
				 * or COMPARE_NONE */
	uint64_t left_nans, right_nans;
	uint64_t left_out;	/* pairs with one of them or two */
	uint64_t infinite;	/* pairs that are infinitely far apart */
	double most;		/* largest distance of a pair, infinite when
				 * one is */
	long double distance;	/* sum of squared distances, but infinite
				 * ones */
	long double norm;	/* sum of squares of the left side, but infinite
				 * ones and what was left out */
};

/* Of no elements. */
#define COMPARISON_NONE ((struct comparison){ .first = COMPARE_NONE })

struct compare_side {
	enum dtype dtype;	/* one that has values (convert.h) */
	const void *data;
};

/* Add @count elements. */
void compare_add(struct comparison *comparison,
		 const struct compare_side *left,
		 const struct compare_side *right, uint64_t count);

/* Add all of @other, which comes behind. */
void compare_merge(struct comparison *comparison,
		   const struct comparison *other);

/* ||left - right|| / ||left||: 0 when nothing is apart, infinite when a pair is
 * infinitely far or the left side is all 0. */
double compare_relative(const struct comparison *comparison);

#endif
