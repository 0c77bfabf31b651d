/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source of shards in the files of one folder.
 *
 * A file is what its pin says or it is not used: it is checked before its
 * bytes are read and again when they have been. Once one differs the source is
 * stale for good, and every read is -ESTALE.
 */
#ifndef SHARD_READ_SOURCE_FILE_H
#define SHARD_READ_SOURCE_FILE_H

#include "shard/base/io.h"
#include "shard/read/extent.h"
#include "shard/read/source.h"

struct source_file;

/*
 * @folder, @catalog and @pins (one for each file of the catalog; inode 0: it
 * was missing) are borrowed and must outlive the source. NULL: no memory.
 */
struct source_file *source_file_create(int folder,
				       const struct catalog *catalog,
				       const struct pin *pins);
/* Likewise, as file_cache_create_spread. */
struct source_file *source_file_create_spread(const int *folders,
					      const uint32_t *ranks,
					      const struct catalog *catalog,
					      const struct pin *pins);
void source_file_destroy(struct source_file *source);

/* The interface; borrowed from @source. */
struct source *source_file_source(struct source_file *source);

/* A read met a file that is not what its pin says. */
bool source_file_is_stale(const struct source_file *source);

/* Is file @index of the catalog what its pin says? 0, -ESTALE, -EIO when it
 * was missing, -EAGAIN when @nowait and it is not open, or what opening it
 * gave. */
int source_file_check(struct source_file *source, uint32_t index, bool nowait);

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
