/* SPDX-License-Identifier: Apache-2.0 */
/* Extents of a file, read and put where they belong in a reply's buffer. */
#ifndef SHARD_READ_GATHER_H
#define SHARD_READ_GATHER_H

#include "shard/read/extent.h"
#include "shard/read/file_cache.h"

struct gather {
	const struct cached_file *file; /* borrowed */
	unsigned char *target;		/* the reply's buffer */
	unsigned char *scratch;
	uint64_t scratch_size;		/* bytes */
	enum dtype dtype;
	unsigned flags;			/* enum layout_flag */
};

/* All of @extents, a piece of a shard. 0 or -errno. */
int gather_extents(const struct gather *gather, struct extents *extents);

#endif
