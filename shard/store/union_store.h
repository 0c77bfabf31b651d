/* SPDX-License-Identifier: Apache-2.0 */
/* The stores of all ranks as one. What is in a folder may be a second old; of
 * files that are equal on several ranks, the nearest is read. */
#ifndef SHARD_STORE_UNION_STORE_H
#define SHARD_STORE_UNION_STORE_H

#include "shard/store/peers.h"
#include "shard/store/store.h"

/* @peers is borrowed, and need not be ready; this rank's own store is among
 * theirs. @say, which may be NULL, gets a line for each conflict, once. NULL: no
 * memory. */
struct store *union_store_create(struct peers *peers,
				 void (*say)(void *context, const char *line),
				 void *context);

/* What rank @rank had in the folder @path at the last look, as records appended
 * to @out; never blocks. -ENODATA: it is not remembered. -ENOMEM. @store is one
 * of union_store_create. */
int union_store_recall(struct store *store, const char *path, unsigned rank,
		       struct array *out);

#endif
