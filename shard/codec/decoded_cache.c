/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An item's states:
 *
 *	MAKING -> READY		it is complete, and sealed
 *	MAKING -> FAILED	out of the table; freed by the last who waited
 *
 * READY items without references are in `idle`, the longest unused first, and
 * may be freed at any time.
 *
 * Nobody knows how large an item will be, so makers may run out of room
 * together. Then one gives up what it has, waits until it is alone, and starts
 * again; no other begins in between:
 *
 *	maker A  ####.......wait.......############ done
 *	maker B    ####### done
 *	maker C        ########### done
 *	maker D                    ....wait........#### done
 *
 * Alone, it finds nothing but idle items and such as are just being copied
 * from, which it waits for. So whatever fits into the cache gets there in the
 * end; an item that alone is too large is its maker's to refuse.
 */
#include "shard/codec/decoded_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum decoded_state { MAKING, READY, FAILED };

/* Items: each has a descriptor. */
enum { COUNT_MAX = 1024, BUCKET_COUNT = 1024 };

/* What memory is counted in. */
enum { PAGE = 4096 };

LIST_HEAD(decoded_bucket, decoded);
TAILQ_HEAD(decoded_list, decoded);

struct decoded_cache {
	pthread_mutex_t lock;
	pthread_cond_t changed;		/* broadcast: whatever one waits for */
	uint64_t size_max;		/* const */
	unsigned count_max;		/* const */
	/* All below is guarded by lock. */
	uint64_t size;			/* bytes that count */
	unsigned count;			/* items that may have a descriptor */
	unsigned making;		/* makers at work */
	unsigned closing;		/* items that still count, but not for
					 * long */
	bool alone;			/* one of them wants to be alone */
	struct decoded_list idle;
	/* By owner and index. Items come and go, so that base/hash_table.h,
	 * which takes nothing out, is not for them. */
	struct decoded_bucket buckets[BUCKET_COUNT];
};

struct decoded_cache *decoded_cache_create(uint64_t size_max)
{
	struct decoded_cache *cache = calloc(1, sizeof(*cache));
	struct rlimit limit;

	if (!cache)
		return NULL;
	cache->size_max = size_max;
	cache->count_max = COUNT_MAX;
	/* The files of checkpoints may take half of the descriptors. */
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
	    limit.rlim_cur / 4 < COUNT_MAX)
		cache->count_max = (unsigned)(limit.rlim_cur / 4) + 1;
	TAILQ_INIT(&cache->idle);
	pthread_mutex_init(&cache->lock, NULL);
	pthread_cond_init(&cache->changed, NULL);
	return cache;
}

uint64_t decoded_cache_limit(const struct decoded_cache *cache)
{
	return cache->size_max;
}

/* ---- items --------------------------------------------------------------- */

static struct decoded_bucket *find_bucket(struct decoded_cache *cache,
				  const void *owner, uint64_t index)
{
	uint64_t hash = ((uintptr_t)owner + index) *
			UINT64_C(0x9e3779b97f4a7c15);

	return &cache->buckets[hash >> 54];
}

static struct decoded *find_locked(struct decoded_cache *cache,
				   const void *owner, uint64_t index)
{
	struct decoded *item;

	LIST_FOREACH(item, find_bucket(cache, owner, index), link)
		if (item->owner == owner && item->index == index)
			break;
	return item;
}

/* A new item, in the table, with one reference. NULL: no memory. */
static struct decoded *add_locked(struct decoded_cache *cache,
				  const void *owner, uint64_t index)
{
	struct decoded *item = calloc(1, sizeof(*item));

	if (!item)
		return NULL;
	item->fd = -1;
	item->cache = cache;
	item->owner = owner;
	item->index = index;
	item->state = MAKING;
	item->references = 1;
	LIST_INSERT_HEAD(find_bucket(cache, owner, index), item, link);
	return item;
}

