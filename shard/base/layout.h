/* SPDX-License-Identifier: Apache-2.0 */
/* How the elements of a shard lie in its file: what the formats find out, and
 * what reading needs. */
#ifndef SHARD_BASE_LAYOUT_H
#define SHARD_BASE_LAYOUT_H

#include "shard/base/limits.h"

#include <stdint.h>

enum layout_flag {
	LAYOUT_SWAP = 1,	/* stored big-endian */
	LAYOUT_CONJ = 2,	/* imaginary parts are to be negated */
	LAYOUT_NEG = 4,		/* all parts are to be negated */
};

/* How the elements of a shard lie in its file. */
struct layout {
	uint64_t offset;		/* of element (0, ...), bytes */
	unsigned flags;			/* enum layout_flag */
	uint64_t stride[LIMIT_NDIM];	/* elements */
};

#endif
