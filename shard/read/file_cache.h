/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a catalog, opened when first needed and kept open, up to a
 * number for the whole process. Thread safe; the fast path of get and put takes
 * no lock.
 */
#ifndef SHARD_READ_FILE_CACHE_H
#define SHARD_READ_FILE_CACHE_H

#include "shard/base/io.h"
#include "shard/catalog/catalog.h"

struct file_cache;

/* Borrows its arguments, as source_file_create. NULL: no memory. */
struct file_cache *file_cache_create(int folder, const struct catalog *catalog,
				     const struct pin *pins);
/* Likewise, of several ranks: @folders by rank, and the rank of each file,
 * whose folder is there if it is ever got. */
struct file_cache *file_cache_create_spread(const int *folders,
					    const uint32_t *ranks,
					    const struct catalog *catalog,
					    const struct pin *pins);
/* Nothing may be got any more. NULL is fine. */
void file_cache_destroy(struct file_cache *files);

struct cached_file {
	int fd;
	uint64_t size;			/* bytes */
};

/*
 * File @index, valid until file_cache_put. 0, or -ESTALE when it is not what
 * its pin says, -ENOENT when it was missing, -EAGAIN when @nowait and it is not
 * open, or what opening it gave.
 */
int file_cache_get(struct file_cache *files, uint32_t index, bool nowait,
		   struct cached_file *ret_file);
void file_cache_put(struct file_cache *files, uint32_t index);

/* Compare file @index, which was got, with its pin. 0 or -ESTALE. */
int file_cache_check(struct file_cache *files, uint32_t index);

/* Some file was found not to be what its pin says. */
bool file_cache_is_stale(const struct file_cache *files);

/* The files' pages never leave memory (tmpfs): reading them never blocks. */
bool file_cache_in_memory(const struct file_cache *files);

#endif
