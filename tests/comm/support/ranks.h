/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Engines of several ranks in one process: each with a thread, a bell on
 * loopback, and threads that work for the others.
 */
#ifndef COMM_SUPPORT_RANKS_H
#define COMM_SUPPORT_RANKS_H

#include "support/fake_net.h"

#include "comm/engine.h"

#include <pthread.h>

enum { RANKS_MAX = 8, RANKS_WORKERS = 4 };

struct rank;

struct ranks_options {
	unsigned count, deadline_ms;
	unsigned workers;	/* of each; 0: requests are kept, see
				 * ranks_take */
	uint64_t seed;
	/* On a worker's thread: answer, or drop. */
	void (*work)(void *context, struct rank *rank,
		     struct engine_request *request);
	/* On the engine's thread: @other is in another state for @rank. NULL:
	 * nobody wants to know. */
	void (*changed)(void *context, struct rank *rank, unsigned other,
			enum peer_state state);
	void *context;
};

struct rank {
	struct ranks *ranks;
	unsigned rank;
	struct engine *engine;
	struct doorbell *bell; /* the engine's */
	pthread_t thread, workers[RANKS_WORKERS];
	bool running;			/* the engine's thread; the test's */
	/* Guarded by the lock of all: */
	bool held, ending;		/* its workers wait; and end */
	struct engine_request *queue, **queue_end;
	unsigned known;			/* ranks it has heard from */
	unsigned changes;		/* of states */
};

struct ranks {
	struct ranks_options options;
	struct fake_net *net;
	pthread_mutex_t lock;
	pthread_cond_t change;
	struct rank rank[RANKS_MAX];
};

/* Start all, and wait until each has heard from each. */
void ranks_start(struct ranks *ranks, const struct ranks_options *options);
/* Stop all and check that each ended in time. */
void ranks_finish(struct ranks *ranks);

/* End the engine of one rank, as at its unmount. */
void ranks_stop(struct ranks *ranks, unsigned rank);
/* Its engine does not go on; returns when that is so. fake_net_resume. */
void ranks_pause(struct ranks *ranks, unsigned rank);
/* As if killed: its engine never goes on, and its port is refused. */
void ranks_kill(struct ranks *ranks, unsigned rank);
/* While @held, its workers begin nothing new. */
void ranks_hold(struct ranks *ranks, unsigned rank, bool held);

/* Without workers: wait for the next request at @rank. */
struct engine_request *ranks_take(struct ranks *ranks, unsigned rank);

/* Until @count requests wait at @rank, whose workers are held. */
void ranks_await_requests(struct ranks *ranks, unsigned rank, unsigned count);

/* Until @rank sees @other in @state; fails the test after 20 s. */
void ranks_await_state(struct ranks *ranks, unsigned rank, unsigned other,
		       enum peer_state state);
/* Until so many slots of @rank are in quarantine. */
void ranks_await_quarantined(struct ranks *ranks, unsigned rank,
			     unsigned count);
/* Until no slot of @rank is used. */
void ranks_await_free(struct ranks *ranks, unsigned rank);
unsigned ranks_count_changes(struct ranks *ranks, unsigned rank);

/* CLOCK_MONOTONIC. */
uint64_t ranks_now_ms(void);

#endif
