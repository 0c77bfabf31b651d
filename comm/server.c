/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/server.h"

#include "comm/wire.h"
#include "shard/base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A request that is worked on. */
struct work {
	const struct peer_handlers *handlers;
	struct wire_request *wire;
	unsigned char *room;		/* ENGINE_BULK_MAX bytes */
	size_t size;			/* of the answer */
};

static int serve_list(struct work *w)
{
	return w->handlers->list(w->handlers->context, w->wire->of,
				 w->wire->path, w->wire->after, w->room,
				 LIMIT_READ_SIZE, &w->size);
}

static int serve_status(struct work *w)
{
	struct array out = { .data = NULL };
	int error = w->handlers->status(w->handlers->context, w->wire->path,
					&out);

	if (!error && out.size > ENGINE_BULK_MAX)
		error = -E2BIG;
	if (!error) {
		memcpy(w->room, out.data, out.size);
		w->size = out.size;
	}
	array_finish(&out);
	return error;
}

static int serve_digest(struct work *w)
{
	uint64_t hash[2];
	int error = w->handlers->digest(w->handlers->context, &w->wire->file,
					hash);

	if (error)
		return error;
	memcpy(w->room, hash, sizeof(hash));
	w->size = sizeof(hash);
	return 0;
}

static int serve_file(struct work *w)
{
	return w->handlers->file(w->handlers->context, &w->wire->file,
				 w->room, &w->size);
}

/* The total, then the bytes. */
static int serve_catalog(struct work *w)
{
	uint64_t total;
	int error = w->handlers->catalog(w->handlers->context,
					 &w->wire->part,
					 w->room + sizeof(total),
					 LIMIT_READ_SIZE - sizeof(total),
					 &w->size, &total);

	if (error)
		return error;
	memcpy(w->room, &total, sizeof(total));
	w->size += sizeof(total);
	return 0;
}

static int serve_pieces(struct work *w)
{
	struct reply *reply = reply_of_thread();
	int error;

	if (!reply)
		return -ENOMEM;
	reply->nowait = reply->takes_loans = false;
	error = reply_begin(reply, w->room, ENGINE_BULK_MAX);
	if (!error)
		error = w->handlers->pieces(w->handlers->context,
					    &w->wire->pieces, reply, &w->size);
	return error;
}

static int serve_learn(struct work *w)
{
	return w->handlers->learn(w->handlers->context, w->wire->path,
				  w->wire->hash);
}

static int (*const services[SERVICE_COUNT])(struct work *) = {
	[SERVICE_LIST] = serve_list,
	[SERVICE_STATUS] = serve_status,
	[SERVICE_DIGEST] = serve_digest,
	[SERVICE_FILE] = serve_file,
	[SERVICE_CATALOG] = serve_catalog,
	[SERVICE_PIECES] = serve_pieces,
	[SERVICE_LEARN] = serve_learn,
};

static int run(const struct peer_handlers *handlers,
	       struct engine_request *request, size_t *ret_size)
{
	enum message_service service =
		(enum message_service)request->message.service;
	struct work work = { .handlers = handlers };
	int error;

	/* Nobody waits for it any more: do not let others wait for it. */
	if (clock_ms() >= request->expires_ms)
		return -ETIMEDOUT;
	work.wire = malloc(sizeof(*work.wire));
	if (!work.wire)
		return -ENOMEM;
	error = wire_read(service, request->payload, request->message.size,
			  work.wire);
	if (!error) {
		work.room = engine_room(request);
		error = work.room ? services[service](&work) : -ETIMEDOUT;
	}
	free(work.wire);
	*ret_size = work.size;
	return error;
}

void server_run(const struct peer_handlers *handlers,
		struct engine_request *request)
{
	size_t size = 0;
	int error = run(handlers, request, &size);

	engine_answer(request, error, size);
}
