/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shards of one tensor while its catalog entry is made, without a struct
 * box for each: a tensor may have a million.
 */
#ifndef SHARD_CATALOG_SHARD_LIST_H
#define SHARD_CATALOG_SHARD_LIST_H

#include "shard/base/array.h"
#include "shard/catalog/tiling.h"

/* What a shard is stored as. */
struct catalog_item {
	uint32_t file;
	uint32_t flags;		/* enum catalog_shard_flag */
	uint64_t offset, size;	/* bytes in the file */
};

struct shard_list {
	unsigned ndim;
	uint64_t count;		/* of shards */
	struct array pending;	/* owned: items, in their order */
	struct array numbers;	/* owned: uint64_t, boxes as they came */
	struct array tiles;	/* owned: uint64_t, scratch of check */
};

/* 0 or -ENOMEM. */
int shard_list_init(struct shard_list *list);
void shard_list_finish(struct shard_list *list);

/* Start with a tensor of @ndim axes. */
void shard_list_clear(struct shard_list *list, unsigned ndim);
int shard_list_add(struct shard_list *list, const struct box *box,
		   const struct catalog_item *item);

/*
 * Drop what was listed twice and see whether the rest tiles @whole, as
 * tiling_check. Sorts by offsets, or, when shards overlap, as they were added.
 */
int shard_list_check(struct shard_list *list, const struct box *whole,
		     struct tiling_result *ret_result);

/* Offsets and sizes, 2 * ndim numbers, of shard @index; and its item. */
const uint64_t *shard_list_numbers(const struct shard_list *list,
				   uint64_t index);
const struct catalog_item *shard_list_item(const struct shard_list *list,
					   uint64_t index);

#endif
