/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/read/transfer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/*
 * What of a range with holes has been found. Without overlaps the volumes add
 * up; with them each element has a bit.
 */
struct coverage {
	uint64_t missing;		/* elements */
	unsigned char *bits;		/* owned; NULL: no overlaps */
};

static void cover_element(struct coverage *coverage, uint64_t element)
{
	unsigned char bit = (unsigned char)(1 << element % 8);

	coverage->missing -= !(coverage->bits[element / 8] & bit);
	coverage->bits[element / 8] |= bit;
}

static void cover(struct coverage *coverage, const struct plan *plan,
		  const struct piece *piece)
{
	unsigned ndim = plan->entry->ndim, axis;
	uint64_t index[LIMIT_NDIM] = { 0 };
	uint64_t volume = 1, element = piece->target, i;

	for (axis = 0; axis < ndim; axis++)
		volume *= piece->count[axis];
	if (!coverage->bits) {
		coverage->missing -= volume;
		return;
	}
	for (i = 0; i < volume; i++) {
		cover_element(coverage, element);
		for (axis = ndim; axis > 0; axis--) {
			element += plan->stride[axis - 1];
			if (++index[axis - 1] < piece->count[axis - 1])
				break;
			element -= plan->stride[axis - 1] * index[axis - 1];
			index[axis - 1] = 0;
		}
	}
}

/* Is all of @range of the selection somewhere? */
static int check_coverage(const struct transfer *transfer,
			  struct plan_range range)
{
	struct coverage coverage = { .missing = range.end - range.begin };
	struct piece piece;
	struct plan plan;

	if (!(transfer->entry->flags & CATALOG_HOLES))
		return 0;
	if (transfer->entry->flags & CATALOG_OVERLAP) {
		coverage.bits = calloc(coverage.missing / 8 + 1, 1);
		if (!coverage.bits)
			return -ENOMEM;
	}
	plan_init(&plan, transfer->catalog, transfer->entry,
		  transfer->selection, range);
	while (plan_next(&plan, &piece))
		cover(&coverage, &plan, &piece);
	free(coverage.bits);
	return coverage.missing ? -EIO : 0;
}

static int fill(const struct transfer *transfer, struct plan_range range,
		struct reply *reply)
{
	struct piece pieces[LIMIT_PIECES];
	struct plan plan;
	unsigned count;
	int error = 0;

	plan_init(&plan, transfer->catalog, transfer->entry,
		  transfer->selection, range);
	do {
		count = 0;
		while (count < LIMIT_PIECES && plan_next(&plan, &pieces[count]))
			count++;
		if (count > 0)
			error = transfer->source->read(transfer->source, &plan,
						       pieces, count, reply);
	} while (!error && count == LIMIT_PIECES);
	return error;
}

int transfer_read(const struct transfer *transfer, struct reply *reply)
{
	uint64_t element = dtype_info(transfer->entry->dtype)->size;
	struct plan_range range;
	int error;

	assert(element > 0 && transfer->offset % element == 0 &&
	       transfer->size % element == 0 &&
	       transfer->size <= reply->size - reply->base);
	range.begin = transfer->offset / element;
	range.end = range.begin + transfer->size / element;
	error = check_coverage(transfer, range);
	return error ? error : fill(transfer, range, reply);
}
