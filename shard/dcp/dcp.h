/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata of a PyTorch distributed checkpoint: the pickles `.metadata`
 * or `__N.metadata`, from torch 1.13 to 2.14 and Megatron.
 * Source: torch/distributed/checkpoint/{metadata,filesystem}.py. Classes are
 * known by the last part of their names, since the modules moved.
 */
#ifndef SHARD_DCP_DCP_H
#define SHARD_DCP_DCP_H

#include "shard/catalog/catalog_builder.h"

struct dcp_file {
	const void *data;	/* borrowed; not a mapping of a file */
	uint64_t size;		/* bytes */
	bool local;		/* of one rank: `__N.metadata` */
};

/*
 * Add what @count metadata files describe to @builder. Several are the
 * rank-local metadata of one checkpoint, in the order of ranks, and are
 * united by (name, offsets); of what is there twice, the lowest rank's is
 * taken. Also what @builder says of the origin; its notes get what is left
 * out. 0, or -errno with @fault filled and @ret_bad the file's index.
 */
int dcp_read(struct catalog_builder *builder, const struct dcp_file *files,
	     unsigned count, struct fault *fault, unsigned *ret_bad);

#endif
