/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a catalog that are on this machine, opened when first needed and
 * kept open, up to a number for the whole process, until they are not used for a
 * while. Thread safe; the fast path of get and put takes no lock.
 *
 * A file has the bytes that its pin speaks of, or it is not used. It may lose
 * its name, get other links, another mode or owner: what is open is read on.
 */
#ifndef SHARD_READ_FILE_CACHE_H
#define SHARD_READ_FILE_CACHE_H

#include "shard/catalog/catalog.h"
#include "shard/read/placement.h"

#include <stdatomic.h>
#include <stdbool.h>

struct file_cache;

/* Borrows its arguments, which outlive it. @stale is set whenever a file is
 * found to be another one. NULL: no memory. */
struct file_cache *file_cache_create(const struct placement *placement,
				     const struct catalog *catalog,
				     atomic_bool *stale);
/* Nothing may be got any more. NULL is fine. */
void file_cache_destroy(struct file_cache *files);

struct cached_file {
	int fd;
	uint64_t size;			/* bytes */
};

/*
 * File @index, valid until file_cache_put. 0, or -ESTALE when it is not what
 * its pin says, -ENOENT when no folder that is open here has it, -EAGAIN when
 * @nowait and it is not open, or what opening it gave.
 */
int file_cache_get(struct file_cache *files, uint32_t index, bool nowait,
		   struct cached_file *ret_file);
void file_cache_put(struct file_cache *files, uint32_t index);

/* Compare file @index, which was got, with its pin. 0 or -ESTALE. */
int file_cache_check(struct file_cache *files, uint32_t index);

/*
 * Open file @index, and keep it open until as many releases, unless there are
 * no descriptors left for that. 0; -EAGAIN if @nowait; -ESTALE likewise.
 */
int file_cache_hold(struct file_cache *files, uint32_t index, bool nowait);
void file_cache_release(struct file_cache *files, uint32_t index);

/* Close what nobody has got or holds: what was removed takes no space on the disk
 * any longer. May block. */
void file_cache_close_idle(struct file_cache *files);

/* The files' pages never leave memory (tmpfs): reading them never blocks. */
bool file_cache_in_memory(const struct file_cache *files);

#endif
