/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of a test: each says what it was asked, and answers as told. */
#ifndef COMM_SUPPORT_HANDLERS_H
#define COMM_SUPPORT_HANDLERS_H

#include "support/ranks.h"

#include "comm/server.h"

/* One for each rank, as the workers' context: handlers[rank]. */
struct served {
	struct peer_handlers handlers;
	pthread_mutex_t lock;
	unsigned count;			/* requests that came to a handler */
};

/* For struct ranks_options, with an array of struct served as context. */
void handlers_work(void *context, struct rank *rank,
		   struct engine_request *request);

/* For each handler of @served that is not set: -ENOSYS. */
void handlers_init(struct served *served, const struct peer_handlers *some);
void handlers_finish(struct served *served);

#endif
