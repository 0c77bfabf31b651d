/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoded items in unnamed files in memory, shared by all checkpoints of a
 * process. Bounded in bytes and in number (each is a descriptor); those that
 * nobody reads make room for others, the longest unused first.
 *
 * A reference is for the time of one copy. Whoever waits for room, or for
 * somebody else to make an item, must hold none: then everybody's turn comes,
 * however small the cache is. Thread safe.
 */
#ifndef SHARD_CODEC_DECODED_CACHE_H
#define SHARD_CODEC_DECODED_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct layout;

struct decoded_cache;

/* Keep at most @size_max bytes. NULL: no memory. */
struct decoded_cache *decoded_cache_create(uint64_t size_max);
/* All sources that use it are gone. NULL is fine. */
void decoded_cache_destroy(struct decoded_cache *cache);

/* Bytes that one item may have. */
uint64_t decoded_cache_limit(const struct decoded_cache *cache);

struct decoded {
	/* Const once it is got. */
	int fd;				/* owned; -1: it is empty */
	uint64_t size;			/* bytes */
	/* The reader's: how the elements lie in it; owned, free(). */
	_Atomic(struct layout *) layout;
	/* The cache's own. */
	struct decoded_cache *cache;	/* const */
	const void *owner;		/* const, as is index */
	uint64_t index;
	int state;			/* guarded by the cache's lock, as are
					 * all below; enum decoded_state */
	int error;			/* of making it */
	unsigned references;
	bool crowded;			/* no room beside others */
	uint64_t charge;		/* bytes that count for it */
	LIST_ENTRY(decoded) link;	/* of its bucket */
	TAILQ_ENTRY(decoded) idle;	/* while nobody reads it */
};

/* What makes an item. */
struct decoded_maker {
	/* Fill @item through decoded_write. 0 or -errno, which all who wait
	 * for the item get. May run twice. */
	int (*make)(struct decoded_maker *maker, struct decoded *item);
};

/* Append to an item that is being made. 0; -errno, on which @make must end
 * and return it. */
int decoded_write(struct decoded *item, const void *data, size_t size);

/*
 * Item @index of @owner, made by @maker when it is not there; NULL: -EAGAIN
 * unless it is there. 0, or -errno; the caller puts it back.
 */
int decoded_cache_get(struct decoded_cache *cache, const void *owner,
		      uint64_t index, struct decoded_maker *maker,
		      struct decoded **ret_item);
void decoded_cache_put(struct decoded *item);

/* Drop all items of @owner, none of which is in use. */
void decoded_cache_forget(struct decoded_cache *cache, const void *owner);

#endif
