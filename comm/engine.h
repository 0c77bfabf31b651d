/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine: one thread that owns the transport, and with it every MPI call.
 * It never touches a disk, a mapping or a GPU.
 *
 * Who asks takes a slot, in which the answer arrives; its receive is posted
 * before the request is sent, so that nothing large is ever unexpected. Who
 * is asked gets the request through `serve`, fills a room, and answers.
 *
 * A call has a deadline. When it passes, the call fails with -EIO, and its
 * slot is in quarantine until the late answer arrives or its rank is gone.
 * The rank is then suspect: calls fail at once, while it is pinged, until it
 * has answered that over the transport. A rank whose port is refused is lost,
 * and one that says so has left: for good, since MPI cannot meet a process
 * again.
 */
#ifndef COMM_ENGINE_H
#define COMM_ENGINE_H

#include "comm/doorbell.h"
#include "comm/message.h"
#include "comm/transport.h"
#include "shard/store/peers.h"

/* Bytes of a slot and of a room. */
#define ENGINE_BULK_MAX LIMIT_READ_SIZE

struct engine;
struct engine_request;

struct engine_options {
	struct transport *transport;	/* taken over */
	struct doorbell *bell; /* taken over; connected */
	unsigned deadline_ms;
	/* On the engine's thread, which must not wait: hand @request over to
	 * somebody who ends in engine_answer. */
	void (*serve)(void *context, struct engine_request *request);
	/* Likewise: @rank is in another state. May be NULL. */
	void (*changed)(void *context, unsigned rank, enum peer_state state);
	/* Likewise: @rank was heard from for the first time, at @ip. */
	void (*known)(void *context, unsigned rank, uint32_t ip);
	void *context;
};

/* 0 or -errno; then nothing is taken over. */
int engine_create(const struct engine_options *options,
		  struct engine **ret_engine);

/* The thread's main function, until engine_stop; may be given to a thread, or
 * called on one that is there. */
void engine_run(struct engine *engine);

/* Fail all calls, say goodbye, and let engine_run return, at the latest a
 * second later. Thread safe. */
void engine_stop(struct engine *engine);

/* After engine_run has returned, and all calls and requests have ended. */
void engine_destroy(struct engine *engine);

/* ---- asking -------------------------------------------------------------- */

struct engine_call {
	unsigned rank, service;
	const void *payload;	/* borrowed during engine_begin */
	size_t size;		/* of it, bytes */
	unsigned timeout_ms;	/* 0: the deadline of the options */
	bool patient;		/* no deadline while the rank answers pings */
	/* When it has ended: */
	int error;
	const unsigned char *data; /* until engine_end */
	size_t got;		/* bytes */
	struct slot *slot;	/* the engine's; NULL: it has none */
};

/*
 * Start @count calls, at most ENGINE_CALL_MAX, for all of which there must be
 * slots: else wait for them, or, if @nowait, return -EAGAIN with nothing
 * done. Each call may have failed at once. 0 or -EAGAIN.
 */
enum { ENGINE_CALL_MAX = 32 };
int engine_begin(struct engine *engine, struct engine_call *calls,
		 unsigned count, bool nowait);
/* Wait for the end of a call that was begun. Returns its error. */
int engine_wait(struct engine *engine, struct engine_call *call);
/* Let go of its slot, also of a call that has not ended. */
void engine_end(struct engine *engine, struct engine_call *call);

/* ---- answering ----------------------------------------------------------- */

struct engine_request {
	struct engine *engine;
	struct engine_request *next;
	struct room *room;	/* the engine's */
	uint64_t expires_ms;	/* nobody waits any more after that */
	struct message message;
	unsigned rank;		/* who asks */
	unsigned char payload[]; /* message.size bytes */
};

/* ENGINE_BULK_MAX bytes to fill; waits for them. NULL: they do not become
 * free in time. */
unsigned char *engine_room(struct engine_request *request);
/* Answer with the first @size bytes of the room, or with @error, and free
 * the request. Without an error and a room, the answer has no bytes. */
void engine_answer(struct engine_request *request, int error, size_t size);

/* Nobody can work on it: free it. Who asks will see that nothing comes. */
void engine_drop(struct engine_request *request);

/* ---- looking ------------------------------------------------------------- */

/* Find out in the background whether all are there: one that does not answer
 * a ping within the deadline is suspect. Thread safe. */
void engine_probe(struct engine *engine);

enum peer_state engine_state(const struct engine *engine, unsigned rank);

struct engine_counters {
	uint64_t slots, quarantined;	/* in use; of these, waited for by
					 * nobody */
	uint64_t wakeups;		/* of the thread */
};
void engine_count(struct engine *engine, struct engine_counters *ret);

#endif
