/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/peer_put.h"

#include "shard/read/extent.h"

#include <errno.h>
#include <string.h>

size_t peer_put_size(const struct plan *plan, const struct piece *piece)
{
	size_t size = dtype_info((enum dtype)plan->entry->dtype)->size;
	unsigned i;

	for (i = 0; i < plan->entry->ndim; i++)
		size *= piece->count[i];
	return size;
}

static void release_slot(void *context, void *loan)
{
	struct engine_call call = { .slot = loan };

	engine_end(context, &call);
}

/* The runs of a piece whose elements are dense at @data. */
static void init_extents(const struct peer_target *target,
			 const struct piece *piece, struct extents *extents)
{
	struct layout layout = { .offset = 0 };
	struct piece dense = *piece;

	memset(dense.offset, 0, sizeof(dense.offset));
	box_strides(target->plan->entry->ndim, piece->count, layout.stride);
	extents_init(extents, target->plan, &dense, &layout);
}

static void put_piece(const struct peer_target *target,
		      const struct piece *piece, const unsigned char *data)
{
	unsigned char *to = target->reply->data + target->reply->base;
	struct extents extents;
	struct extent extent;
	uint64_t i;

	init_extents(target, piece, &extents);
	while (extents_next(&extents, &extent))
		for (i = 0; i < extent.count; i++)
			memcpy(to + extent.target + i * extent.target_stride,
			       data + extent.offset + i * extent.stride,
			       extent.size);
}

/* Are the bytes that came all that the reply will ever have, in their order? */
static bool is_whole_reply(const struct peer_target *target,
			   const struct peer_request *request)
{
	enum dtype dtype = (enum dtype)target->plan->entry->dtype;
	uint64_t element = dtype_info(dtype)->size, at = 0;
	unsigned i;

	if (target->reply->base > 0 || request->size != target->reply->size ||
	    target->plan->entry->flags & CATALOG_OVERLAP)
		return false;
	for (i = 0; i < request->count; i++) {
		const struct piece *piece = &target->pieces[request->index[i]];
		struct extents extents;
		struct extent extent;

		init_extents(target, piece, &extents);
		extents_next(&extents, &extent);
		if (piece->target * element != at ||
		    extent.size != peer_put_size(target->plan, piece))
			return false;
		at += extent.size;
	}
	return true;
}

int peer_put(const struct peer_target *target, struct peer_request *request)
{
	const unsigned char *data = request->call.data;
	unsigned i;

	if (request->call.got != request->size)
		return -EPROTO;
	if (target->reply->takes_loans && is_whole_reply(target, request)) {
		reply_lend(target->reply, data, release_slot, target->engine,
			   request->call.slot);
		request->call.slot = NULL;
		return 0;
	}
	for (i = 0; i < request->count; i++) {
		const struct piece *piece = &target->pieces[request->index[i]];

		put_piece(target, piece, data);
		data += peer_put_size(target->plan, piece);
	}
	return 0;
}

