/* SPDX-License-Identifier: Apache-2.0 */
/* The one loop that moves data: plan, gather pieces, have them filled in. */
#ifndef SHARD_READ_TRANSFER_H
#define SHARD_READ_TRANSFER_H

#include "shard/read/source.h"

struct transfer {
	struct source *source;			/* borrowed, as are all */
	const struct catalog *catalog;
	const struct catalog_entry *entry;
	const struct box *selection;
	uint64_t offset, size;	/* bytes of the view, inside of it */
};

/*
 * Fill @reply behind its base with the bytes, whole elements of a type that has
 * bytes. 0 or -errno (source.h). Thread safe for different replies.
 */
int transfer_read(const struct transfer *transfer, struct reply *reply);

#endif
