/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces that have come from a rank, as dense boxes one behind the other, are
 * put where they belong in a reply. */
#ifndef COMM_PEER_PUT_H
#define COMM_PEER_PUT_H

#include "comm/engine.h"
#include "comm/service.h"

/* What is read: some pieces of a plan, into a reply. All is borrowed. */
struct peer_target {
	const struct plan *plan;
	const struct piece *pieces;
	struct reply *reply;
	struct engine *engine;
};

/* One request to one rank, and which pieces it is for. */
struct peer_request {
	struct engine_call call;
	struct pieces_wire pieces;
	unsigned count;
	size_t size;			/* bytes that must come */
	unsigned index[LIMIT_PIECES];	/* of the target's pieces */
};

/* Bytes of a piece. */
size_t peer_put_size(const struct plan *plan, const struct piece *piece);

/* What came of @request, which has ended well. A reply that takes loans gets
 * the slot of the call, if that has all of it. 0, or -EPROTO: it is not what
 * was asked for. */
int peer_put(const struct peer_target *target, struct peer_request *request);

#endif
