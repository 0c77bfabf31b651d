/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/catalog/shard_list.h"

#include <errno.h>
#include <stdlib.h>

struct pending_shard {
	struct catalog_item item;
	uint64_t numbers;	/* index of its box in `numbers`: offsets,
				 * sizes; also its place in the list */
};

int shard_list_init(struct shard_list *list)
{
	*list = (struct shard_list){ .count = 0 };
	/* Boxes of no axes have no numbers, but an address. */
	if (array_add(&list->numbers, sizeof(uint64_t)) &&
	    array_add(&list->tiles, sizeof(uint64_t)))
		return 0;
	shard_list_finish(list);
	return -ENOMEM;
}

void shard_list_finish(struct shard_list *list)
{
	array_finish(&list->pending);
	array_finish(&list->numbers);
	array_finish(&list->tiles);
}

void shard_list_clear(struct shard_list *list, unsigned ndim)
{
	list->ndim = ndim;
	list->count = 0;
	list->pending.size = 0;
	list->numbers.size = 0;
}

int shard_list_add(struct shard_list *list, const struct box *box,
		   const struct catalog_item *item)
{
	struct pending_shard pending = {
		.item = *item,
		.numbers = list->numbers.size / sizeof(uint64_t),
	};
	int error = array_append(&list->numbers, box->offset,
				 box->ndim * sizeof(*box->offset));

	if (!error)
		error = array_append(&list->numbers, box->size,
				     box->ndim * sizeof(*box->size));
	if (!error)
		error = array_append(&list->pending, &pending,
				     sizeof(pending));
	list->count += !error;
	return error;
}

static const uint64_t *numbers_of(const struct shard_list *list,
				  const struct pending_shard *pending)
{
	return (const uint64_t *)(void *)list->numbers.data +
	       pending->numbers;
}

static int compare_order(const void *a, const void *b)
{
	const struct pending_shard *x = a, *y = b;

	return x->numbers < y->numbers ? -1 : x->numbers > y->numbers;
}

/* Offsets first, then sizes. */
static int compare_boxes(const struct shard_list *list,
			 const struct pending_shard *a,
			 const struct pending_shard *b)
{
	const uint64_t *x = numbers_of(list, a);
	const uint64_t *y = numbers_of(list, b);
	unsigned i;

	for (i = 0; i < 2 * list->ndim; i++)
		if (x[i] != y[i])
			return x[i] < y[i] ? -1 : 1;
	return 0;
}

static int compare_pending(const void *a, const void *b, void *context)
{
	int order = compare_boxes(context, a, b);

	return order ? order : compare_order(a, b);
}

static bool same_shard(const struct shard_list *list,
		       const struct pending_shard *a,
		       const struct pending_shard *b)
{
	return compare_boxes(list, a, b) == 0 &&
	       a->item.file == b->item.file &&
	       a->item.offset == b->item.offset &&
	       a->item.size == b->item.size;
}

/* Sort, and drop what was listed twice. */
static void sort_pending(struct shard_list *list)
{
	struct pending_shard *pending = (void *)list->pending.data;
	uint64_t count = list->count, i, kept = 0;

	if (count > 1)
		qsort_r(pending, count, sizeof(*pending), compare_pending,
			list);
	for (i = 0; i < count; i++)
		if (kept == 0 ||
		    !same_shard(list, &pending[kept - 1], &pending[i]))
			pending[kept++] = pending[i];
	list->count = kept;
}

static bool is_empty(const struct shard_list *list,
		     const struct pending_shard *pending)
{
	const uint64_t *sizes = numbers_of(list, pending) +
				list->ndim;
	unsigned i;

	for (i = 0; i < list->ndim; i++)
		if (sizes[i] == 0)
			return true;
	return false;
}

const uint64_t *shard_list_numbers(const struct shard_list *list,
				   uint64_t index)
{
	const struct pending_shard *pending = (const void *)list->pending.data;

	return numbers_of(list, &pending[index]);
}

const struct catalog_item *shard_list_item(const struct shard_list *list,
					   uint64_t index)
{
	const struct pending_shard *pending = (const void *)list->pending.data;

	return &pending[index].item;
}

int shard_list_check(struct shard_list *list, const struct box *whole,
		     struct tiling_result *ret_result)
{
	const struct pending_shard *pending = (const void *)list->pending.data;
	struct tile tile = { .whole = whole };
	uint64_t i;
	int error;

	sort_pending(list);
	list->tiles.size = 0;
	for (i = 0; i < list->count; i++) {
		if (is_empty(list, &pending[i]))
			continue;
		if (array_append(&list->tiles, numbers_of(list, &pending[i]),
				 2 * list->ndim * sizeof(uint64_t)))
			return -ENOMEM;
		tile.count++;
	}
	tile.numbers = (const uint64_t *)(void *)list->tiles.data;
	error = tiling_check(&tile, ret_result);
	if (!error && ret_result->overlap)
		qsort(list->pending.data, list->count, sizeof(*pending),
		      compare_order);
	return error;
}
