/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/source_decoded.h"

#include <stdlib.h>

struct decoded_cache {
	uint64_t size_max;
};

struct source_decoded {
	struct source_file *below;
};

struct decoded_cache *decoded_cache_create(uint64_t size_max)
{
	struct decoded_cache *cache = calloc(1, sizeof(*cache));

	if (cache)
		cache->size_max = size_max;
	return cache;
}

void decoded_cache_destroy(struct decoded_cache *cache)
{
	free(cache);
}

struct source_decoded *source_decoded_create(struct source_file *below,
					     const struct catalog *catalog,
					     struct decoded_cache *cache)
{
	struct source_decoded *source = calloc(1, sizeof(*source));

	(void)catalog;
	(void)cache;
	if (source)
		source->below = below;
	return source;
}

void source_decoded_destroy(struct source_decoded *source)
{
	free(source);
}

struct source *source_decoded_source(struct source_decoded *source)
{
	return source_file_source(source->below);
}

int source_decoded_item(struct source_decoded *source,
			const struct catalog_shard *shard,
			int (*use)(void *context, const struct input *input),
			void *context)
{
	return source_file_item(source->below, shard, use, context);
}
