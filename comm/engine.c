/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot:
 *
 *	free -> queued -> posted -> done -> free
 *			    |
 *			    +-> failed (late, or its rank is gone) -> free
 *
 * It is free when its user has let go of it and none of its operations is
 * under way: a slot that failed late stays, as if it were still wanted, until
 * what it waits for has arrived. Its ticket has a generation, so that an
 * answer to an earlier use is none to this one. A room is queued, then sent,
 * then free, likewise.
 *
 * The thread takes what is queued, polls the transport and the bell, and looks
 * at deadlines. While something happens it goes on at once, and for a moment
 * after that it polls on, giving others the processor; then it sleeps on the
 * bell and an eventfd. Over some transports a message moves only while both
 * ends poll, and nobody can see it move before all of it is there: who sends
 * one rings, and who is rung, or waits for something, sleeps in short naps,
 * which grow the longer nothing has come.
 */
#include "comm/engine.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

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

enum { POLL_MS = 10, RING_MS = 4, PING_MS = 400, GREET_MS = 100, GREET_COUNT = 50, DRAIN_MS = 500 };

struct operation {
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
	struct operation request, bulk;
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
	struct operation bulk, answer;
	struct message message;
	unsigned char *buffer;	/* const: of the engine's */
};

/* A ping of a peer over the transport, or the answer to one: at most one of
 * each is under way. */
struct echo {
	struct operation operation;
	struct message message;
	bool busy;
};

struct peer {
	_Atomic int state;	/* enum peer_state */
	/* The engine's thread's: */
	uint64_t heard_ms, ping_ms;
	struct echo ping, pong;
	uint64_t probe_ms;	/* when it was to be probed; 0: it is not */
	unsigned greeted;	/* times, until it was heard from */
	bool known;
	bool pinged;		/* over the transport, since it is suspect */
};

struct engine {
	struct engine_options options;	/* const */
	struct transport *transport;	/* owned; the thread's */
	struct bell *bell;		/* owned; the thread's */
	unsigned rank, count;		/* const */
	int event;			/* owned eventfd */
	atomic_bool asleep;
	pthread_mutex_t lock;
	pthread_cond_t free_slots, free_rooms;
	struct slot *free, *queued, **queued_end;	/* guarded by lock */
	struct room *free_room, *queued_room, **queued_room_end;
	bool stop;			/* guarded by lock */
	atomic_bool probe;		/* somebody wants to know who is there */
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

static uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t now_ms(const struct engine *engine)
{
	return engine->now_ns / 1000000;
}

/* ---- slots, with the lock -------------------------------------------------- */

static void free_slot_locked(struct engine *engine, struct slot *slot)
{
	if (slot->held || slot->pending > 0)
		return;
	slot->next = engine->free;
	engine->free = slot;
	pthread_cond_broadcast(&engine->free_slots);
}

static void end_slot_locked(struct slot *slot, int error, size_t got)
{
	if (slot->ended)
		return;
	slot->ended = true;
	slot->error = error;
	slot->got = got;
	pthread_cond_broadcast(&slot->wake);
}

/* One operation of a slot is over. */
static void put_slot_locked(struct engine *engine, struct slot *slot)
{
	if (--slot->pending > 0)
		return;
	slot->posted = false;
	engine->active--;
	free_slot_locked(engine, slot);
}

static void put_room_locked(struct engine *engine, struct room *room)
{
	if (--room->pending > 0)
		return;
	room->sending = false;
	engine->active--;
	room->next = engine->free_room;
	engine->free_room = room;
	pthread_cond_signal(&engine->free_rooms);
}

static bool is_gone(enum peer_state state)
{
	return state == PEER_LOST || state == PEER_LEFT;
}

enum peer_state engine_state(const struct engine *engine, unsigned rank)
{
	return (enum peer_state)atomic_load(&engine->peers[rank].state);
}

static void wake(struct engine *engine)
{
	const uint64_t one = 1;

	if (atomic_exchange(&engine->asleep, false) &&
	    write(engine->event, &one, sizeof(one)) < 0)
		/* It is full: the thread will wake up. */
		return;
}

/* ---- peers ----------------------------------------------------------------- */

/* End what waits for @rank. Of one that is gone nothing more will come. */
static void fail_rank(struct engine *engine, unsigned rank, bool gone)
{
	unsigned i;

	if (gone)
		engine->transport->forget(engine->transport, rank);
	pthread_mutex_lock(&engine->lock);
	for (i = 0; i < SLOT_MAX; i++) {
		struct slot *slot = &engine->slots[i];

		if (!slot->posted || slot->rank != rank)
			continue;
		end_slot_locked(slot, -EIO, 0);
		if (gone) {
			slot->pending = 1;
			put_slot_locked(engine, slot);
		}
	}
	for (i = 0; gone && i < ROOM_MAX; i++) {
		struct room *room = &engine->rooms[i];

		/* What is queued still sees that its rank is gone. */
		if (room->sending && room->rank == rank) {
			room->pending = 1;
			put_room_locked(engine, room);
		}
	}
	pthread_mutex_unlock(&engine->lock);
}

static void end_echo(struct engine *engine, struct echo *echo)
{
	engine->active -= echo->busy;
	echo->busy = false;
}

static void set_state(struct engine *engine, unsigned rank,
		      enum peer_state state)
{
	struct peer *peer = &engine->peers[rank];
	enum peer_state old = engine_state(engine, rank);

