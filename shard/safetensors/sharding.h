/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DCP_SHARDING_INFO of a safetensors file: where in its tensor each piece
 * lies.
 *
 *	{"KEY": {"saved_offsets": [0, 4],
 *		 "global_shape": [8, 8], "logical_fqn": "NAME"}, ...}
 *
 * What stands in the second line is optional; then the key is the tensor's
 * name, and its shape is what the pieces reach.
 * Source: torch/distributed/checkpoint/{_hf_utils,hf_storage}.py, and pytorch
 * #189945 for the second line.
 *
 * Numbers are in units of torch, which counts F4 by bytes: those of
 * safetensors_pack.
 */
#ifndef SHARD_SAFETENSORS_SHARDING_H
#define SHARD_SAFETENSORS_SHARDING_H

#include "shard/safetensors/safetensors.h"

struct sharding {
	struct array pieces;	/* one for each tensor of the file */
	struct array numbers;	/* uint64_t */
	struct array names;
};

struct sharding_piece {
	const uint64_t *offsets;	/* one an axis; NULL: the tensor was
					 * not named, it is whole */
	const uint64_t *global;		/* likewise; NULL: not known */
	const char *name;		/* of the tensor; borrowed from the
					 * header if need be */
	size_t name_size;		/* bytes */
};

/* 0, or with @fault filled: -EBADMSG, -E2BIG, -ENOMEM. A header that is not
 * sharded gives whole tensors. */
int sharding_read(const struct safetensors *header, struct sharding *ret,
		  struct fault *fault);
void sharding_finish(struct sharding *sharding);

/* What it says of tensor @index; all borrowed from both. */
void sharding_piece(const struct sharding *sharding,
		    const struct safetensors *header, uint64_t index,
		    struct sharding_piece *ret_piece);

#endif
