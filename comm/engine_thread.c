/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread takes what is queued, polls the transport and the bell, and looks
 * at deadlines. While something happens it goes on at once, and for a moment
 * after that it polls on, giving others the processor; then it sleeps on the
 * bell and an eventfd. Over some transports a message moves only while both
 * ends poll, and nobody can see it move before all of it is there: who sends
 * one rings, and who is rung, or waits for something, sleeps in short naps,
 * which grow the longer nothing has come.
 */
#include "comm/engine_parts.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

/* ---- buffers ------------------------------------------------------------- */

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

/* ---- sending ------------------------------------------------------------- */

/* The receive first. */
static void post_slot(struct engine *engine, struct slot *slot)
{
	struct transport *t = engine->transport;
	const struct transport_bulk bulk = {
		slot->rank, slot->index, slot->buffer, ENGINE_BULK_MAX,
	};
	unsigned missing = 2;		/* operations that do not begin */
	int error;

	slot->posted = true;
	engine->active++;
	if (engine_state(engine, slot->rank) != PEER_UP) {
		error = -EIO;
		goto fail;
	}
	error = t->receive_bulk(t, &bulk, &slot->bulk);
	if (error)
		goto fail;
	missing--;
	error = t->send(t, slot->rank, slot->message, slot->message_size,
			&slot->request);
	if (!error) {
		doorbell_send(engine->bell, slot->rank, DOORBELL_RING);
		return;
	}
	/* The receive stays: as one that is late. */
fail:
	pthread_mutex_lock(&engine->lock);
	engine_end_slot_locked(slot, error, 0);
	while (missing-- > 0)
		engine_put_slot_locked(engine, slot);
	pthread_mutex_unlock(&engine->lock);
}

