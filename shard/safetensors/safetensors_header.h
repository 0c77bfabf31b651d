/* SPDX-License-Identifier: Apache-2.0 */
/* The header of a safetensors file that is written: for virtual_file.c. */
#ifndef SHARD_SAFETENSORS_SAFETENSORS_HEADER_H
#define SHARD_SAFETENSORS_SAFETENSORS_HEADER_H

#include "shard/base/array.h"
#include "shard/catalog/catalog.h"

struct safetensors_header {
	const struct catalog *catalog;	/* borrowed */
	struct array tensors;		/* text: ,"NAME":{...} each */
	struct array left_out;		/* text: ,"NAME" each */
};

/* A tensor of the catalog as such a file has it. */
struct safetensors_header_tensor {
	uint64_t entry;			/* index in the catalog */
	enum dtype dtype;		/* that it is read as */
	const char *key;		/* its name in the file; borrowed */
	size_t key_size;		/* bytes */
	uint64_t begin;			/* of its data, bytes behind the
					 * header */
};

/* Can @tensor stand in such a file, wherever it begins? Not when safetensors
 * has no such type, or JSON no such text. */
bool safetensors_header_fits(const struct catalog *catalog,
			     const struct safetensors_header_tensor *tensor);

/* Add the whole of a tensor that fits. 0 or -ENOMEM, like the next. */
int safetensors_header_add(struct safetensors_header *header,
			   const struct safetensors_header_tensor *tensor);
/* Add the name of one that does not. */
int safetensors_header_leave_out(struct safetensors_header *header,
				 const char *key, size_t size);

/* The start of the file, up to a multiple of 4096, appended to @out. 0;
 * -E2BIG beyond what the format allows; -ENOMEM. */
int safetensors_header_finish(struct safetensors_header *header,
			      struct array *out);
void safetensors_header_clear(struct safetensors_header *header);

/* The start of a file of one tensor, or of a part of it, under its own name.
 * -EOPNOTSUPP when it does not fit. */
int safetensors_header_slice(const struct catalog *catalog, uint64_t entry,
			     enum dtype dtype, const struct box *selection,
			     struct array *out);

#endif
