/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint of safetensors files: one file, Hugging Face's shards with an
 * index, or DCP's sharded safetensors, whose files say where in the tensor
 * each piece lies (DCP_SHARDING_INFO).
 * Source: torch/distributed/checkpoint/hf_storage.py and
 * _consolidate_hf_safetensors.py.
 *
 * Which files count, among those of a folder:
 *
 *	some have DCP_SHARDING_INFO	they do; of the others, only what is in
 *					none of them: they were made from them
 *					and may be wrong
 *	there is an index		those that it names, and in each the
 *					tensors that it names for it
 *	there is model.safetensors	that one alone
 *	else				all, in the order of names; of a tensor
 *					that is in two, the first
 */
#ifndef SHARD_SAFETENSORS_HF_H
#define SHARD_SAFETENSORS_HF_H

#include "shard/catalog/catalog_builder.h"
#include "shard/safetensors/safetensors.h"

struct hf_file {
	const char *path;		/* borrowed; relative to the folder */
	struct safetensors header;	/* const; of a file that was read */
	int error;			/* -errno: it could not be read */
	struct fault fault;		/* why */
};

/* The files of a checkpoint. Borrows all. */
struct hf_folder {
	const struct hf_file *files;	/* sorted by path */
	unsigned count;
	const struct array *index;	/* text of an index; NULL: none */
};

/*
 * Add what @folder describes to @builder, whose notes get what is missing. 0,
 * or -errno with @fault filled and @ret_bad the file's index, or the count of
 * files for the index's. A file that does not count may be bad.
 */
int hf_read(struct catalog_builder *builder, const struct hf_folder *folder,
	    struct fault *fault, unsigned *ret_bad);

#endif
