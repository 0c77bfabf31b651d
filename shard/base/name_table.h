/* SPDX-License-Identifier: Apache-2.0 */
/* Names, each once, numbered in the order in which they came. One thread. */
#ifndef SHARD_BASE_NAME_TABLE_H
#define SHARD_BASE_NAME_TABLE_H

#include "shard/base/array.h"
#include "shard/base/hash_table.h"

struct name_table {
	uint64_t count, count_max;
	struct array names;	/* struct name_table_entry */
	struct array text;	/* of the names, one behind the other */
	struct hash_table indices;
};

/* For at most @count_max names, which is at most LIMIT_COUNT. */
void name_table_init(struct name_table *table, uint64_t count_max);
void name_table_finish(struct name_table *table);

/* The index of @name, of @size bytes, which is copied when it is new: then 1,
 * else 0. Or -ENOMEM, or -E2BIG: one name too many. */
int name_table_add(struct name_table *table, const char *name, size_t size,
		   uint32_t *ret_index);
/* The index of @name; -1: it is not there. */
int64_t name_table_find(const struct name_table *table, const char *name,
			size_t size);
/* The name @index, terminated; borrowed until the next one is added. */
const char *name_table_name(const struct name_table *table, uint32_t index,
			    size_t *ret_size);

#endif
