/* SPDX-License-Identifier: Apache-2.0 */
/* Answers requests of other ranks, each on a thread of a pool. */
#ifndef COMM_SERVER_H
#define COMM_SERVER_H

#include "comm/engine.h"
#include "comm/held_for_others.h"
#include "comm/service.h"
#include "shard/base/pool.h"

struct server {
	struct pool *pool;		/* borrowed; its lanes are lanes.h's */
	struct answering from;		/* const while there are requests */
	struct holds holds;
};

/* What is in @from is borrowed, but for its holds, which are the server's. */
void server_init(struct server *server, struct pool *pool,
		 const struct answering *from);
/* After the last request. */
void server_finish(struct server *server);
/* @rank is gone: nothing has to be kept for it. Never blocks. */
void server_forget(struct server *server, unsigned rank);

/* Have @request worked on by @server, a struct server; it is gone then. Never
 * blocks. */
void server_submit(void *server, struct engine_request *request);
/* Work on it here. May block. */
void server_run(struct server *server, struct engine_request *request);

#endif
