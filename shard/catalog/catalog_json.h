/* SPDX-License-Identifier: Apache-2.0 */
/* A catalog as text, for tensors.json and extended attributes. */
#ifndef SHARD_CATALOG_CATALOG_JSON_H
#define SHARD_CATALOG_CATALOG_JSON_H

#include "shard/base/array.h"
#include "shard/catalog/catalog.h"

/* A catalog, and whose its files are. */
struct owned_catalog {
	const struct catalog *catalog;
	const uint32_t *owners;		/* the rank of each file */
};

/* Each appends to @out. 0, -ENOMEM, or what is said. */

/* One tensor as an object on one line, without a line end. -E2BIG when its
 * shards are over @limit bytes. */
int catalog_json_tensor(const struct owned_catalog *owned, uint64_t index,
			uint64_t limit, struct array *out);

/* The sizes of @shape: [4096,1024]. */
int catalog_json_shape(const struct box *shape, struct array *out);

/* The shards of @entry that touch @selection, as an array; holes are no
 * shards. -E2BIG when that is over @limit bytes; 0: no limit. */
int catalog_json_shards(const struct owned_catalog *owned,
			const struct catalog_entry *entry,
			const struct box *selection, size_t limit,
			struct array *out);

#endif
