/* SPDX-License-Identifier: Apache-2.0 */
/* What struct peers offers, by calls of the engine: a part of cluster.c. */
#ifndef COMM_CLIENT_H
#define COMM_CLIENT_H

#include "comm/engine.h"
#include "comm/wire.h"

#include <pthread.h>

/* What a rank need not keep any more. */
struct client_release {
	unsigned rank;
	uint64_t hold;
};

struct client {
	struct peers peers;
	struct engine *engine;		/* owned; NULL before all have met */
	_Atomic uint64_t holds;		/* numbers that were given */
	pthread_mutex_t release_lock;
	struct array releases;		/* owned; struct client_release: put
					 * off; guarded by release_lock */
};

/* Without an engine yet; all but what the cluster itself knows, and what makes a
 * source. */
int client_init(struct client *client, unsigned rank, unsigned count);
void client_finish(struct client *client);

static inline struct client *client_of(struct peers *peers)
{
	return (struct client *)(void *)peers;
}

/* One call, whose answer is there until engine_end. */
int client_ask(struct client *client, struct engine_call *call,
	       const struct wire *wire);

#endif
