/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold of every catalog, whatever it was made from. */
#ifndef TESTS_FUZZ_CATALOG_CHECK_H
#define TESTS_FUZZ_CATALOG_CHECK_H

#include "shard/catalog/catalog.h"

/* Beyond these a catalog is looked at only in part, to stay fast. */
enum { CHECK_ENTRIES = 64, CHECK_SHARDS = 32, CHECK_ELEMENTS = 256 };

/* Abort unless names are found, boxes lie inside of their tensors, the text
 * of every tensor is JSON, and plans cover exactly what they were asked for. */
void check_catalog(const struct catalog *catalog);

/* Element @index of the row-major array of @box, in the tensor. */
void check_position(const struct box *box, uint64_t index, uint64_t *ret_at);

/* The shard that holds element @at of @entry: the last one listed; -1: it is
 * missing. */
int64_t check_owner(const struct catalog *catalog,
		    const struct catalog_entry *entry, const uint64_t *at);

#endif
