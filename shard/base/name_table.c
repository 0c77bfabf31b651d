/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/name_table.h"

#include "shard/base/hash.h"
#include "shard/base/limits.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

_Static_assert(LIMIT_COUNT < UINT32_MAX, "a slot holds an index + 1");

struct name_table_entry {
	uint64_t offset;	/* in the text, bytes */
	uint64_t size;
};

static uint64_t hash(const void *owner, uint32_t index)
{
	const struct name_table *table = owner;
	size_t size;
	const char *name = name_table_name(table, index, &size);

	return hash_64(name, size, table->indices.seed);
}

static bool equal(const void *owner, uint32_t index, const void *key)
{
	const struct hash_table_text *wanted = key;
	size_t size;
	const char *name = name_table_name(owner, index, &size);

	return size == wanted->size && memcmp(name, wanted->data, size) == 0;
}

static const struct hash_table_keys keys = { hash, equal };

void name_table_init(struct name_table *table, uint64_t count_max)
{
	assert(count_max <= LIMIT_COUNT);
	*table = (struct name_table){ .count_max = count_max };
	hash_table_init(&table->indices, &keys);
}

void name_table_finish(struct name_table *table)
{
	array_finish(&table->names);
	array_finish(&table->text);
	hash_table_finish(&table->indices);
}

/* After an error there may be text that belongs to no name. */
static int append(struct name_table *table, const char *name, size_t size)
{
	struct name_table_entry entry = { table->text.size, size };
	int error = hash_table_reserve(&table->indices, table,
				       table->count + 1);

	if (!error)
		error = array_append(&table->text, name, size);
	if (!error)
		error = array_append(&table->text, "", 1);
	if (!error)
		error = array_append(&table->names, &entry, sizeof(entry));
	return error ? error : hash_table_insert(&table->indices, table,
						 (uint32_t)table->count);
}

int name_table_add(struct name_table *table, const char *name, size_t size,
		   uint32_t *ret_index)
{
	int64_t index = name_table_find(table, name, size);
	int error;

	if (index >= 0) {
		*ret_index = (uint32_t)index;
		return 0;
	}
	if (table->count == table->count_max)
		return -E2BIG;
	error = append(table, name, size);
	if (error)
		return error;
	*ret_index = (uint32_t)table->count++;
	return 1;
}

int64_t name_table_find(const struct name_table *table, const char *name,
			size_t size)
{
	const struct hash_table_text key = { name, size };

	return hash_table_find(&table->indices, table,
			       hash_64(name, size, table->indices.seed), &key);
}

const char *name_table_name(const struct name_table *table, uint32_t index,
			    size_t *ret_size)
{
	const struct name_table_entry *entries =
		(const void *)table->names.data;

	*ret_size = entries[index].size;
	return table->text.data + entries[index].offset;
}