	if (old == state || old == PEER_SELF || is_gone(old))
		return;
	atomic_store(&peer->state, state);
	peer->ping_ms = 0;
	peer->probe_ms = 0;
	peer->pinged = false;
	if (is_gone(state)) {
		end_echo(engine, &peer->ping);
		end_echo(engine, &peer->pong);
	}
	if (state != PEER_UP)
		fail_rank(engine, rank, is_gone(state));
	if (engine->options.changed)
		engine->options.changed(engine->options.context, rank, state);
}

static void send_echo(struct engine *engine, unsigned rank,
		      enum message_kind kind)
{
	struct peer *peer = &engine->peers[rank];
	struct echo *echo = kind == MESSAGE_PING ? &peer->ping : &peer->pong;

	if (echo->busy)
		return;
	message_init(&echo->message, kind, 0);
	echo->busy = engine->transport->send(engine->transport, rank,
					     &echo->message,
					     sizeof(echo->message),
					     &echo->operation) == 0;
	if (echo->busy)
		engine->active++;
	bell_send(engine->bell, rank, BELL_RING);
}

/* By its bell: it is there. What the transport carries may still be behind
 * what was lost when it was not: a suspect rank has to prove that as well. */
static void hear_bell(struct engine *engine, unsigned rank)
{
	struct peer *peer = &engine->peers[rank];

	peer->heard_ms = now_ms(engine);
	if (!peer->known && bell_is_known(engine->bell, rank)) {
		peer->known = true;
		if (engine->options.known)
			engine->options.known(engine->options.context, rank,
					      bell_ip(engine->bell, rank));
	}
	if (engine_state(engine, rank) == PEER_SUSPECT && !peer->pinged) {
		peer->pinged = true;
		send_echo(engine, rank, MESSAGE_PING);
	}
}

/* By the transport. */
static void hear(struct engine *engine, unsigned rank)
{
	engine->peers[rank].heard_ms = now_ms(engine);
	if (engine_state(engine, rank) == PEER_SUSPECT)
		set_state(engine, rank, PEER_UP);
}

/* ---- buffers --------------------------------------------------------------- */

/*
 * The kernel copies to and from huge pages in less time: it looks up each page
 * of a buffer for the copy between processes, and for its own answer. A daemon
 * that moves little shall stay small.
 */
static void use_huge_pages(const struct engine *engine)
{
	const struct {
		unsigned char *first;
		size_t size;
	} areas[] = {
		{ engine->slots[SLOT_MAX - 1].buffer, SLOT_MAX * BUFFER_SIZE },
		{ engine->rooms[ROOM_MAX - 1].buffer, ROOM_MAX * BUFFER_SIZE },
	};
	size_t i;

	/* Where the kernel has none of this, nothing is lost. */
	for (i = 0; i < 2; i++) {
		madvise(areas[i].first, areas[i].size, MADV_HUGEPAGE);
		madvise(areas[i].first, areas[i].size, MADV_COLLAPSE);
	}
}

static void count_bulk(struct engine *engine, size_t size)
{
	if (size >= BUFFER_SIZE / 2 && engine->bulks < HUGE_BULKS &&
	    ++engine->bulks == HUGE_BULKS)
		use_huge_pages(engine);
}

/* ---- sending --------------------------------------------------------------- */

/* The receive first. */
static void post_slot(struct engine *engine, struct slot *slot)
{
	struct transport *t = engine->transport;
	unsigned missing = 2;		/* operations that do not begin */
	int error;

	slot->posted = true;
	engine->active++;
	if (engine_state(engine, slot->rank) != PEER_UP) {
		error = -EIO;
		goto fail;
	}
	error = t->receive_bulk(t, slot->rank, slot->index, slot->buffer,
				ENGINE_BULK_MAX, &slot->bulk);
	if (error)
		goto fail;
	missing--;
	error = t->send(t, slot->rank, slot->message, slot->message_size,
			&slot->request);
	if (!error) {
		bell_send(engine->bell, slot->rank, BELL_RING);
		return;
	}
	/* The receive stays: as one that is late. */
fail:
	pthread_mutex_lock(&engine->lock);
	end_slot_locked(slot, error, 0);
	while (missing-- > 0)
		put_slot_locked(engine, slot);
	pthread_mutex_unlock(&engine->lock);
}

static void send_room(struct engine *engine, struct room *room)
{
	struct transport *t = engine->transport;
	int error = -EIO;

	room->sending = true;
	engine->active++;
	if (!is_gone(engine_state(engine, room->rank)))
		error = t->send_bulk(t, room->rank, message_slot(room->ticket),
				     room->buffer, room->size, &room->bulk);
	if (!error && room->has_answer) {
		room->pending++;
		error = t->send(t, room->rank, &room->message,
				sizeof(room->message), &room->answer);
		if (error)
			room->pending--;
		error = 0;
	}
	if (!error) {
		bell_send(engine->bell, room->rank, BELL_RING);
		count_bulk(engine, room->size);
		return;
	}
	pthread_mutex_lock(&engine->lock);
	put_room_locked(engine, room);
	pthread_mutex_unlock(&engine->lock);
}

static bool take_queued(struct engine *engine)
{
	struct slot *slot;
	struct room *room;

	pthread_mutex_lock(&engine->lock);
	slot = engine->queued;
	room = engine->queued_room;
	engine->queued = NULL;
	engine->queued_end = &engine->queued;
	engine->queued_room = NULL;
	engine->queued_room_end = &engine->queued_room;
	pthread_mutex_unlock(&engine->lock);
	if (!slot && !room)
		return false;
	while (slot) {
		struct slot *next = slot->next;

		post_slot(engine, slot);
		slot = next;
	}
	while (room) {
		struct room *next = room->next;

		send_room(engine, room);
		room = next;
	}
	return true;
}

/* ---- receiving ------------------------------------------------------------- */

static void take_request(struct engine *engine, unsigned rank,
			 const struct message *message, const void *payload)
{
	struct engine_request *request;

	if (engine->stop_ms || is_gone(engine_state(engine, rank)))
		return;
	request = malloc(sizeof(*request) + message->size);
	/* Who asked will see that nothing comes. */
	if (!request)
		return;
	*request = (struct engine_request){
		.engine = engine, .message = *message, .rank = rank,
		.expires_ms = now_ms(engine) + message->time_ms,
	};
	memcpy(request->payload, payload, message->size);
	engine->options.serve(engine->options.context, request);
}

static void take_answer(struct engine *engine, unsigned rank,
			const struct message *message)
{
	unsigned index = message_slot(message->ticket);
	struct slot *slot = &engine->slots[index < SLOT_MAX ? index : 0];

	/* Not ours, or of an earlier use. */
	if (!slot->posted || slot->rank != rank ||
	    slot->ticket != message->ticket)
		return;
	slot->answered = true;
	slot->answer = message->error;
	if (!slot->empty)
		return;
	/* Whoever says it twice: the bulk is over only once. */
	slot->empty = false;
	pthread_mutex_lock(&engine->lock);
	end_slot_locked(slot, slot->answer, 0);
	put_slot_locked(engine, slot);
	pthread_mutex_unlock(&engine->lock);
}

static void take_message(struct engine *engine,
			 const struct transport_event *event)
{
	struct message message;

	if (event->rank >= engine->count ||
	    message_check(event->data, event->size, &message))
		return;
	hear(engine, event->rank);
	switch ((enum message_kind)message.kind) {
	case MESSAGE_REQUEST:
		take_request(engine, event->rank, &message,
			     (const char *)event->data + sizeof(message));
		break;
	case MESSAGE_ANSWER:
		take_answer(engine, event->rank, &message);
		break;
	case MESSAGE_PING:
		if (!is_gone(engine_state(engine, event->rank)))
			send_echo(engine, event->rank, MESSAGE_PONG);
		break;
	case MESSAGE_PONG:
		break;
	}
}

static void take_bulk(struct engine *engine, struct slot *slot, int error,
		      size_t size)
{
	hear(engine, slot->rank);
	count_bulk(engine, size);
	pthread_mutex_lock(&engine->lock);
	if (error || size > 0) {
		end_slot_locked(slot, error ? -EPROTO : 0, size);
		put_slot_locked(engine, slot);
	} else if (slot->answered) {
		end_slot_locked(slot, slot->answer, 0);
		put_slot_locked(engine, slot);
	} else {
		/* What it means is in the message that follows. */
		slot->empty = true;
	}
	pthread_mutex_unlock(&engine->lock);
}

static void take_event(struct engine *engine,
		       const struct transport_event *event)
{
	const struct operation *operation = event->cookie;

	if (event->kind == TRANSPORT_MESSAGE) {
		take_message(engine, event);
		return;
	}
	if (operation->kind == OP_BULK_IN) {
		take_bulk(engine, operation->owner, event->error, event->size);
		return;
	}
	if (operation->kind == OP_ECHO) {
		end_echo(engine, operation->owner);
		return;
	}
	pthread_mutex_lock(&engine->lock);
	if (operation->kind == OP_REQUEST)
		put_slot_locked(engine, operation->owner);
	else
		put_room_locked(engine, operation->owner);
	pthread_mutex_unlock(&engine->lock);
}

static bool poll_transport(struct engine *engine)
{
	struct transport_event events[EVENT_MAX];
	unsigned count = engine->transport->poll(engine->transport, events,
						 EVENT_MAX);
	unsigned i;

	for (i = 0; i < count; i++)
		take_event(engine, &events[i]);
	return count > 0;
}

static bool poll_bell(struct engine *engine)
{
	struct bell_event event;
	bool any = false;

	while (bell_next(engine->bell, &event)) {
		any = true;
		switch (event.kind) {
		case BELL_REFUSED:
			set_state(engine, event.rank, PEER_LOST);
			break;
		case BELL_BYE:
			set_state(engine, event.rank, PEER_LEFT);
			break;
		default:
			hear_bell(engine, event.rank);
			if (event.kind == BELL_RING)
				engine->rung_ns = engine->now_ns;
		}
	}
	return any;
}

/* ---- time ------------------------------------------------------------------ */

static void ping(struct engine *engine, unsigned rank)
{
	struct peer *peer = &engine->peers[rank];

	if (now_ms(engine) < peer->ping_ms)
		return;
	bell_send(engine->bell, rank, BELL_PING);
	peer->ping_ms = now_ms(engine) + PING_MS;
}

/* How long a rank may be silent that is pinged: some pings at least. */
static uint64_t patience_ms(const struct engine *engine)
{
	const unsigned least = 3 * PING_MS;

	return engine->options.deadline_ms > least ?
	       engine->options.deadline_ms : least;
}

static bool is_late(struct engine *engine, const struct slot *slot)
{
	uint64_t heard = engine->peers[slot->rank].heard_ms;
	uint64_t now = now_ms(engine);

	if (!slot->patient)
		return now >= slot->deadline_ms;
	if (heard < slot->began_ms)
		heard = slot->began_ms;
	if (now >= heard + PING_MS)
		ping(engine, slot->rank);
	return now >= heard + patience_ms(engine);
}

/* A ring may be lost, or be there long before what it is rung for, and who was
 * rung is asleep again: ring again, more and more rarely. */
static void ring_again(struct engine *engine, struct slot *slot)
{
	uint64_t now = now_ms(engine), waited = now - slot->began_ms;

	if (now < slot->ring_ms)
		return;
	bell_send(engine->bell, slot->rank, BELL_RING);
	slot->ring_ms = now + (waited < PING_MS ? waited : PING_MS);
}

/* Until everybody was heard from once, rings may go astray. */
static void greet(struct engine *engine, unsigned rank)
{
	struct peer *peer = &engine->peers[rank];

	if (peer->greeted == GREET_COUNT || now_ms(engine) < peer->ping_ms)
		return;
	bell_send(engine->bell, rank, BELL_PING);
	peer->ping_ms = now_ms(engine) + GREET_MS;
	peer->greeted++;
}

static void check_slots(struct engine *engine)
{
	unsigned i;

	engine->waiting = false;
	for (i = 0; i < SLOT_MAX; i++) {
		struct slot *slot = &engine->slots[i];
		bool waits;

		pthread_mutex_lock(&engine->lock);
		/* What has ended is in quarantine. */
		waits = slot->posted && !slot->ended;
		pthread_mutex_unlock(&engine->lock);
		if (!waits)
			continue;
		engine->waiting = true;
		if (is_late(engine, slot))
			set_state(engine, slot->rank, PEER_SUSPECT);
		else
			ring_again(engine, slot);
	}
}

/* Has it been heard from since it was probed? */
static void check_probe(struct engine *engine, unsigned rank)
{
	struct peer *peer = &engine->peers[rank];

	if (peer->probe_ms == 0)
		return;
	if (peer->heard_ms >= peer->probe_ms)
		peer->probe_ms = 0;
	else if (now_ms(engine) >= peer->probe_ms + patience_ms(engine))
		set_state(engine, rank, PEER_SUSPECT);
	else
		ping(engine, rank);
}

static void begin_probe(struct engine *engine)
{
	unsigned i;

	if (!atomic_exchange(&engine->probe, false))
		return;
	for (i = 0; i < engine->count; i++)
		if (engine_state(engine, i) == PEER_UP &&
		    engine->peers[i].probe_ms == 0)
			engine->peers[i].probe_ms = now_ms(engine);
}

static void check_times(struct engine *engine)
{
	unsigned i;

	if (engine->checked_ms == now_ms(engine))
		return;
	engine->checked_ms = now_ms(engine);
	check_slots(engine);
	begin_probe(engine);
	for (i = 0; i < engine->count; i++) {
		enum peer_state state = engine_state(engine, i);

		if (state == PEER_UP)
			check_probe(engine, i);

		if (state == PEER_SUSPECT)
			ping(engine, i);
		else if (state == PEER_UP && !bell_is_known(engine->bell, i))
			greet(engine, i);
	}
}

/* What others need of us, or we of them, may be moving. */
static bool is_moving(const struct engine *engine)
{
	return engine->active > 0 || engine->stop_ms ||
	       (engine->awaited &&
		engine->now_ns < engine->rung_ns + AWAIT_NS);
}

static uint64_t nap_ns(const struct engine *engine)
{
	uint64_t nap = (engine->now_ns - engine->moved_ns) / 16;
	uint64_t most = engine->waiting ? NAP_WAIT_NS : NAP_MAX_NS;

	return nap < NAP_NS ? NAP_NS : nap > most ? most : nap;
}

/* How long may the thread sleep? UINT64_MAX: until it is woken. */
static uint64_t sleep_ns(const struct engine *engine)
{
	const uint64_t ping = PING_MS * UINT64_C(1000000);
	const uint64_t look = POLL_MS * UINT64_C(1000000);
	uint64_t least = is_moving(engine) ? nap_ns(engine) : UINT64_MAX;
	unsigned i;

	for (i = 0; i < engine->count; i++) {
		enum peer_state state = engine_state(engine, i);

		if ((state == PEER_SUSPECT ||
		     (state == PEER_UP && engine->peers[i].probe_ms)) &&
		    least > ping)
			least = ping;
		/* Nobody can wake us there: look ourselves. */
		if (state == PEER_UP && !bell_is_known(engine->bell, i) &&
		    least > look)
			least = look;
	}
	return least;
}

static void sleep_on(struct engine *engine, struct pollfd fds[2])
{
	const uint64_t least = sleep_ns(engine);
	const struct timespec time = { .tv_nsec = (long)least };

	/* None is longer than a second. */
	ppoll(fds, 2, least == UINT64_MAX ? NULL : &time, NULL);
}

/* Until something happens, or it is time to look. Has the bell rung? */
static bool fall_asleep(struct engine *engine)
{
	struct pollfd fds[] = {
		{ .fd = engine->event, .events = POLLIN },
		{ .fd = bell_fd(engine->bell), .events = POLLIN },
	};
	bool queued;
	uint64_t count;

	atomic_store(&engine->asleep, true);
	pthread_mutex_lock(&engine->lock);
	queued = engine->queued || engine->queued_room ||
		 (engine->stop && !engine->stop_ms);
	pthread_mutex_unlock(&engine->lock);
	queued |= atomic_load(&engine->probe);
	if (!queued)
		sleep_on(engine, fds);
	atomic_store(&engine->asleep, false);
	if (fds[0].revents && read(engine->event, &count, sizeof(count)) < 0)
		count = 0;
	atomic_fetch_add(&engine->wakeups, 1);
	return fds[1].revents != 0;
}

/* ---- the thread ------------------------------------------------------------ */

/* Everybody who waits is told; everybody else, too. */
static void begin_stop(struct engine *engine)
{
	unsigned i, times;

	engine->stop_ms = now_ms(engine) + DRAIN_MS;
	pthread_mutex_lock(&engine->lock);
	for (i = 0; i < SLOT_MAX; i++)
		if (engine->slots[i].pending > 0)
			end_slot_locked(&engine->slots[i], -ESHUTDOWN, 0);
	pthread_cond_broadcast(&engine->free_slots);
	pthread_cond_broadcast(&engine->free_rooms);
	pthread_mutex_unlock(&engine->lock);
	for (i = 0; i < engine->count; i++)
		for (times = 0; times < 2; times++)
			if (i != engine->rank &&
			    !is_gone(engine_state(engine, i)))
				bell_send(engine->bell, i, BELL_BYE);
}

static bool is_sending_locked(const struct engine *engine)
{
	unsigned i;

	if (engine->queued_room)
		return true;
	for (i = 0; i < ROOM_MAX; i++)
		if (engine->rooms[i].sending)
			return true;
	return false;
}

static bool is_over(struct engine *engine)
{
	bool stop, sending;

	pthread_mutex_lock(&engine->lock);
	stop = engine->stop;
	sending = stop && is_sending_locked(engine);
	pthread_mutex_unlock(&engine->lock);
	if (stop && !engine->stop_ms)
		begin_stop(engine);
	return stop && (!sending || now_ms(engine) >= engine->stop_ms);
}

static bool do_round(struct engine *engine, bool look_at_bell)
{
	bool busy = take_queued(engine), arrived = poll_transport(engine);

	/* What was rung for has come. */
	if (arrived)
		engine->awaited = false;
	busy |= arrived;
	if (look_at_bell && poll_bell(engine)) {
		busy = true;
		engine->awaited = true;
	}
	check_times(engine);
	return busy;
}

void engine_run(struct engine *engine)
{
	bool rung = true;
	unsigned rounds = 0;

	/* Naps are shorter than the kernel's usual slack. */
	prctl(PR_SET_TIMERSLACK, 1000);
	do {
		engine->now_ns = clock_ns();
		/* A system call: not in every round. */
		if (do_round(engine, rung || ++rounds % 16 == 0)) {
			engine->moved_ns = engine->now_ns;
			rung = false;
		} else if (engine->now_ns < engine->moved_ns + HOT_NS) {
			sched_yield();
			rung = false;
		} else {
			rung = fall_asleep(engine);
		}
	} while (!is_over(engine));
	engine->transport->destroy(engine->transport);
	engine->transport = NULL;
}

void engine_stop(struct engine *engine)
{
	const uint64_t one = 1;

	pthread_mutex_lock(&engine->lock);
	engine->stop = true;
	pthread_mutex_unlock(&engine->lock);
	if (write(engine->event, &one, sizeof(one)) < 0)
		return;
}

void engine_probe(struct engine *engine)
{
	atomic_store(&engine->probe, true);
	wake(engine);
}

static void init_peers(struct engine *engine)
{
	unsigned i;

	for (i = 0; i < engine->count; i++) {
		struct peer *peer = &engine->peers[i];

		atomic_init(&peer->state,
			    i == engine->rank ? PEER_SELF : PEER_UP);
		peer->ping.operation = (struct operation){ OP_ECHO,
							   &peer->ping };
		peer->pong.operation = (struct operation){ OP_ECHO,
							   &peer->pong };
	}
}

/* Memory for @count buffers, of which no page is there before it is used. */
static unsigned char *map_buffers(unsigned count, void **ret_map)
{
	unsigned char *map = mmap(NULL, count * BUFFER_SIZE + HUGE_SIZE,
				  PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
				  -1, 0);

	if (map == MAP_FAILED)
		return NULL;
	*ret_map = map;
	return map + -(uintptr_t)map % HUGE_SIZE;
}

static void unmap_buffers(struct engine *engine)
{
	if (engine->slot_map)
		munmap(engine->slot_map, SLOT_MAX * BUFFER_SIZE + HUGE_SIZE);
	if (engine->room_map)
		munmap(engine->room_map, ROOM_MAX * BUFFER_SIZE + HUGE_SIZE);
}

/* Those come first that are taken first. */
static bool make_buffers(struct engine *engine)
{
	unsigned char *slots = map_buffers(SLOT_MAX, &engine->slot_map);
	unsigned char *rooms = map_buffers(ROOM_MAX, &engine->room_map);
	unsigned i;

	if (!slots || !rooms)
		return false;
	for (i = 0; i < SLOT_MAX; i++)
		engine->slots[i].buffer = slots +
					  (SLOT_MAX - 1 - i) * BUFFER_SIZE;
	for (i = 0; i < ROOM_MAX; i++)
		engine->rooms[i].buffer = rooms +
					  (ROOM_MAX - 1 - i) * BUFFER_SIZE;
	return true;
}

static void init_tables(struct engine *engine)
{
	pthread_condattr_t monotonic;
	unsigned i;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&engine->lock, NULL);
	pthread_cond_init(&engine->free_slots, NULL);
	pthread_cond_init(&engine->free_rooms, &monotonic);
	for (i = 0; i < SLOT_MAX; i++) {
		struct slot *slot = &engine->slots[i];

		pthread_cond_init(&slot->wake, NULL);
		slot->index = i;
		slot->request = (struct operation){ OP_REQUEST, slot };
		slot->bulk = (struct operation){ OP_BULK_IN, slot };
		slot->next = engine->free;
		engine->free = slot;
	}
	for (i = 0; i < ROOM_MAX; i++) {
		struct room *room = &engine->rooms[i];

		room->bulk = (struct operation){ OP_BULK_OUT, room };
		room->answer = (struct operation){ OP_ANSWER, room };
		room->next = engine->free_room;
		engine->free_room = room;
	}
	pthread_condattr_destroy(&monotonic);
}

