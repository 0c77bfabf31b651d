/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/server.h"

#include "shard/base/clock.h"
#include "shard/store/lanes.h"

#include <errno.h>
#include <stdlib.h>

static const struct service *const services[SERVICE_COUNT] = {
	[SERVICE_LIST] = &service_list,
	[SERVICE_STATUS] = &service_status,
	[SERVICE_DIGEST] = &service_digest,
	[SERVICE_FILE] = &service_file,
	[SERVICE_CATALOG] = &service_catalog,
	[SERVICE_PIECES] = &service_pieces,
	[SERVICE_LEARN] = &service_learn,
	[SERVICE_HOLD_FILE] = &service_hold_file,
	[SERVICE_HOLD_CHECKPOINT] = &service_hold_checkpoint,
	[SERVICE_HELD] = &service_held,
	[SERVICE_RELEASE] = &service_release,
};

static const struct service *service_of(const struct engine_request *request)
{
	unsigned number = request->message.service;

	return number < SERVICE_COUNT ? services[number] : NULL;
}

void server_run(struct server *server, struct engine_request *request)
{
	const struct service *service = service_of(request);
	struct service_request work = {
		.from = &server->from, .rank = request->rank,
		.payload = { request->payload, request->message.size },
	};
	int error = service ? 0 : -EPROTO;

	/* Nobody waits for it any more: do not let others wait for it. */
	if (!error && clock_ms() >= request->expires_ms)
		error = -ETIMEDOUT;
	if (!error) {
		work.room = engine_room(request);
		error = work.room ? service->answer(&work) : -ETIMEDOUT;
	}
	engine_answer(request, error, work.size);
}

/* ---- on the pool --------------------------------------------------------- */

struct server_job {
	struct job job;		/* first: passed as this */
	struct server *server;
	struct engine_request *request;
};

static void run_job(struct job *job)
{
	struct server_job *work = (struct server_job *)job;

	server_run(work->server, work->request);
	free(work);
}

void server_submit(void *context, struct engine_request *request)
{
	struct server *server = context;
	const struct service *service = service_of(request);
	struct server_job *work = malloc(sizeof(*work));

	if (work) {
		*work = (struct server_job){
			.job = { .run = run_job,
				 /* What may have to ask others stands aside. */
				 .lane = service && service->waits_for_ranks ?
					 LANE_CATALOGS :
					 lane_of_answering(request->rank) },
			.server = server, .request = request,
		};
		if (pool_submit(server->pool, &work->job) == 0)
			return;
	}
	engine_drop(request);
	free(work);
}

/* ---- ranks that are gone -------------------------------------------------- */

struct forget_job {
	struct job job;		/* first: passed as this */
	struct server *server;
	unsigned rank;
};

static void run_forget(struct job *job)
{
	struct forget_job *forget = (struct forget_job *)job;

	holds_drop_rank(&forget->server->holds, forget->rank);
	free(forget);
}

void server_forget(struct server *server, unsigned rank)
{
	struct forget_job *forget = malloc(sizeof(*forget));

	if (!forget)
		return;
	*forget = (struct forget_job){
		.job = { .run = run_forget, .lane = LANE_STORE },
		.server = server, .rank = rank,
	};
	if (pool_submit(server->pool, &forget->job))
		free(forget);
}

void server_init(struct server *server, struct pool *pool,
		 const struct answering *from)
{
	server->pool = pool;
	server->from = *from;
	server->from.holds = &server->holds;
	holds_init(&server->holds);
}

void server_finish(struct server *server)
{
	holds_finish(&server->holds);
}
