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

#include "shard/base/io.h"
#include "shard/base/same_bytes.h"

#include <assert.h>
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
	uint32_t holds;		/* guarded by the lock */
	bool held;		/* they are one of the users; likewise */
	struct same_bytes bytes;	/* what it must stay */
};

struct file_cache {
	const struct placement *placement; /* borrowed; const, as are all */
	const struct catalog *catalog;
	atomic_bool *stale;
	bool in_memory;
	pthread_mutex_t lock;
	uint64_t hand;			/* of the clock; guarded by lock */
	struct cache_slot slots[];
};

struct file_cache *file_cache_create(const struct placement *placement,
				     const struct catalog *catalog,
				     atomic_bool *stale)
{
	struct file_cache *files;
	uint64_t j;
	unsigned i;

	files = calloc(1, sizeof(*files) +
		       catalog->file_count * sizeof(files->slots[0]));
	if (!files)
		return NULL;
	files->placement = placement;
	files->catalog = catalog;
	files->stale = stale;
	files->in_memory = true;
	for (i = 0; i < placement->ranks && files->in_memory; i++)
		if (placement->folders[i] >= 0)
			files->in_memory =
				io_is_in_memory(placement->folders[i]);
	for (j = 0; j < catalog->file_count; j++)
		if (placement_here(placement, j))
			files->slots[j].bytes.pin =
				placement_here(placement, j)->pin;
	pthread_mutex_init(&files->lock, NULL);
	return files;
}

static void close_one(int fd)
{
	close(fd);
	atomic_fetch_sub(&open_total, 1);
}

/* Has nobody used it? Then it is closed, but for @ret_fd. */
static bool take_idle_locked(struct cache_slot *slot, int *ret_fd)
{
	uint32_t idle = open_bit;
	int fd;

	if (atomic_load(&slot->state) != idle)
		return false;
	fd = slot->file.fd;
	if (!atomic_compare_exchange_strong(&slot->state, &idle, 0))
		return false;
	*ret_fd = fd;
	return true;
}

void file_cache_destroy(struct file_cache *files)
{
	uint64_t i;

	if (!files)
		return;
	for (i = 0; i < files->catalog->file_count; i++)
		if (atomic_load(&files->slots[i].state))
			close_one(files->slots[i].file.fd);
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
	int fd;

	for (i = 0; i < count; i++)
		if (take_idle_locked(&files->slots[files->hand++ % count],
				     &fd)) {
			close_one(fd);
			return;
		}
}

/* ---- the same bytes ------------------------------------------------------ */

static struct same_bytes_name name_of(const struct file_cache *files,
				  uint32_t index)
{
	const struct replica *replica =
		placement_here(files->placement, index);

	return (struct same_bytes_name){
		files->placement->folders[replica->rank],
		catalog_text(files->catalog,
			     catalog_file(files->catalog, index)->path),
	};
}

/* A file that cannot be asked may have changed. */
static int note_error(struct file_cache *files, int error)
{
	if (!error)
		return 0;
	atomic_store(files->stale, true);
	return -ESTALE;
}

int file_cache_check(struct file_cache *files, uint32_t index)
{
	const struct same_bytes_name name = name_of(files, index);
	struct cache_slot *slot = &files->slots[index];

	return note_error(files, same_bytes_check(&slot->bytes, &files->lock,
						  slot->file.fd, &name));
}

/* ---- open and closed ----------------------------------------------------- */

static int open_slot(struct file_cache *files, uint32_t index,
		     struct cached_file *ret)
{
	struct cache_slot *slot = &files->slots[index];
	struct same_bytes_name name;
	struct stat status;
	int fd, error;