int engine_create(const struct engine_options *options,
		  struct engine **ret_engine)
{
	struct engine *engine = calloc(1, sizeof(*engine));

	if (!engine)
		return -ENOMEM;
	engine->options = *options;
	engine->rank = options->transport->rank;
	engine->count = options->transport->count;
	engine->queued_end = &engine->queued;
	engine->queued_room_end = &engine->queued_room;
	engine->peers = calloc(engine->count, sizeof(*engine->peers));
	engine->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!engine->peers || engine->event < 0 || !make_buffers(engine)) {
		unmap_buffers(engine);
		free(engine->peers);
		if (engine->event >= 0)
			close(engine->event);
		free(engine);
		return -ENOMEM;
	}
	engine->transport = options->transport;
	engine->bell = options->bell;
	init_peers(engine);
	init_tables(engine);
	*ret_engine = engine;
	return 0;
}

void engine_destroy(struct engine *engine)
{
	unsigned i;

	if (!engine)
		return;
	for (i = 0; i < SLOT_MAX; i++)
		pthread_cond_destroy(&engine->slots[i].wake);
	if (engine->transport)
		engine->transport->destroy(engine->transport);
	unmap_buffers(engine);
	bell_destroy(engine->bell);
	pthread_mutex_destroy(&engine->lock);
	pthread_cond_destroy(&engine->free_slots);
	pthread_cond_destroy(&engine->free_rooms);
	close(engine->event);
	free(engine->peers);
	free(engine);
}

