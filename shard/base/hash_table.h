/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table of the indices of elements that its caller keeps, in an array
 * or wherever. It finds an element by its key, whatever that is, and has 4
 * bytes for each slot, at least half of which are free: 8 to 16 bytes for each
 * element. Nothing is ever taken out. One thread; any number of threads when
 * nothing is inserted.
 *
 * Open addressing: an index stands at the first slot that was free from
 * hash & (slot_count - 1) on, the first slot following the last. Slots are part
 * of a catalog, which ranks send to each other (catalog_layout.h): who changes
 * how they are filled changes the format of catalogs.
 */
#ifndef SHARD_BASE_HASH_TABLE_H
#define SHARD_BASE_HASH_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is to be known of the keys. @owner is what the call was given. */
struct hash_table_keys {
	/* The hash of the key of element @index. */
	uint64_t (*hash)(const void *owner, uint32_t index);
	/* Is @key, of a type that the caller knows, the key of @index? */
	bool (*equal)(const void *owner, uint32_t index, const void *key);
};

/* A key of bytes. */
struct hash_table_text {
	const char *data;
	size_t size;
};

struct hash_table {
	const struct hash_table_keys *keys;
	uint32_t *slots;	/* owned; index + 1; 0: the slot is free */
	uint64_t slot_count;	/* a power of two, or 0 */
	uint64_t count;		/* of indices */
	uint64_t seed;		/* for hashes of keys that others wrote, who
				 * cannot know it */
};

void hash_table_init(struct hash_table *table,
		     const struct hash_table_keys *keys);
void hash_table_finish(struct hash_table *table);

/* Slots for @count elements. */
uint64_t hash_table_slot_count(uint64_t count);

/* Room for @count elements in all. 0, or -ENOMEM with the table as it was. */
int hash_table_reserve(struct hash_table *table, const void *owner,
		       uint64_t count);

/* Add @index, whose key is not there. 0 or -ENOMEM, which never happens where
 * there is room for it. */
int hash_table_insert(struct hash_table *table, const void *owner,
		      uint32_t index);

/* The index of @key, whose hash is @hash; -1: it is not there. */
int64_t hash_table_find(const struct hash_table *table, const void *owner,
			uint64_t hash, const void *key);

#endif
