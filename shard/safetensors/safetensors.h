/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header of a safetensors file, checked as the safetensors library checks
 * it, and as its text describes it where the library is lax.
 * Source: huggingface/safetensors, safetensors/src/tensor.rs and README.md.
 */
#ifndef SHARD_SAFETENSORS_SAFETENSORS_H
#define SHARD_SAFETENSORS_SAFETENSORS_H

#include "shard/base/array.h"
#include "shard/base/dtype.h"
#include "shard/base/fault.h"
#include "shard/base/hash_table.h"
#include "shard/base/io.h"
#include "shard/base/limits.h"

#include <stdbool.h>

struct safetensors_tensor {
	uint64_t name;		/* offset in `names`, bytes */
	uint64_t dims;		/* index in `dims` of its sizes as written */
	uint64_t begin, end;	/* bytes, from the start of the data */
	uint64_t source;	/* byte offset in the file, for faults */
	uint32_t name_size;	/* bytes */
	uint8_t ndim;
	uint8_t dtype;		/* enum dtype; never DTYPE_UNKNOWN */
};

struct safetensors {
	uint64_t data_offset;	/* 8 + N, bytes from the start of the file */
	uint64_t data_size;	/* largest end, bytes */
	uint64_t tensor_count;
	struct array tensors;	/* struct safetensors_tensor, in the order of
				 * their data */
	struct array dims;	/* uint64_t */
	struct array names;
	struct hash_table table; /* of tensors by their names */
	struct array sharding;	/* text of DCP_SHARDING_INFO */
	uint64_t sharding_source; /* byte offset of that in the file */
	bool is_sharded;	/* it was there */
};

/*
 * Parse the header of the file in @input. @exact: the file must end where the
 * last tensor ends; else, inside of a .distcp, it may go on. 0, or with
 * @fault filled (offsets from the start of @input): -EBADMSG for what is not
 * safetensors, -E2BIG beyond a limit, -ENOMEM, or what reading gave.
 */
int safetensors_read(const struct input *input, bool exact,
		     struct safetensors *ret, struct fault *fault);
void safetensors_finish(struct safetensors *safetensors);

const struct safetensors_tensor *
safetensors_tensor(const struct safetensors *safetensors, uint64_t index);
const char *safetensors_name(const struct safetensors *safetensors,
			     const struct safetensors_tensor *tensor);
const uint64_t *safetensors_dims(const struct safetensors *safetensors,
				 const struct safetensors_tensor *tensor);
/* Index of the tensor called @name; -1: none. */
int64_t safetensors_find(const struct safetensors *safetensors,
			 const char *name, size_t size);

/*
 * The geometry of a tensor in a catalog: @ndim sizes at @written, in elements
 * of @dtype, as sizes that count whole bytes where elements share them (see
 * catalog.h). False when it is the same, as for all types of whole bytes. The
 * whole must be whole bytes, and the product of what is not 0 no overflow.
 */
bool safetensors_pack(enum dtype dtype, unsigned ndim, const uint64_t *written,
		      uint64_t *ret_size);

#endif
