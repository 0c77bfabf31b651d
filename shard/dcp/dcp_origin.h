/* SPDX-License-Identifier: Apache-2.0 */
/* Which releases of torch write such metadata, for dcp_read.c. */
#ifndef SHARD_DCP_DCP_ORIGIN_H
#define SHARD_DCP_DCP_ORIGIN_H

#include "shard/dcp/dcp_index.h"

/* @local: the metadata of ranks, __N.metadata. Judges by the first file. */
struct catalog_origin dcp_origin(const struct dcp_index *index, bool local);

#endif
