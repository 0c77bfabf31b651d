/* SPDX-License-Identifier: Apache-2.0 */
/* Where the stored items of DCP metadata lie, for dcp_read.c. */
#ifndef SHARD_DCP_DCP_PLACE_H
#define SHARD_DCP_DCP_PLACE_H

#include "shard/dcp/dcp_index.h"

/*
 * Fill @ret for @builder from what storage_data says of @item. 0, or -errno
 * with the fault of @index. Work is bounded by the sizes of its strings, and
 * those of stream extensions by limits.h.
 */
int dcp_place(struct dcp_index *index, struct catalog_builder *builder,
	      const struct dcp_item *item, struct catalog_item *ret);

#endif
