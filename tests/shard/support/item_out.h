/* SPDX-License-Identifier: Apache-2.0 */
/* Stored items as torch.save makes them of a tensor. */
#ifndef SUPPORT_ITEM_OUT_H
#define SUPPORT_ITEM_OUT_H

#include "support/put.h"

#include "shard/base/box.h"
#include "shard/base/dtype.h"

struct item_spec {
	enum dtype dtype;
	unsigned ndim;
	uint64_t size[LIMIT_NDIM];
	uint64_t stride[LIMIT_NDIM];	/* elements */
	uint64_t first;			/* element of the storage */
	const void *storage;		/* bytes as they are stored */
	uint64_t storage_size;		/* bytes */
	bool conj, neg;
	const char *byte_order;		/* NULL: no such record */
	bool checked;			/* with checksums */
};

/* A row-major tensor of zeros; @storage_size is set, `storage` is NULL. */
struct item_spec item_spec_make(enum dtype dtype, unsigned ndim,
				const uint64_t *size);

/* The call that makes the tensor, as part of a pickle: _rebuild_tensor_v2 of
 * types that have a storage class, else _rebuild_tensor_v3. */
void item_out_call(struct array *pickle, const struct item_spec *spec);
/* ('storage', TYPE, KEY, 'cpu', COUNT) as a persistent id. */
void item_out_storage(struct array *pickle, const char *type, const char *key,
		      uint64_t count);

/* Append the whole item to @out; @pickle is its data.pkl. */
void item_out_archive(struct array *out, const struct array *pickle,
		      const struct item_spec *spec);
void item_out(struct array *out, const struct item_spec *spec);

#endif
