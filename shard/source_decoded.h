/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source around the source of files, for shards whose stored items are
 * behind stream extensions: such an item is decoded as a whole when it is
 * first needed, and kept in a cache. All other shards go to the source below.
 *
 * Known extensions: stream.zstd/1. Several are undone from the last to the
 * first, since the writer lists the innermost first. A shard behind any other
 * is -EOPNOTSUPP, and the fault names it.
 */
#ifndef SHARD_SOURCE_DECODED_H
#define SHARD_SOURCE_DECODED_H

#include "shard/source_file.h"

/* Decoded items in unlinked files in memory, shared by all checkpoints of a
 * process. Those that nobody reads go first, the longest unused before. */
struct decoded_cache;

/* Keep at most @size_max bytes. NULL: no memory. */
struct decoded_cache *decoded_cache_create(uint64_t size_max);
/* All sources that use it are gone. NULL is fine. */
void decoded_cache_destroy(struct decoded_cache *cache);

struct source_decoded;

/* All are borrowed and must outlive the source. NULL: no memory. */
struct source_decoded *source_decoded_create(struct source_file *below,
					     const struct catalog *catalog,
					     struct decoded_cache *cache);
/* NULL is fine. */
void source_decoded_destroy(struct source_decoded *source);

/* The interface; borrowed from @source. */
struct source *source_decoded_source(struct source_decoded *source);

/* As source_file_item, of any shard: @use gets the item decoded. -E2BIG when
 * it is larger than the cache. */
int source_decoded_item(struct source_decoded *source,
			const struct catalog_shard *shard,
			int (*use)(void *context, const struct input *input),
			void *context);

#endif