/* ---- asking ---------------------------------------------------------------- */

static unsigned count_free_locked(const struct engine *engine)
{
	const struct slot *slot;
	unsigned count = 0;

	for (slot = engine->free; slot && count < ENGINE_CALL_MAX;
	     slot = slot->next)
		count++;
	return count;
}

static struct slot *take_slot_locked(struct engine *engine,
				     struct engine_call *call)
{
	struct slot *slot = engine->free;

	engine->free = slot->next;
	slot->held = true;
	slot->ended = slot->empty = slot->answered = false;
	slot->pending = 0;
	slot->error = 0;
	slot->got = 0;
	/* A generation of 48 bits. */
	slot->ticket = ((slot->ticket >> 16) + 1) << 16 | slot->index;
	slot->rank = call->rank;
	call->slot = slot;
	return slot;
}

static void fill_slot(struct engine *engine, struct slot *slot,
		      const struct engine_call *call)
{
	unsigned time_ms = call->timeout_ms ? call->timeout_ms :
					      engine->options.deadline_ms;
	struct message message;

	message_init(&message, MESSAGE_REQUEST, slot->ticket);
	message.service = (uint16_t)call->service;
	message.time_ms = call->patient ? UINT32_MAX / 2 : time_ms;
	message.size = (uint32_t)call->size;
	memcpy(slot->message, &message, sizeof(message));
	memcpy(slot->message + sizeof(message), call->payload, call->size);
	slot->message_size = sizeof(message) + call->size;
	slot->began_ms = clock_ns() / 1000000;
	slot->deadline_ms = slot->began_ms + time_ms;
	slot->ring_ms = slot->began_ms + RING_MS;
	slot->patient = call->patient;
}

