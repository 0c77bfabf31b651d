/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/transfer.h"

#include <errno.h>

enum { BATCH_COUNT = 16 };

static int check_piece(const struct transfer *transfer,
		       const struct piece *piece)
{
	const struct catalog_shard *shard = catalog_shard(
		transfer->catalog, transfer->entry, piece->shard);

	return shard->file == CATALOG_NO_FILE ? -EIO : 0;
}

/* Elements [@begin, @end) of the selection. */
static int fill(const struct transfer *transfer, uint64_t begin, uint64_t end,
		struct reply *reply)
{
	struct piece pieces[BATCH_COUNT];
	struct plan plan;
	unsigned count;
	int error = 0;

	plan_init(&plan, transfer->catalog, transfer->entry,
		  transfer->selection, begin, end);
	do {
		count = 0;
		while (count < BATCH_COUNT && !error &&
		       plan_next(&plan, &pieces[count]))
			error = check_piece(transfer, &pieces[count++]);
		if (!error && count > 0)
			error = transfer->source->read(transfer->source, &plan,
						       pieces, count, reply);
	} while (!error && count == BATCH_COUNT);
	return error;
}

int transfer_read(const struct transfer *transfer, struct reply *reply)
{
	uint64_t element = dtype_info(transfer->entry->dtype)->size;
	uint64_t begin, end, skip;
	int error;

	if (element == 0)
		return -EOPNOTSUPP;
	begin = transfer->offset / element;
	end = (transfer->offset + transfer->size + element - 1) / element;
	skip = transfer->offset - begin * element;
	reply->gather = transfer->entry->flags & CATALOG_OVERLAP;
	for (;;) {
		reply_begin(reply, (end - begin) * element);
		error = fill(transfer, begin, end, reply);
		if (!error)
			error = reply_finish(reply, skip, transfer->size);
		if (error != -ENOBUFS || reply->gather)
			break;
		/* Too finely cut to be borrowed: copy it together. */
		reply->gather = true;
	}
	if (error)
		reply_release(reply);
	return error;
}
