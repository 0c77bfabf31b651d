/* SPDX-License-Identifier: Apache-2.0 */
/* Names, each once, numbered in the order in which they came. One thread. */
#ifndef SHARD_BASE_NAME_TABLE_H
#define SHARD_BASE_NAME_TABLE_H

#include "shard/base/array.h"

#include <stdint.h>

struct name_table {
	uint64_t count;
	struct array names;	/* struct name_table_entry */
	struct array text;	/* of the names, one behind the other */
	struct array slots;	/* uint32_t: index + 1 */
	uint64_t seed;
};

void name_table_init(struct name_table *table);
void name_table_finish(struct name_table *table);

/* The index of @name, of @size bytes, which is copied when it is new: then 1,
 * else 0. Or -ENOMEM, or -E2BIG beyond LIMIT_COUNT. */
int name_table_add(struct name_table *table, const char *name, size_t size,
		   uint32_t *ret_index);
/* The index of @name; -1: it is not there. */
int64_t name_table_find(const struct name_table *table, const char *name,
			size_t size);
/* The name @index, terminated; borrowed until the next one is added. */
const char *name_table_name(const struct name_table *table, uint32_t index,
			    size_t *ret_size);

#endif
