/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source around the source of files, for shards whose stored items are
 * behind stream extensions: such an item is decoded as a whole when it is
 * first needed, and kept in a cache. All other shards go to the source below.
 *
 * Known extensions: stream.zstd/1. Several are undone from the last to the
 * first, since the writer lists the innermost first. A shard behind any other
 * is -EOPNOTSUPP, and the fault names it; so is one that is larger, decoded,
 * than the cache. What is wrong with an item is said once.
 *
 * Objects behind stream extensions are not read as entries, whose sizes are
 * those of what is stored: source_decoded_item has them.
 */
#ifndef SHARD_READ_SOURCE_DECODED_H
#define SHARD_READ_SOURCE_DECODED_H

#include "shard/codec/decoded_cache.h"
#include "shard/read/source_file.h"

struct source_decoded;

/* All are borrowed and must outlive the source. Without a cache, which may be
 * NULL, nothing is decoded. NULL: no memory. */
struct source_decoded *source_decoded_create(struct source_file *below,
					     const struct catalog *catalog,
					     struct decoded_cache *cache);
/* NULL is fine. */
void source_decoded_destroy(struct source_decoded *source);

/* The interface; borrowed from @source. */
struct source *source_decoded_source(struct source_decoded *source);

/* As source_file_item, of any shard of the catalog: @use gets the item
 * decoded, and reads nothing else from this source. -E2BIG when it is larger
 * than the cache. */
int source_decoded_item(struct source_decoded *source,
			const struct catalog_shard *shard,
			int (*use)(void *context, const struct input *input),
			void *context);

#endif
