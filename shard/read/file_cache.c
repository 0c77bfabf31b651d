/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot's state is a counter of its users and a bit that says it is open:
 *
 *	0		closed
 *	OPEN | n	open, n users; get and put are one atomic addition
 *
 * closed -> open and open -> closed happen under the lock. Closing takes the
 * slot from OPEN | 0 to 0 in one step, so a user that comes in between keeps
 * it open.
 */
#include "shard/read/file_cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static const uint32_t open_bit = UINT32_C(1) << 31;

/* Open slots of the process: each costs a descriptor. */
static atomic_uint open_total;
enum { OPEN_TOTAL_MAX = 16384 };

struct cache_slot {
	_Atomic uint32_t state;
	struct cached_file file; /* guarded by state: written while closed */
};

struct file_cache {
	int folder;			/* borrowed; const; -1: see below */
	const int *folders;		/* borrowed; const; by rank */
	const uint32_t *ranks;		/* borrowed; const; of each file */
	const struct catalog *catalog;	/* borrowed; const */
	const struct pin *pins;		/* borrowed; const */
	bool in_memory;			/* const */
	atomic_bool stale;
	pthread_mutex_t lock;
	uint64_t hand;			/* of the clock; guarded by lock */
	struct cache_slot slots[];
};

static struct file_cache *create(const struct catalog *catalog,
				 const struct pin *pins)
{
	struct file_cache *files;

	files = calloc(1, sizeof(*files) +
		       catalog->file_count * sizeof(files->slots[0]));
	if (!files)
		return NULL;
	files->folder = -1;
	files->catalog = catalog;
	files->pins = pins;
	pthread_mutex_init(&files->lock, NULL);
	return files;
}

struct file_cache *file_cache_create(int folder, const struct catalog *catalog,
				     const struct pin *pins)
{
	struct file_cache *files = create(catalog, pins);

	if (files) {
		files->folder = folder;
		files->in_memory = io_is_in_memory(folder);
	}
	return files;
}

struct file_cache *file_cache_create_spread(const int *folders,
					    const uint32_t *ranks,
					    const struct catalog *catalog,
					    const struct pin *pins)
{
	struct file_cache *files = create(catalog, pins);
	uint64_t i;

	if (!files)
		return NULL;
	files->folders = folders;
	files->ranks = ranks;
	files->in_memory = true;
	for (i = 0; i < catalog->file_count && files->in_memory; i++)
		if (folders[ranks[i]] >= 0)
			files->in_memory = io_is_in_memory(folders[ranks[i]]);
	return files;
}

static int folder_of(const struct file_cache *files, uint32_t index)
{
	return files->folders ? files->folders[files->ranks[index]] :
				files->folder;
}

static void close_slot(struct cache_slot *slot)
{
	close(slot->file.fd);
	atomic_fetch_sub(&open_total, 1);
}

void file_cache_destroy(struct file_cache *files)
{
	uint64_t i;

	if (!files)
		return;
	for (i = 0; i < files->catalog->file_count; i++)
		if (atomic_load(&files->slots[i].state))
			close_slot(&files->slots[i]);
	pthread_mutex_destroy(&files->lock);
	free(files);
}

static unsigned open_total_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
	    limit.rlim_cur / 2 < OPEN_TOTAL_MAX)
		return (unsigned)(limit.rlim_cur / 2);
	return OPEN_TOTAL_MAX;
}

/* Close a file that nobody uses, the next one round the clock. */
static void evict_locked(struct file_cache *files)
{
	uint64_t i, count = files->catalog->file_count;

	for (i = 0; i < count; i++) {
		struct cache_slot *slot = &files->slots[files->hand++ % count];
		uint32_t idle = open_bit;

		if (atomic_load(&slot->state) == idle) {
			struct cached_file file = slot->file;

			if (!atomic_compare_exchange_strong(&slot->state,
							    &idle, 0))
				continue;
			close(file.fd);
			atomic_fetch_sub(&open_total, 1);
			return;
		}
	}
}

static int open_slot(struct file_cache *files, uint32_t index,
		     struct cached_file *ret)
{
	const struct pin *pin = &files->pins[index];
	struct stat status;
	struct pin found;
	const char *path;
	int fd, error;

	if (pin->inode == 0)
		return -ENOENT;
	path = catalog_text(files->catalog,
			    catalog_file(files->catalog, index)->path);
	if (folder_of(files, index) < 0)
		return -ENOENT;
	error = io_open(folder_of(files, index), path, &fd, &status);
	if (io_is_missing(error))
		error = -ESTALE;
	if (error == -ESTALE)
		atomic_store(&files->stale, true);
	if (error)
		return error;
	found = pin_from_stat(&status);
	if (!pin_equal(&found, pin)) {
		close(fd);
		atomic_store(&files->stale, true);
		return -ESTALE;
	}
	*ret = (struct cached_file){ .fd = fd, .size = pin->size };
	return 0;
}

static int get_slow(struct file_cache *files, uint32_t index)
{
	struct cache_slot *slot = &files->slots[index];
	struct cached_file file;
	int error = 0;

	pthread_mutex_lock(&files->lock);
	if (atomic_load(&slot->state) & open_bit) {
		/* Only the lock's holder closes: the bit stays. */
		atomic_fetch_add(&slot->state, 1);
		goto unlock;
	}
	if (atomic_load(&open_total) >= open_total_limit())
		evict_locked(files);
	error = open_slot(files, index, &file);
	if (error)
		goto unlock;
	slot->file = file;
	atomic_fetch_add(&open_total, 1);
	atomic_store(&slot->state, open_bit | 1);
unlock:
	pthread_mutex_unlock(&files->lock);
	return error;
}

int file_cache_get(struct file_cache *files, uint32_t index, bool nowait,
		   struct cached_file *ret_file)
{
	struct cache_slot *slot = &files->slots[index];
	uint32_t state = atomic_load(&slot->state);
	int error;

	if (atomic_load(&files->stale))
		return -ESTALE;
	while (state & open_bit)
		if (atomic_compare_exchange_weak(&slot->state, &state,
						 state + 1))
			goto got;
	if (nowait)
		return -EAGAIN;
	error = get_slow(files, index);
	if (error)
		return error;
got:
	*ret_file = slot->file;
	return 0;
}

void file_cache_put(struct file_cache *files, uint32_t index)
{
	atomic_fetch_sub(&files->slots[index].state, 1);
}

int file_cache_check(struct file_cache *files, uint32_t index)
{
	struct stat status;
	struct pin found;

	if (fstat(files->slots[index].file.fd, &status) == 0) {
		found = pin_from_stat(&status);
		if (pin_equal(&found, &files->pins[index]))
			return 0;
	}
	atomic_store(&files->stale, true);
	return -ESTALE;
}

bool file_cache_is_stale(const struct file_cache *files)
{
	return atomic_load(&files->stale);
}

bool file_cache_in_memory(const struct file_cache *files)
{
	return files->in_memory;
}