static void free_item(struct decoded *item)
{
	free(atomic_load(&item->layout));
	free(item);
}

/* Give its memory back to the system: without the lock, since a large file
 * takes a while. */
static void close_file(struct decoded *item)
{
	if (item->fd >= 0)
		close(item->fd);
	item->fd = -1;
	item->size = 0;
}

/* The file of @item is closed: what it took may be had by others. */
static void release_locked(struct decoded *item)
{
	item->cache->size -= item->charge;
	item->charge = 0;
	item->cache->count--;
	pthread_cond_broadcast(&item->cache->changed);
}

/* Take an idle item out of the table. It counts until it is dropped. */
static void take_locked(struct decoded *item)
{
	TAILQ_REMOVE(&item->cache->idle, item, idle);
	LIST_REMOVE(item, link);
	item->cache->closing++;
}

/* The lock is not held meanwhile. */
static void drop_locked(struct decoded *item)
{
	struct decoded_cache *cache = item->cache;

	pthread_mutex_unlock(&cache->lock);
	close_file(item);
	pthread_mutex_lock(&cache->lock);
	cache->closing--;
	release_locked(item);
	free_item(item);
}

static void refer_locked(struct decoded *item)
{
	if (item->references++ == 0)
		TAILQ_REMOVE(&item->cache->idle, item, idle);
}

static void put_locked(struct decoded *item)
{
	if (--item->references > 0)
		return;
	if (item->state == FAILED) {
		free_item(item);
		return;
	}
	TAILQ_INSERT_TAIL(&item->cache->idle, item, idle);
	pthread_cond_broadcast(&item->cache->changed);
}

void decoded_cache_put(struct decoded *item)
{
	struct decoded_cache *cache = item->cache;

	pthread_mutex_lock(&cache->lock);
	put_locked(item);
	pthread_mutex_unlock(&cache->lock);
}

void decoded_cache_forget(struct decoded_cache *cache, const void *owner)
{
	struct decoded_list taken = TAILQ_HEAD_INITIALIZER(taken);
	struct decoded *item, *next;

	pthread_mutex_lock(&cache->lock);
	for (item = TAILQ_FIRST(&cache->idle); item; item = next) {
		next = TAILQ_NEXT(item, idle);
		if (item->owner != owner)
			continue;
		take_locked(item);
		TAILQ_INSERT_TAIL(&taken, item, idle);
	}
	while (!TAILQ_EMPTY(&taken)) {
		item = TAILQ_FIRST(&taken);
		TAILQ_REMOVE(&taken, item, idle);
		drop_locked(item);
	}
	pthread_mutex_unlock(&cache->lock);
}

void decoded_cache_destroy(struct decoded_cache *cache)
{
	struct decoded *item, *next;

	if (!cache)
		return;
	for (item = TAILQ_FIRST(&cache->idle); item; item = next) {
		next = TAILQ_NEXT(item, idle);
		close_file(item);
		free_item(item);
	}
	pthread_cond_destroy(&cache->changed);
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

/* ---- making -------------------------------------------------------------- */

static void wait_locked(struct decoded_cache *cache)
{
	pthread_cond_wait(&cache->changed, &cache->lock);
}

static bool is_full_locked(const struct decoded *item, uint64_t charge)
{
	const struct decoded_cache *cache = item->cache;
	uint64_t others = cache->size - item->charge;

	/* Rounding up to pages keeps nothing out that is alone. */
	return cache->count > cache->count_max ||
	       (others > 0 && others + charge > cache->size_max);
}

/* Make @charge bytes count for @item. 0, or -ENOMEM and it is crowded. */
static int reserve(struct decoded *item, uint64_t charge)
{
	struct decoded_cache *cache = item->cache;
	int error = 0;

	pthread_mutex_lock(&cache->lock);
	while (is_full_locked(item, charge) && !item->crowded) {
		struct decoded *first = TAILQ_FIRST(&cache->idle);

		if (first) {
			take_locked(first);
			drop_locked(first);
		} else if (cache->closing == 0 && cache->making > 1) {
			item->crowded = true;
		} else {
			wait_locked(cache);
		}
	}
	if (item->crowded) {
		error = -ENOMEM;
	} else {
		cache->size += charge - item->charge;
		item->charge = charge;
	}
	pthread_mutex_unlock(&cache->lock);
	return error;
}

static int write_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t done = write(fd, data, size);

		if (done < 0 && errno == EINTR)
			continue;
		/* ENOSPC: what may be had of shared memory. */
		if (done < 0)
			return -ENOMEM;
		data += done;
		size -= (size_t)done;
	}
	return 0;
}

