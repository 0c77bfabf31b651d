/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the elements of each shard of a catalog lie in its file: looked up in
 * the stored item when the shard is first read, and remembered. Thread safe.
 */
#ifndef SHARD_READ_ITEM_LAYOUTS_H
#define SHARD_READ_ITEM_LAYOUTS_H

#include "shard/base/io.h"
#include "shard/read/extent.h"
#include "shard/read/file_cache.h"
#include "shard/read/source.h"

struct item_layouts;

/* Borrows both. NULL: no memory. */
struct item_layouts *item_layouts_create(const struct catalog *catalog,
					 struct file_cache *files);
/* NULL is fine. */
void item_layouts_destroy(struct item_layouts *layouts);

/* A shard whose layout is asked for. Borrows both. */
struct shard_in_file {
	const struct catalog_entry *entry;
	uint64_t index;			/* among the entry's shards */
	const struct cached_file *file;	/* that it lies in, got */
};

/*
 * The layout of @shard. 0, or -errno as for reads; that an item is bad is said
 * in the fault of @reply, once for each.
 */
int item_layouts_get(struct item_layouts *layouts,
		     const struct shard_in_file *shard, struct reply *reply,
		     struct layout *ret);

/* A stored item inside of its file, as an input; -EIO: it is not inside. */
int item_layouts_item(const struct cached_file *file,
		      const struct catalog_shard *shard, struct input *ret);

#endif
