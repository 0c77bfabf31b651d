/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/name_table.h"

#include "shard/base/hash.h"
#include "shard/base/limits.h"

#include <errno.h>
#include <string.h>

struct name_table_entry {
	uint64_t offset;	/* in the text, bytes */
	uint64_t size;
};

void name_table_init(struct name_table *table)
{
	*table = (struct name_table){ .seed = hash_seed() };
}

void name_table_finish(struct name_table *table)
{
	array_finish(&table->names);
	array_finish(&table->text);
	array_finish(&table->slots);
}

/* The slot of @name: its own, or the free one where it belongs. */
static uint32_t *find_slot(const struct name_table *table, const char *name,
			   size_t size)
{
	uint32_t *slots = (uint32_t *)(void *)table->slots.data;
	uint64_t mask = table->slots.size / sizeof(*slots) - 1;
	uint64_t i = hash_64(name, size, table->seed) & mask;

	for (; slots[i]; i = (i + 1) & mask) {
		size_t known_size;
		const char *known = name_table_name(table, slots[i] - 1,
						    &known_size);

		if (known_size == size && memcmp(known, name, size) == 0)
			break;
	}
	return &slots[i];
}

static int grow(struct name_table *table)
{
	size_t size = table->slots.size ? 2 * table->slots.size :
					  64 * sizeof(uint32_t);
	uint32_t i;

	array_finish(&table->slots);
	if (!array_add(&table->slots, size))
		return -ENOMEM;
	memset(table->slots.data, 0, size);
	for (i = 0; i < table->count; i++) {
		size_t name_size;
		const char *name = name_table_name(table, i, &name_size);

		*find_slot(table, name, name_size) = i + 1;
	}
	return 0;
}

int name_table_add(struct name_table *table, const char *name, size_t size,
		   uint32_t *ret_index)
{
	struct name_table_entry entry = { table->text.size, size };
	uint32_t *slot;
	int error = 0;

	if (2 * (table->count + 1) * sizeof(*slot) > table->slots.size)
		error = grow(table);
	if (error)
		return error;
	slot = find_slot(table, name, size);
	if (*slot) {
		*ret_index = *slot - 1;
		return 0;
	}
	if (table->count == LIMIT_COUNT)
		return -E2BIG;
	error = array_append(&table->text, name, size);
	if (!error)
		error = array_append(&table->text, "", 1);
	if (!error)
		error = array_append(&table->names, &entry, sizeof(entry));
	if (error)
		return error;
	*ret_index = (uint32_t)table->count;
	*slot = (uint32_t)++table->count;
	return 1;
}

int64_t name_table_find(const struct name_table *table, const char *name,
			size_t size)
{
	if (table->count == 0)
		return -1;
	return (int64_t)*find_slot(table, name, size) - 1;
}

const char *name_table_name(const struct name_table *table, uint32_t index,
			    size_t *ret_size)
{
	const struct name_table_entry *entries =
		(const void *)table->names.data;

	*ret_size = entries[index].size;
	return table->text.data + entries[index].offset;
}
