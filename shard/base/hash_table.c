/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/hash_table.h"

#include "shard/base/hash.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

void hash_table_init(struct hash_table *table,
		     const struct hash_table_keys *keys)
{
	*table = (struct hash_table){ .keys = keys, .seed = hash_seed() };
}

void hash_table_finish(struct hash_table *table)
{
	free(table->slots);
	table->slots = NULL;
	table->slot_count = table->count = 0;
}

uint64_t hash_table_slot_count(uint64_t count)
{
	uint64_t slot_count = 2;

	while (slot_count < 2 * count)
		slot_count *= 2;
	return slot_count;
}

/* The slot of @key, or, if that is NULL or not there, the free one where it
 * belongs. */
static uint32_t *find_slot(const struct hash_table *table, const void *owner,
			   uint64_t hash, const void *key)
{
	uint64_t mask = table->slot_count - 1, i = hash & mask;

	for (; table->slots[i]; i = (i + 1) & mask)
		if (key && table->keys->equal(owner, table->slots[i] - 1, key))
			break;
	return &table->slots[i];
}

static void place(struct hash_table *table, const void *owner, uint32_t index)
{
	assert(table->count < table->slot_count / 2);
	*find_slot(table, owner, table->keys->hash(owner, index), NULL) =
		index + 1;
	table->count++;
}

int hash_table_reserve(struct hash_table *table, const void *owner,
		       uint64_t count)
{
	struct hash_table larger = *table;
	uint64_t i;

	larger.count = 0;
	larger.slot_count = hash_table_slot_count(count);
	if (larger.slot_count <= table->slot_count)
		return 0;
	larger.slots = calloc(larger.slot_count, sizeof(*larger.slots));
	if (!larger.slots)
		return -ENOMEM;
	for (i = 0; i < table->slot_count; i++)
		if (table->slots[i])
			place(&larger, owner, table->slots[i] - 1);
	free(table->slots);
	*table = larger;
	return 0;
}

int hash_table_insert(struct hash_table *table, const void *owner,
		      uint32_t index)
{
	int error = hash_table_reserve(table, owner, table->count + 1);

	if (!error)
		place(table, owner, index);
	return error;
}

int64_t hash_table_find(const struct hash_table *table, const void *owner,
			uint64_t hash, const void *key)
{
	if (table->slot_count == 0)
		return -1;
	return (int64_t)*find_slot(table, owner, hash, key) - 1;
}
