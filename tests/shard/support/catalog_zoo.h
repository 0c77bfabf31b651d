/* SPDX-License-Identifier: Apache-2.0 */
/* One small catalog that has an entry of every kind. */
#ifndef SUPPORT_CATALOG_ZOO_H
#define SUPPORT_CATALOG_ZOO_H

#include "support/catalog_out.h"

/* Indices of its entries; the shards follow each other in another order: the
 * object ZOO_FIRST is in front of ZOO_DEEP, and ZOO_OVERLAP is last. */
enum zoo {
	ZOO_PLAIN,	/* F32 4 x 6: rows 0 to 2 in "a", the others in "b" */
	ZOO_SCALAR,
	ZOO_DEEP,	/* "app.model.layer.w", of 3 parts: app.model, layer, w;
			 * BF16 3 x 6: columns 0 to 4, the others */
	ZOO_LARGE,	/* U8 2^33 x 2, of 8 bytes a number */
	ZOO_EMPTY,	/* F32 0 x 5, one shard */
	ZOO_BARE,	/* F32 3 x 0, no shard */
	ZOO_HOLE,	/* F32 4: 0 to 2 are there */
	ZOO_PACKED,	/* F4 5 x 2 x 3, which is 5 x 1 x 3 bytes; raw */
	ZOO_UNKNOWN,	/* 2 of the type "weird" */
	ZOO_CODED,	/* F32 4 behind "stream.zstd/1" */
	ZOO_OVERLAP,	/* F32 4: 1 to 4, then 0 to 3 */
	ZOO_TENSORS,
	ZOO_FIRST = ZOO_TENSORS,	/* objects */
	ZOO_SECOND,
};

/* The caller puts it. */
struct catalog *catalog_zoo(void);

#endif
