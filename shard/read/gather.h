/* SPDX-License-Identifier: Apache-2.0 */
/* Extents of a file, read to where they belong. */
#ifndef SHARD_READ_GATHER_H
#define SHARD_READ_GATHER_H

#include "shard/base/io.h"
#include "shard/read/extent.h"

struct gather {
	struct io_file file;
	uint64_t file_size;		/* bytes */
	unsigned char *target;		/* where byte 0 of the piece goes */
	unsigned char *window;		/* LIMIT_READ_SIZE bytes of scratch */
	enum dtype dtype;
	unsigned flags;			/* enum layout_flag */
};

/* All of @extents, a piece of a shard, of at most LIMIT_READ_SIZE bytes. 0;
 * -EAGAIN when it would block and the file says not to; -errno. */
int gather_extents(const struct gather *gather, struct extents *extents);

#endif
