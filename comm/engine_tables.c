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
 */
#include "comm/engine_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- slots, with the lock ------------------------------------------------ */

void engine_free_slot_locked(struct engine *engine, struct slot *slot)
{
	if (slot->held || slot->pending > 0)
		return;
	slot->next = engine->free;
	engine->free = slot;
	pthread_cond_broadcast(&engine->free_slots);
}

void engine_end_slot_locked(struct slot *slot, int error, size_t got)
{
	if (slot->ended)
		return;
	slot->ended = true;
	slot->error = error;
	slot->got = got;
	pthread_cond_broadcast(&slot->wake);
}

/* One operation of a slot is over. */
void engine_put_slot_locked(struct engine *engine, struct slot *slot)
{
	if (--slot->pending > 0)
		return;
	slot->posted = false;
	engine->active--;
	engine_free_slot_locked(engine, slot);
}

void engine_put_room_locked(struct engine *engine, struct room *room)
{
	if (--room->pending > 0)
		return;
	room->sending = false;
	engine->active--;
	room->next = engine->free_room;
	engine->free_room = room;
	pthread_cond_signal(&engine->free_rooms);
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

/* ---- life ---------------------------------------------------------------- */

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
		peer->ping.operation = (struct engine_operation){ OP_ECHO,
							   &peer->ping };
		peer->pong.operation = (struct engine_operation){ OP_ECHO,
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
		slot->request = (struct engine_operation){ OP_REQUEST, slot };
		slot->bulk = (struct engine_operation){ OP_BULK_IN, slot };
		slot->next = engine->free;
		engine->free = slot;
	}
	for (i = 0; i < ROOM_MAX; i++) {
		struct room *room = &engine->rooms[i];

		room->bulk = (struct engine_operation){ OP_BULK_OUT, room };
		room->answer = (struct engine_operation){ OP_ANSWER, room };
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
	doorbell_destroy(engine->bell);
	pthread_mutex_destroy(&engine->lock);
	pthread_cond_destroy(&engine->free_slots);
	pthread_cond_destroy(&engine->free_rooms);
	close(engine->event);
	free(engine->peers);
	free(engine);
}

/* ---- asking -------------------------------------------------------------- */

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
		engine_end_slot_locked(slot, engine->stop ? -ESHUTDOWN : -EIO,
				       0);
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
	engine_free_slot_locked(engine, slot);
	pthread_mutex_unlock(&engine->lock);
}

/* ---- answering ----------------------------------------------------------- */

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
