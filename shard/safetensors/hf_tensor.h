/* SPDX-License-Identifier: Apache-2.0 */
/* One tensor of a checkpoint of safetensors files, out of its pieces: a part
 * of hf_read.c. */
#ifndef SHARD_SAFETENSORS_HF_TENSOR_H
#define SHARD_SAFETENSORS_HF_TENSOR_H

#include "shard/safetensors/hf.h"
#include "shard/safetensors/sharding.h"

/* A tensor of a file, and the next piece of the same tensor of the
 * checkpoint. */
struct hf_piece {
	uint32_t file, tensor;
	uint32_t next;			/* index + 1; 0: the last one */
};

struct hf_pieces {
	const struct hf_file *files;	/* borrowed */
	struct sharding *shardings;	/* borrowed; of each file */
	struct array pieces;		/* struct hf_piece */
	struct fault *fault;		/* borrowed, may be NULL */
	unsigned bad;			/* file that the fault is in */
};

/* Add the tensor @name, whose first piece is @first (index + 1), to
 * @builder. 0, or -errno with the fault filled. */
int hf_tensor_add(struct hf_pieces *p, struct catalog_builder *builder,
		  const char *name, size_t size, uint32_t first);

/* Fill the fault: what is wrong with a piece. Returns @error. */
int hf_tensor_refuse(struct hf_pieces *p, const struct hf_piece *piece,
		     int error, const char *reason);

#endif