static void start_call(struct engine *engine, struct engine_call *call)
{
	struct slot *slot = call->slot;

	fill_slot(engine, slot, call);
	pthread_mutex_lock(&engine->lock);
	if (engine->stop || engine_state(engine, call->rank) != PEER_UP) {
		end_slot_locked(slot, engine->stop ? -ESHUTDOWN : -EIO, 0);
	} else {
		slot->pending = 2;
		slot->next = NULL;
		*engine->queued_end = slot;
		engine->queued_end = &slot->next;
	}
	pthread_mutex_unlock(&engine->lock);
}

int engine_begin(struct engine *engine, struct engine_call *calls,
		 unsigned count, bool nowait)
{
	unsigned i;

	pthread_mutex_lock(&engine->lock);
	while (count_free_locked(engine) < count) {
		if (nowait || engine->stop) {
			pthread_mutex_unlock(&engine->lock);
			return nowait ? -EAGAIN : -ESHUTDOWN;
		}
		pthread_cond_wait(&engine->free_slots, &engine->lock);
	}
	for (i = 0; i < count; i++)
		take_slot_locked(engine, &calls[i]);
	pthread_mutex_unlock(&engine->lock);
	for (i = 0; i < count; i++)
		start_call(engine, &calls[i]);
	wake(engine);
	return 0;
}

