/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stored item of a DCP checkpoint that is a safetensors file inside of a
 * .distcp: what torch writes with SerializationFormat.SAFETENSORS. It holds
 * all tensors that one rank wrote into that file, and the items of all of
 * them begin where it begins; their sizes are those of their elements.
 * Source: torch/distributed/checkpoint/filesystem.py (_write_files_from_queue).
 */
#ifndef SHARD_SAFETENSORS_BLOB_H
#define SHARD_SAFETENSORS_BLOB_H

#include "shard/catalog/catalog.h"
#include "shard/safetensors/sharding.h"

struct blob {
	struct safetensors header;
	struct sharding sharding;
};

/* Does one seem to begin where @input does? Never where an item of the usual
 * form begins. 0 or what reading gave. */
int blob_detect(const struct input *input, bool *ret_found);

/* Parse the one in @input, which may go on behind its end. As
 * safetensors_read. */
int blob_open(const struct input *input, struct blob *ret,
	      struct fault *fault);
void blob_close(struct blob *blob);

enum blob_match {
	BLOB_MATCH,
	BLOB_NO_TENSOR,		/* none of this name, or another part of it */
	BLOB_OTHER_TYPE,
	BLOB_OTHER_SHAPE,
};

/* Where in @input the elements of shard @index of the tensor @entry are,
 * bytes. */
enum blob_match blob_find(const struct blob *blob,
			  const struct catalog *catalog,
			  const struct catalog_entry *entry, uint64_t index,
			  uint64_t *ret_offset);
/* What is wrong, a constant string. */
const char *blob_reason(enum blob_match match);

#endif
