/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the sections of a catalog lie, and its hash: what who builds one and
 * who checks one must agree on. Pure.
 *
 *	catalog | entries: tensors, objects | shards | files | transforms |
 *	dims | names | hash slots of the tensors | of the objects
 *
 * Each section begins at a multiple of 8, where the one before it ends.
 */
#ifndef SHARD_CATALOG_CATALOG_LAYOUT_H
#define SHARD_CATALOG_CATALOG_LAYOUT_H

#include "shard/catalog/catalog.h"

/*
 * From the counts of @catalog, within their limits, and the sizes of two
 * sections in bytes: the magic number, the offsets, the numbers of slots, and
 * the size of the blob.
 */
void catalog_layout(struct catalog *catalog, uint64_t dims_size,
		    uint64_t names_size);

/* The hash of what lies between the entries and the tables. */
void catalog_hash(const struct catalog *catalog, uint64_t ret_hash[2]);

#endif