int engine_wait(struct engine *engine, struct engine_call *call)
{
	struct slot *slot = call->slot;

	pthread_mutex_lock(&engine->lock);
	while (!slot->ended)
		pthread_cond_wait(&slot->wake, &engine->lock);
	call->error = slot->error;
	call->got = slot->got;
	call->data = slot->buffer;
	pthread_mutex_unlock(&engine->lock);
	return call->error;
}

void engine_end(struct engine *engine, struct engine_call *call)
{
	struct slot *slot = call->slot;

	if (!slot)
		return;
	call->slot = NULL;
	pthread_mutex_lock(&engine->lock);
	slot->held = false;
	slot->ended = true;
	free_slot_locked(engine, slot);
	pthread_mutex_unlock(&engine->lock);
}

/* ---- answering ------------------------------------------------------------- */

/* Until @expires_ms. */
static struct room *take_room(struct engine *engine, uint64_t expires_ms)
{
	const struct timespec until = {
		.tv_sec = (time_t)(expires_ms / 1000),
		.tv_nsec = (long)(expires_ms % 1000) * 1000000,
	};
	struct room *room = NULL;

	pthread_mutex_lock(&engine->lock);
	while (!engine->free_room && !engine->stop)
		if (pthread_cond_timedwait(&engine->free_rooms, &engine->lock,
					   &until) == ETIMEDOUT)
			break;
	if (engine->free_room && !engine->stop) {
		room = engine->free_room;
		engine->free_room = room->next;
		room->pending = 0;
	}
	pthread_mutex_unlock(&engine->lock);
	return room;
}