static void send_room(struct engine *engine, struct room *room)
{
	const struct transport_bulk bulk = {
		room->rank, message_slot(room->ticket), room->buffer,
		room->size,
	};
	struct transport *t = engine->transport;
	int error = -EIO;

	room->sending = true;
	engine->active++;
	if (!engine_is_gone(engine_state(engine, room->rank)))
		error = t->send_bulk(t, &bulk, &room->bulk);
	if (!error && room->has_answer) {
		room->pending++;
		error = t->send(t, room->rank, &room->message,
				sizeof(room->message), &room->answer);
		if (error)
			room->pending--;
		error = 0;
	}
	if (!error) {
		doorbell_send(engine->bell, room->rank, DOORBELL_RING);
		count_bulk(engine, room->size);
		return;
	}
	pthread_mutex_lock(&engine->lock);
	engine_put_room_locked(engine, room);
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

/* ---- receiving ----------------------------------------------------------- */

static void take_request(struct engine *engine, unsigned rank,
			 const struct message *message, const void *payload)
{
	struct engine_request *request;

	if (engine->stop_ms || engine_is_gone(engine_state(engine, rank)))
		return;
	request = malloc(sizeof(*request) + message->size);
	/* Who asked will see that nothing comes. */
	if (!request)
		return;
	*request = (struct engine_request){
		.engine = engine, .message = *message, .rank = rank,
		.expires_ms = engine_now_ms(engine) + message->time_ms,
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
	engine_end_slot_locked(slot, slot->answer, 0);
	engine_put_slot_locked(engine, slot);
	pthread_mutex_unlock(&engine->lock);
}

static void take_message(struct engine *engine,
			 const struct transport_event *event)
{
	struct message message;

	if (event->rank >= engine->count ||
	    message_check(event->data, event->size, &message))
		return;
	engine_hear(engine, event->rank);
	switch ((enum message_kind)message.kind) {
	case MESSAGE_REQUEST:
		take_request(engine, event->rank, &message,
			     (const char *)event->data + sizeof(message));
		break;
	case MESSAGE_ANSWER:
		take_answer(engine, event->rank, &message);
		break;
	case MESSAGE_PING:
		if (!engine_is_gone(engine_state(engine, event->rank)))
			engine_send_echo(engine, event->rank, MESSAGE_PONG,
					 message.ticket);
		break;
	case MESSAGE_PONG:
		engine_hear_echo(engine, event->rank, message.ticket);
		break;
	}
}

static void take_bulk(struct engine *engine, struct slot *slot, int error,
		      size_t size)
{
	engine_hear(engine, slot->rank);
	count_bulk(engine, size);
	pthread_mutex_lock(&engine->lock);
	if (error || size > 0) {
		engine_end_slot_locked(slot, error ? -EPROTO : 0, size);
		engine_put_slot_locked(engine, slot);
	} else if (slot->answered) {
		engine_end_slot_locked(slot, slot->answer, 0);
		engine_put_slot_locked(engine, slot);
	} else {
		/* What it means is in the message that follows. */
		slot->empty = true;
	}
	pthread_mutex_unlock(&engine->lock);
}

static void take_event(struct engine *engine,
		       const struct transport_event *event)
{
	const struct engine_operation *operation = event->cookie;

	if (event->kind == TRANSPORT_MESSAGE) {
		take_message(engine, event);
		return;
	}
	if (operation->kind == OP_BULK_IN) {
		take_bulk(engine, operation->owner, event->error, event->size);
		return;
	}
	if (operation->kind == OP_ECHO) {
		engine_end_echo(engine, operation->owner);
		return;
	}
	pthread_mutex_lock(&engine->lock);
	if (operation->kind == OP_REQUEST)
		engine_put_slot_locked(engine, operation->owner);
	else
		engine_put_room_locked(engine, operation->owner);
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
	struct doorbell_event event;
	bool any = false;

	while (doorbell_next(engine->bell, &event)) {
		any = true;
		switch (event.kind) {
		case DOORBELL_REFUSED:
			engine_set_state(engine, event.rank, PEER_LOST);
			break;
		case DOORBELL_BYE:
			engine_set_state(engine, event.rank, PEER_LEFT);
			break;
		default:
			engine_hear_bell(engine, event.rank);
			if (event.kind == DOORBELL_RING)
				engine->rung_ns = engine->now_ns;
		}
	}
	return any;
}

/* ---- sleeping ------------------------------------------------------------ */

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
		if (state == PEER_UP && !doorbell_is_known(engine->bell, i) &&
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
		{ .fd = doorbell_fd(engine->bell), .events = POLLIN },
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

/* ---- the thread ---------------------------------------------------------- */

/* Everybody who waits is told; everybody else, too. */
static void begin_stop(struct engine *engine)
{
	unsigned i, times;

	engine->stop_ms = engine_now_ms(engine) + DRAIN_MS;
	pthread_mutex_lock(&engine->lock);
	for (i = 0; i < SLOT_MAX; i++)
		if (engine->slots[i].pending > 0)
			engine_end_slot_locked(&engine->slots[i], -ESHUTDOWN,
					       0);
	pthread_cond_broadcast(&engine->free_slots);
	pthread_cond_broadcast(&engine->free_rooms);
	pthread_mutex_unlock(&engine->lock);
	for (i = 0; i < engine->count; i++)
		for (times = 0; times < 2; times++)
			if (i != engine->rank &&
			    !engine_is_gone(engine_state(engine, i)))
				doorbell_send(engine->bell, i, DOORBELL_BYE);
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
	return stop && (!sending || engine_now_ms(engine) >= engine->stop_ms);
}

static bool do_round(struct engine *engine, bool look_at_bell)
{
	bool probe = atomic_exchange(&engine->probe, false);
	bool busy = take_queued(engine), arrived = poll_transport(engine);

	/* What was rung for has come. */
	if (arrived)
		engine->awaited = false;
	busy |= arrived;
	if ((look_at_bell || probe) && poll_bell(engine)) {
		busy = true;
		engine->awaited = true;
	}
	if (probe)
		engine_begin_probe(engine);
	engine_check_times(engine);
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