	if (!placement_here(files->placement, index))
		return -ENOENT;
	name = name_of(files, index);
	error = io_open(name.folder, name.path, &fd, &status);
	if (io_is_missing(error))
		return note_error(files, -ESTALE);
	if (error)
		return error;
	error = note_error(files, same_bytes_check_locked(&slot->bytes, fd,
							  &name));
	if (error) {
		close(fd);
		return error;
	}
	*ret = (struct cached_file){ .fd = fd, .size = slot->bytes.pin.size };
	return 0;
}

/* One more user, of a slot that is opened if need be. */
static int use_locked(struct file_cache *files, uint32_t index)
{
	struct cache_slot *slot = &files->slots[index];
	struct cached_file file;
	int error;

	if (atomic_load(&slot->state) & open_bit) {
		/* Only the lock's holder closes: the bit stays. */
		atomic_fetch_add(&slot->state, 1);
		return 0;
	}
	if (atomic_load(&open_total) >= open_total_limit())
		evict_locked(files);
	error = open_slot(files, index, &file);
	if (error)
		return error;
	slot->file = file;
	atomic_fetch_add(&open_total, 1);
	/* Who wants it kept, and could not have it so far, has it now. */
	slot->held = slot->holds > 0;
	atomic_store(&slot->state, open_bit | (1u + slot->held));
	return 0;
}

static int get_slow(struct file_cache *files, uint32_t index)
{
	int error;

	pthread_mutex_lock(&files->lock);
	error = use_locked(files, index);
	pthread_mutex_unlock(&files->lock);
	return error;
}

int file_cache_get(struct file_cache *files, uint32_t index, bool nowait,
		   struct cached_file *ret_file)
{
	struct cache_slot *slot = &files->slots[index];
	uint32_t state = atomic_load(&slot->state);
	int error;

	if (atomic_load(&slot->bytes.changed))
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

/* The first hold makes a user, if it can. */
static int hold_locked(struct file_cache *files, uint32_t index, bool nowait)
{
	struct cache_slot *slot = &files->slots[index];
	bool open = atomic_load(&slot->state) & open_bit;
	int error;

	if (slot->held || !placement_here(files->placement, index))
		return 0;
	if (!open && nowait)
		return -EAGAIN;
	if (!open && atomic_load(&open_total) >= open_total_limit()) {
		evict_locked(files);
		if (atomic_load(&open_total) >= open_total_limit())
			return 0;
	}
	error = use_locked(files, index);
	slot->held = !error;
	return error == -ESTALE ? error : 0;
}

int file_cache_hold(struct file_cache *files, uint32_t index, bool nowait)
{
	struct cache_slot *slot = &files->slots[index];
	int error;

	if (atomic_load(&slot->bytes.changed))
		return -ESTALE;
	if (nowait ? pthread_mutex_trylock(&files->lock) :
		     pthread_mutex_lock(&files->lock))
		return -EAGAIN;
	error = hold_locked(files, index, nowait);
	slot->holds += !error;
	pthread_mutex_unlock(&files->lock);
	return error;
}

void file_cache_release(struct file_cache *files, uint32_t index)
{
	struct cache_slot *slot = &files->slots[index];

	pthread_mutex_lock(&files->lock);
	assert(slot->holds > 0);
	if (--slot->holds == 0 && slot->held) {
		slot->held = false;
		atomic_fetch_sub(&slot->state, 1);
	}
	pthread_mutex_unlock(&files->lock);
}

/* The last descriptor of a file that has no name frees its blocks, which may take
 * a while: not with the lock held. */
void file_cache_close_idle(struct file_cache *files)
{
	uint64_t i = 0, count = files->catalog->file_count;
	unsigned found;
	int fds[64];

	while (i < count) {
		pthread_mutex_lock(&files->lock);
		for (found = 0; i < count && found < 64; i++)
			found += take_idle_locked(&files->slots[i],
						  &fds[found]);
		pthread_mutex_unlock(&files->lock);
		while (found > 0)
			close_one(fds[--found]);
	}
}

bool file_cache_in_memory(const struct file_cache *files)
{
	return files->in_memory;
}