static void give_room_back(struct engine *engine, struct room *room)
{
	pthread_mutex_lock(&engine->lock);
	room->next = engine->free_room;
	engine->free_room = room;
	pthread_cond_signal(&engine->free_rooms);
	pthread_mutex_unlock(&engine->lock);
}

unsigned char *engine_room(struct engine_request *request)
{
	struct engine *engine = request->engine;

	if (!request->room)
		request->room = take_room(engine, request->expires_ms);
	return request->room ? request->room->buffer : NULL;
}

void engine_answer(struct engine_request *request, int error, size_t size)
{
	struct engine *engine = request->engine;
	struct room *room = request->room ? request->room :
			    take_room(engine, request->expires_ms);

	if (!room) {
		free(request);
		return;
	}
	room->rank = request->rank;
	room->ticket = request->message.ticket;
	room->size = error ? 0 : size;
	room->has_answer = room->size == 0;
	message_init(&room->message, MESSAGE_ANSWER, room->ticket);
	room->message.error = error;
	free(request);
	pthread_mutex_lock(&engine->lock);
	room->pending = 1;
	room->next = NULL;
	*engine->queued_room_end = room;
	engine->queued_room_end = &room->next;
	pthread_mutex_unlock(&engine->lock);
	wake(engine);
}

void engine_drop(struct engine_request *request)
{
	if (request->room)
		give_room_back(request->engine, request->room);
	free(request);
}

void engine_count(struct engine *engine, struct engine_counters *ret)
{
	unsigned i;

	*ret = (struct engine_counters){
		.wakeups = atomic_load(&engine->wakeups),
	};
	pthread_mutex_lock(&engine->lock);
	for (i = 0; i < SLOT_MAX; i++) {
		const struct slot *slot = &engine->slots[i];

		ret->slots += slot->held || slot->pending > 0;
		ret->quarantined += !slot->held && slot->pending > 0;
	}
	pthread_mutex_unlock(&engine->lock);
}