int decoded_write(struct decoded *item, const void *data, size_t size)
{
	int error = reserve(item, (item->size + size + PAGE - 1) &
				  ~(uint64_t)(PAGE - 1));

	if (error)
		return error;
	if (item->fd < 0)
		item->fd = memfd_create("ckptfs decoded item",
					MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (item->fd < 0)
		return -errno;
	item->size += size;
	return write_all(item->fd, data, size);
}

/* Nobody, we included, can change it any more. */
static int seal(const struct decoded *item)
{
	if (item->fd >= 0 &&
	    fcntl(item->fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK |
					 F_SEAL_GROW | F_SEAL_WRITE) < 0)
		return -errno;
	return 0;
}

/* Run @maker once, without the lock. When it fails the item is empty. */
static int run_maker_locked(struct decoded *item, struct decoded_maker *maker)
{
	struct decoded_cache *cache = item->cache;
	int error;

	cache->making++;
	cache->count++;
	pthread_mutex_unlock(&cache->lock);
	error = maker->make(maker, item);
	if (!error)
		error = seal(item);
	if (error)
		close_file(item);
	pthread_mutex_lock(&cache->lock);
	cache->making--;
	if (error)
		release_locked(item);
	pthread_cond_broadcast(&cache->changed);
	return error;
}

/* The same once more, beside nobody else. */
static int run_alone_locked(struct decoded *item, struct decoded_maker *maker)
{
	struct decoded_cache *cache = item->cache;
	int error;

	while (cache->alone)
		wait_locked(cache);
	cache->alone = true;
	while (cache->making > 0)
		wait_locked(cache);
	item->crowded = false;
	error = run_maker_locked(item, maker);
	cache->alone = false;
	return error;
}

static void make_locked(struct decoded *item, struct decoded_maker *maker)
{
	int error = run_maker_locked(item, maker);

	if (item->crowded)
		error = run_alone_locked(item, maker);
	item->error = error;
	item->state = error ? FAILED : READY;
	if (error)
		LIST_REMOVE(item, link);
}

static int get_locked(struct decoded_cache *cache, const void *owner,
		      uint64_t index, struct decoded_maker *maker,
		      struct decoded **ret_item)
{
	struct decoded *item;
	int error;

	for (;;) {
		item = find_locked(cache, owner, index);
		if (!maker && (!item || item->state == MAKING))
			return -EAGAIN;
		if (item || !cache->alone)
			break;
		wait_locked(cache);
	}
	if (item) {
		refer_locked(item);
		while (item->state == MAKING)
			wait_locked(cache);
	} else {
		item = add_locked(cache, owner, index);
		if (!item)
			return -ENOMEM;
		make_locked(item, maker);
	}
	error = item->error;
	if (error)
		put_locked(item);
	else
		*ret_item = item;
	return error;
}

int decoded_cache_get(struct decoded_cache *cache, const void *owner,
		      uint64_t index, struct decoded_maker *maker,
		      struct decoded **ret_item)
{
	int error;

	pthread_mutex_lock(&cache->lock);
	error = get_locked(cache, owner, index, maker, ret_item);
	pthread_mutex_unlock(&cache->lock);
	return error;
}
