/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an engine is made of: for engine_tables.c (its tables, and what other
 * threads do), engine_peers.c (who is there), and engine_thread.c (its thread).
 */
#ifndef COMM_ENGINE_PARTS_H
#define COMM_ENGINE_PARTS_H

#include "comm/engine.h"
#include "shard/base/clock.h"

#include <pthread.h>
#include <stdatomic.h>

/* Slots and rooms: what all threads of a daemon that wait for peers, and all
 * that work for them, can use at once. */
enum { SLOT_MAX = 96, ROOM_MAX = 64, EVENT_MAX = 512 };

/* How long to poll after something happened; a nap, and how long it may grow
 * while a call waits, and otherwise; how long a ring is believed. */
enum { HOT_NS = 50 * 1000, NAP_NS = 50 * 1000, NAP_WAIT_NS = 1000 * 1000,
       NAP_MAX_NS = 64 * 1000 * 1000, AWAIT_NS = 20 * 1000 * 1000 };

/* Of a buffer: whole pages. And of a huge page, here. After how many bulks of
 * half a buffer or more buffers are worth huge pages. */
#define BUFFER_SIZE ((ENGINE_BULK_MAX + 4095) / 4096 * 4096)
#define HUGE_SIZE ((size_t)2 << 20)
enum { HUGE_BULKS = 64 };
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { POLL_MS = 10, RING_MS = 4, PING_MS = 400, GREET_MS = 100,
       GREET_COUNT = 50, DRAIN_MS = 500 };

struct engine_operation {
	enum { OP_REQUEST, OP_BULK_IN, OP_BULK_OUT, OP_ANSWER, OP_ECHO } kind;
	void *owner;		/* struct slot, room or echo */
};

struct slot {
	/* Guarded by the engine's lock: */
	struct slot *next;	/* free, or queued */
	bool held;		/* by who asked */
	bool ended;
	unsigned pending;	/* operations under way: both, once queued */
	int error;
	size_t got;
	/* The engine's thread's, once queued: */
	bool posted, empty, answered;
	int answer;
	uint64_t ticket, began_ms, deadline_ms, ring_ms;
	bool patient;
	unsigned rank;
	/* Const while it is used: */
	unsigned index;
	struct engine_operation request, bulk;
	pthread_cond_t wake;
	unsigned char *buffer;	/* const: of the engine's */
	size_t message_size;
	unsigned char message[MESSAGE_SIZE_MAX];
};

struct room {
	/* Guarded by the engine's lock: */
	struct room *next;
	unsigned pending;
	unsigned rank;
	size_t size;
	bool has_answer;
	bool sending;		/* the engine's thread's: out of the queue */
	uint64_t ticket;
	struct engine_operation bulk, answer;
	struct message message;
	unsigned char *buffer;	/* const: of the engine's */
};

/* A ping of a peer over the transport, or the answer to one: at most one of
 * each is under way. */
struct echo {
	struct engine_operation operation;
	struct message message;
	bool busy;
};

struct peer {
	_Atomic int state;	/* enum peer_state */
	/* The engine's thread's: */
	uint64_t heard_ms, ping_ms;
	struct echo ping, pong;
	uint64_t probe_ms;	/* when it was to be probed; 0: it is not, or
				 * was heard from since */
	unsigned greeted;	/* times, until it was heard from */
	bool known;
	uint64_t echo_ticket;	/* of pings over the transport, since it is
				 * suspect */
	uint64_t echo_ms;	/* when to send the next of these */
};

struct engine {
	struct engine_options options;	/* const */
	struct transport *transport;	/* owned; the thread's */
	struct doorbell *bell; /* owned; the thread's */
	unsigned rank, count;		/* const */
	int event;			/* owned eventfd */
	atomic_bool asleep;
	pthread_mutex_t lock;
	pthread_cond_t free_slots, free_rooms;
	struct slot *free, *queued, **queued_end;	/* guarded by lock */
	struct room *free_room, *queued_room, **queued_room_end;
	bool stop;			/* guarded by lock */
	atomic_bool probe;		/* somebody asks who is there */
	_Atomic uint64_t wakeups;
	struct peer *peers;		/* owned */
	/* The thread's: */
	uint64_t now_ns, moved_ns, rung_ns, checked_ms, stop_ms;
	unsigned active;		/* slots and rooms with operations */
	unsigned bulks;			/* large ones, up to HUGE_BULKS */
	bool waiting;			/* a call has not ended */
	bool awaited;			/* rung, and nothing has come yet */
	void *slot_map, *room_map;	/* owned: of their buffers */
	struct slot slots[SLOT_MAX];
	struct room rooms[ROOM_MAX];
};

static inline uint64_t engine_now_ms(const struct engine *engine)
{
	return engine->now_ns / 1000000;
}

static inline bool engine_is_gone(enum peer_state state)
{
	return state == PEER_LOST || state == PEER_LEFT;
}

/* ---- engine_tables.c ----------------------------------------------------- */

/* Free it if nobody holds it and nothing of it is under way. */
void engine_free_slot_locked(struct engine *engine, struct slot *slot);
/* The call has ended, unless it has already. */
void engine_end_slot_locked(struct slot *slot, int error, size_t got);
/* One operation of a slot is over; of a room. */
void engine_put_slot_locked(struct engine *engine, struct slot *slot);
void engine_put_room_locked(struct engine *engine, struct room *room);

/* ---- engine_peers.c, for the thread -------------------------------------- */

void engine_set_state(struct engine *engine, unsigned rank,
		      enum peer_state state);
/* Ping over the transport, or answer that with the ticket of the ping. */
void engine_send_echo(struct engine *engine, unsigned rank,
		      enum message_kind kind, uint64_t ticket);
/* A ping with that ticket was answered. */
void engine_hear_echo(struct engine *engine, unsigned rank, uint64_t ticket);
/* It is sent. */
void engine_end_echo(struct engine *engine, struct echo *echo);
/* @rank was heard from: by its bell, or by the transport. */
void engine_hear_bell(struct engine *engine, unsigned rank);
void engine_hear(struct engine *engine, unsigned rank);
/* Who is there? What has arrived so far does not count. */
void engine_begin_probe(struct engine *engine);
/* Deadlines, pings, rings: once a millisecond. */
void engine_check_times(struct engine *engine);

#endif
