/* SPDX-License-Identifier: Apache-2.0 */
/* Where the stored items of DCP metadata lie, for dcp.c. */
#ifndef SHARD_DCP_DCP_PLACE_H
#define SHARD_DCP_DCP_PLACE_H

#include "shard/dcp/dcp_index.h"

/* Chains of stream extensions that were met, so that an item finds its own
 * without a comparison to all others. */
struct dcp_chains {
	struct array texts;	/* one behind the other */
	struct dcp_chain {
		uint64_t text;	/* offset in texts */
		uint32_t size;	/* bytes; 0: the slot is free */
		uint32_t flags;	/* of an item */
	} slots[2 * LIMIT_TRANSFORMS];
};

void dcp_chains_finish(struct dcp_chains *chains);

/*
 * Fill @ret for @builder from what storage_data says of @item. 0, or -errno
 * with the fault of @index. Work is bounded by the sizes of its strings, and
 * those of stream extensions by limits.h.
 */
int dcp_place(struct dcp_index *index, struct dcp_chains *chains,
	      struct catalog_builder *builder, const struct dcp_item *item,
	      struct catalog_item *ret);

#endif
