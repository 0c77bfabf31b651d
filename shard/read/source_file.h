/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source of shards in files of this machine.
 *
 * A file is what its pin says or it is not used: it is checked before its
 * bytes are read and again when they have been (see file_cache.h). What was
 * read of one that has changed is -ESTALE.
 */
#ifndef SHARD_READ_SOURCE_FILE_H
#define SHARD_READ_SOURCE_FILE_H

#include "shard/base/io.h"
#include "shard/read/extent.h"
#include "shard/read/placement.h"
#include "shard/read/source.h"

#include <stdatomic.h>

struct source_file;

/* Borrows its arguments, as file_cache_create. NULL: no memory. */
struct source_file *source_file_create(const struct placement *placement,
				       const struct catalog *catalog,
				       atomic_bool *stale);
void source_file_destroy(struct source_file *source);

/* The interface; borrowed from @source. */
struct source *source_file_source(struct source_file *source);

/* Is file @index of the catalog what its pin says? 0, -ESTALE, -EIO when it
 * is nowhere here, -EAGAIN when @nowait and it is not open, or what opening it
 * gave. */
int source_file_check(struct source_file *source, uint32_t index, bool nowait);

/* Keep one file of the catalog, as file_cache_hold. */
int source_file_hold(struct source_file *source, uint32_t index, bool nowait);
void source_file_release(struct source_file *source, uint32_t index);
/* As file_cache_close_idle. */
void source_file_close_idle(struct source_file *source);

/*
 * Read the whole stored item of shard @shard of @entry (not a hole), at most
 * @limit bytes, through @use, which gets it as an input. What @use returns is
 * returned; -errno as for reads.
 */
int source_file_item(struct source_file *source,
		     const struct catalog_shard *shard,
		     int (*use)(void *context, const struct input *input),
		     void *context);

#endif
