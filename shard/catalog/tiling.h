/* SPDX-License-Identifier: Apache-2.0 */
/* Do the shards of a tensor tile it exactly? */
#ifndef SHARD_CATALOG_TILING_H
#define SHARD_CATALOG_TILING_H

#include "shard/base/box.h"

struct tile {
	const struct box *whole;	/* the tensor, at the origin */
	const uint64_t *numbers;	/* `count` times: ndim offsets, ndim
					 * sizes; inside of it, none empty */
	uint64_t count;
};

struct tiling_result {
	bool overlap;
	struct box *holes;		/* owned by the caller: free() */
	uint32_t hole_count;
};

/*
 * 0 with @ret_result, or -ENOMEM, or -E2BIG when it would take more than
 * LIMIT_TILE_STEPS comparisons. Beyond LIMIT_HOLES boxes the whole tensor is
 * reported as one, within which the holes lie.
 */
int tiling_check(const struct tile *tile, struct tiling_result *ret_result);

#endif
