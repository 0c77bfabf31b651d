/* SPDX-License-Identifier: Apache-2.0 */
/*
 *	up -> suspect		a deadline was missed, or pings are not answered
 *	suspect -> up		a ping over the transport was answered
 *	up, suspect -> lost	its port is refused: for good
 *	up, suspect -> left	it has said goodbye: likewise
 */
#include "comm/engine_parts.h"

#include <errno.h>

/* ---- peers --------------------------------------------------------------- */

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
		engine_end_slot_locked(slot, -EIO, 0);
		if (gone) {
			slot->pending = 1;
			engine_put_slot_locked(engine, slot);
		}
	}
	for (i = 0; gone && i < ROOM_MAX; i++) {
		struct room *room = &engine->rooms[i];

		/* What is queued still sees that its rank is gone. */
		if (room->sending && room->rank == rank) {
			room->pending = 1;
			engine_put_room_locked(engine, room);
		}
	}
	pthread_mutex_unlock(&engine->lock);
}

void engine_end_echo(struct engine *engine, struct echo *echo)
{
	engine->active -= echo->busy;
	echo->busy = false;
}

void engine_set_state(struct engine *engine, unsigned rank,
		      enum peer_state state)
{
	struct peer *peer = &engine->peers[rank];
	enum peer_state old = engine_state(engine, rank);

	if (old == state || old == PEER_SELF || engine_is_gone(old))
		return;
	atomic_store(&peer->state, state);
	peer->ping_ms = 0;
	peer->probe_ms = 0;
	peer->echo_ticket++;
	peer->echo_ms = 0;
	if (engine_is_gone(state)) {
		engine_end_echo(engine, &peer->ping);
		engine_end_echo(engine, &peer->pong);
	}
	if (state != PEER_UP)
		fail_rank(engine, rank, engine_is_gone(state));
	if (engine->options.changed)
		engine->options.changed(engine->options.context, rank, state);
}

void engine_send_echo(struct engine *engine, unsigned rank,
		      enum message_kind kind, uint64_t ticket)
{
	struct peer *peer = &engine->peers[rank];
	struct echo *echo = kind == MESSAGE_PING ? &peer->ping : &peer->pong;

	/* It is asked again. */
	if (echo->busy)
		return;
	message_init(&echo->message, kind, ticket);
	echo->busy = engine->transport->send(engine->transport, rank,
					     &echo->message,
					     sizeof(echo->message),
					     &echo->operation) == 0;
	if (echo->busy)
		engine->active++;
	doorbell_send(engine->bell, rank, DOORBELL_RING);
}

void engine_hear(struct engine *engine, unsigned rank)
{
	engine->peers[rank].heard_ms = engine_now_ms(engine);
	engine->peers[rank].probe_ms = 0;
}

/*
 * By its bell: it is there. What the transport carries may still be behind
 * what was lost when it was not, in either direction: a suspect rank has to
 * answer over that as well, to a ping that was sent since.
 */
void engine_hear_bell(struct engine *engine, unsigned rank)
{
	struct peer *peer = &engine->peers[rank];

	engine_hear(engine, rank);
	if (!peer->known && doorbell_is_known(engine->bell, rank)) {
		peer->known = true;
		if (engine->options.known)
			engine->options.known(engine->options.context, rank,
					      doorbell_ip(engine->bell, rank));
	}
	if (engine_state(engine, rank) == PEER_SUSPECT &&
	    engine_now_ms(engine) >= peer->echo_ms) {
		peer->echo_ms = engine_now_ms(engine) + PING_MS;
		engine_send_echo(engine, rank, MESSAGE_PING,
				 peer->echo_ticket);
	}
}

void engine_hear_echo(struct engine *engine, unsigned rank, uint64_t ticket)
{
	if (engine_state(engine, rank) == PEER_SUSPECT &&
	    ticket == engine->peers[rank].echo_ticket)
		engine_set_state(engine, rank, PEER_UP);
}

/* ---- time ---------------------------------------------------------------- */

static void ping(struct engine *engine, unsigned rank)
{
	struct peer *peer = &engine->peers[rank];

	if (engine_now_ms(engine) < peer->ping_ms)
		return;
	doorbell_send(engine->bell, rank, DOORBELL_PING);
	peer->ping_ms = engine_now_ms(engine) + PING_MS;
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
	uint64_t now = engine_now_ms(engine);

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
	uint64_t now = engine_now_ms(engine), waited = now - slot->began_ms;

	if (now < slot->ring_ms)
		return;
	doorbell_send(engine->bell, slot->rank, DOORBELL_RING);
	slot->ring_ms = now + (waited < PING_MS ? waited : PING_MS);
}

/* Until everybody was heard from once, rings may go astray. */
static void greet(struct engine *engine, unsigned rank)
{
	struct peer *peer = &engine->peers[rank];

	if (peer->greeted == GREET_COUNT ||
	    engine_now_ms(engine) < peer->ping_ms)
		return;
	doorbell_send(engine->bell, rank, DOORBELL_PING);
	peer->ping_ms = engine_now_ms(engine) + GREET_MS;
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
			engine_set_state(engine, slot->rank, PEER_SUSPECT);
		else
			ring_again(engine, slot);
	}
}

static void check_probe(struct engine *engine, unsigned rank)
{
	uint64_t probe_ms = engine->peers[rank].probe_ms;

	if (probe_ms == 0)
		return;
	if (engine_now_ms(engine) >= probe_ms + patience_ms(engine))
		engine_set_state(engine, rank, PEER_SUSPECT);
	else
		ping(engine, rank);
}

void engine_begin_probe(struct engine *engine)
{
	unsigned i;

	for (i = 0; i < engine->count; i++) {
		struct peer *peer = &engine->peers[i];

		if (engine_state(engine, i) != PEER_UP || peer->probe_ms)
			continue;
		peer->probe_ms = engine_now_ms(engine);
		/* At once, whenever it was pinged last: the answer to that may
		 * be older. Times may not be looked at again in this round. */
		peer->ping_ms = 0;
		ping(engine, i);
	}
}

void engine_check_times(struct engine *engine)
{
	unsigned i;

	if (engine->checked_ms == engine_now_ms(engine))
		return;
	engine->checked_ms = engine_now_ms(engine);
	check_slots(engine);
	for (i = 0; i < engine->count; i++) {
		enum peer_state state = engine_state(engine, i);

		if (state == PEER_UP)
			check_probe(engine, i);
		if (state == PEER_SUSPECT)
			ping(engine, i);
		else if (state == PEER_UP &&
			 !doorbell_is_known(engine->bell, i))
			greet(engine, i);
	}
}
