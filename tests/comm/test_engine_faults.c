/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that are late, stopped, gone, or lie. */
#include "support/test.h"
#include "support/asking.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum { DEADLINE_MS = 100 };

static struct ranks ranks;

static void start_with(unsigned count, unsigned workers, unsigned deadline_ms)
{
	const struct ranks_options options = {
		.count = count, .deadline_ms = deadline_ms,
		.workers = workers, .work = asking_work, .seed = 1,
	};

	ranks_start(&ranks, &options);
}

static struct engine *engine(unsigned rank)
{
	return ranks.rank[rank].engine;
}

/* What @rank is asked for, by a call that is under way. */
static struct engine_call begin(unsigned rank, struct asked *asked,
				uint32_t size)
{
	struct engine_call call;

	asking_make_size(asked, size + 77, rank, size);
	call = asking_call(asked);
	assert_int_equal(engine_begin(engine(0), &call, 1, true), 0);
	return call;
}

/* Fails at once: without waiting for anybody. */
static void check_refused(unsigned rank)
{
	uint64_t began = ranks_now_ms();
	struct engine_call call;
	struct asked asked;

	asking_make_size(&asked, 1, rank, 10);
	call = asking_call(&asked);
	call.timeout_ms = 30000;
	assert_int_equal(engine_begin(engine(0), &call, 1, true), 0);
	assert_int_equal(engine_wait(engine(0), &call), -EIO);
	engine_end(engine(0), &call);
	assert_true(ranks_now_ms() - began < 10000);
}

/* ---- late ---------------------------------------------------------------- */

static void a_missed_deadline(void **state)
{
	uint64_t began, took;
	struct asked asked;
	struct engine_call call;

	(void)state;
	start_with(3, 1, DEADLINE_MS);
	ranks_pause(&ranks, 1);
	began = ranks_now_ms();
	call = begin(1, &asked, 10);
	assert_int_equal(engine_wait(engine(0), &call), -EIO);
	took = ranks_now_ms() - began;
	assert_true(took >= DEADLINE_MS - 1);
	/* It looks every 64 ms at least; others use this machine, too. */
	assert_true(took < 20 * DEADLINE_MS);
	assert_int_equal(engine_state(engine(0), 1), PEER_SUSPECT);
	engine_end(engine(0), &call);
	ranks_await_quarantined(&ranks, 0, 1);
	check_refused(1);
	/* Others are none the worse. */
	asking_make_size(&asked, 5, 2, 100);
	asking_check(engine(0), &asked);
	fake_net_resume(ranks.net, 1);
	ranks_await_state(&ranks, 0, 1, PEER_UP);
	asking_make_size(&asked, 6, 1, 100);
	asking_check(engine(0), &asked);
	/* The late answer has come, too. */
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

/* Its engine is there, and it is up again as soon as it has answered a ping:
 * only its disk is slow. */
static void late_answers_are_of_nobody(void **state)
{
	struct engine_call late[20];
	struct asked asked;
	struct dice dice = { 5 };
	unsigned i;

	(void)state;
	start_with(2, 1, DEADLINE_MS);
	ranks_hold(&ranks, 1, true);
	for (i = 0; i < COUNT_OF(late); i++)
		late[i] = begin(1, &asked, 1000 + i);
	for (i = 0; i < COUNT_OF(late); i++)
		assert_int_equal(engine_wait(engine(0), &late[i]), -EIO);
	for (i = 0; i < COUNT_OF(late); i++)
		engine_end(engine(0), &late[i]);
	ranks_await_quarantined(&ranks, 0, COUNT_OF(late));
	ranks_await_state(&ranks, 0, 1, PEER_UP);
	ranks_hold(&ranks, 1, false);
	for (i = 0; i < 400; i++) {
		asking_make(&asked, &dice, 0, 1);
		asking_check(engine(0), &asked);
	}
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

/* Held by its caller: it comes back when that lets go of it. */
static void a_late_answer_to_a_call_that_is_held(void **state)
{
	struct engine_counters counters;
	struct engine_call call;
	struct asked asked;

	(void)state;
	start_with(2, 1, DEADLINE_MS);
	ranks_hold(&ranks, 1, true);
	call = begin(1, &asked, 5000);
	assert_int_equal(engine_wait(engine(0), &call), -EIO);
	ranks_hold(&ranks, 1, false);
	ranks_await_state(&ranks, 0, 1, PEER_UP);
	asking_make_size(&asked, 1, 1, 10);
	asking_check(engine(0), &asked);
	engine_count(engine(0), &counters);
	assert_int_equal(counters.slots, 1);
	assert_int_equal(engine_wait(engine(0), &call), -EIO);
	engine_end(engine(0), &call);
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

static void the_deadline_of_one_call(void **state)
{
	uint64_t began = ranks_now_ms();
	struct engine_call call;
	struct asked asked;

	(void)state;
	start_with(2, 1, 60000);
	ranks_hold(&ranks, 1, true);
	asking_make_size(&asked, 1, 1, 10);
	call = asking_call(&asked);
	call.timeout_ms = DEADLINE_MS;
	assert_int_equal(engine_begin(engine(0), &call, 1, true), 0);
	assert_int_equal(engine_wait(engine(0), &call), -EIO);
	assert_true(ranks_now_ms() - began < 5000);
	engine_end(engine(0), &call);
	ranks_hold(&ranks, 1, false);
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

/* The end of a request that nobody can work on. */
static void a_request_that_is_dropped(void **state)
{
	struct engine_call call;
	struct asked asked;

	(void)state;
	start_with(2, 0, DEADLINE_MS);
	call = begin(1, &asked, 10);
	engine_drop(ranks_take(&ranks, 1));
	assert_int_equal(engine_wait(engine(0), &call), -EIO);
	engine_end(engine(0), &call);
	ranks_await_quarantined(&ranks, 0, 1);
	ranks_stop(&ranks, 1);
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

/* What is rung for comes much later than the ring, and who is rung for has
 * gone to sleep again. */
static void messages_slower_than_their_rings(void **state)
{
	const struct fake_faults slow = { .delay_us = 60000 };
	struct asked asked;
	unsigned i;

	(void)state;
	start_with(2, 1, 3000);
	fake_net_set_faults(ranks.net, &slow);
	for (i = 0; i < 20; i++) {
		asking_make_size(&asked, i, 1, 100 * (i % 3));
		asking_check(engine(0), &asked);
	}
	assert_int_equal(ranks_count_changes(&ranks, 0), 0);
	ranks_finish(&ranks);
}

/* ---- patient ------------------------------------------------------------- */

static struct engine_call begin_patient(struct asked *asked)
{
	struct engine_call call;

	asking_make_size(asked, 4, 1, 3000);
	call = asking_call(asked);
	call.patient = true;
	assert_int_equal(engine_begin(engine(0), &call, 1, true), 0);
	return call;
}

static void patience_with_who_is_there(void **state)
{
	const struct timespec long_time = { 2, 500000000 };
	struct engine_request *request;
	struct engine_call call;
	struct asked asked;

	(void)state;
	/* Longer than between two pings. */
	start_with(2, 0, 1500);
	call = begin_patient(&asked);
	request = ranks_take(&ranks, 1);
	/* The work takes that long. */
	nanosleep(&long_time, NULL);
	asking_work(NULL, &ranks.rank[1], request);
	assert_int_equal(engine_wait(engine(0), &call), 0);
	assert_true(asking_is_right(&asked, &call));
	engine_end(engine(0), &call);
	assert_int_equal(ranks_count_changes(&ranks, 0), 0);
	ranks_finish(&ranks);
}

static void no_patience_with_who_is_not(void **state)
{
	uint64_t began = ranks_now_ms();
	struct engine_call call;
	struct asked asked;

	(void)state;
	start_with(2, 1, 5 * DEADLINE_MS);
	ranks_pause(&ranks, 1);
	call = begin_patient(&asked);
	assert_int_equal(engine_wait(engine(0), &call), -EIO);
	assert_true(ranks_now_ms() - began < 10000);
	assert_int_equal(engine_state(engine(0), 1), PEER_SUSPECT);
	engine_end(engine(0), &call);
	fake_net_resume(ranks.net, 1);
	ranks_await_state(&ranks, 0, 1, PEER_UP);
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

static void a_probe_finds_who_is_stopped(void **state)
{
	(void)state;
	start_with(3, 1, 1000);
	ranks_pause(&ranks, 1);
	engine_probe(engine(0));
	ranks_await_state(&ranks, 0, 1, PEER_SUSPECT);
	assert_int_equal(engine_state(engine(0), 2), PEER_UP);
	check_refused(1);
	fake_net_resume(ranks.net, 1);
	ranks_await_state(&ranks, 0, 1, PEER_UP);
	ranks_finish(&ranks);
}

/* ---- gone ---------------------------------------------------------------- */

static void a_lost_rank(void **state)
{
	struct engine_call call[3];
	struct asked asked[3];
	struct message message;
	unsigned i;

	(void)state;
	start_with(3, 1, DEADLINE_MS);
	ranks_kill(&ranks, 1);
	for (i = 0; i < 3; i++)
		call[i] = begin(1, &asked[i], 10);
	engine_end(engine(0), &call[2]);
	ranks_await_state(&ranks, 0, 1, PEER_LOST);
	assert_int_equal(engine_wait(engine(0), &call[0]), -EIO);
	assert_int_equal(engine_wait(engine(0), &call[1]), -EIO);
	engine_end(engine(0), &call[0]);
	engine_end(engine(0), &call[1]);
	ranks_await_free(&ranks, 0);
	check_refused(1);
	/* For good, whatever comes. */
	message_init(&message, MESSAGE_REQUEST, 0);
	message.service = SERVICE_STATUS;
	fake_net_inject(ranks.net, 1, 0, &message, sizeof(message));
	asking_make_size(&asked[0], 5, 2, 100);
	for (i = 0; i < 100; i++)
		asking_check(engine(0), &asked[0]);
	assert_int_equal(engine_state(engine(0), 1), PEER_LOST);
	ranks_finish(&ranks);
}

static void a_rank_that_leaves(void **state)
{
	struct engine_call call;
	struct asked asked;

	(void)state;
	start_with(3, 1, 60000);
	ranks_hold(&ranks, 1, true);
	call = begin(1, &asked, 10);
	ranks_stop(&ranks, 1);
	assert_int_equal(engine_wait(engine(0), &call), -EIO);
	engine_end(engine(0), &call);
	ranks_await_state(&ranks, 0, 1, PEER_LEFT);
	ranks_await_state(&ranks, 2, 1, PEER_LEFT);
	ranks_await_free(&ranks, 0);
	check_refused(1);
	ranks_finish(&ranks);
}

/* What it still sends is for nobody, though its slot is another call's now. */
static void bulk_of_who_has_left(void **state)
{
	struct engine_request *request;
	struct engine_call call;
	struct asked asked;
	unsigned slot;

	(void)state;
	start_with(3, 0, 60000);
	call = begin(1, &asked, 10);
	request = ranks_take(&ranks, 1);
	slot = message_slot(request->message.ticket);
	engine_drop(request);
	ranks_stop(&ranks, 1);
	assert_int_equal(engine_wait(engine(0), &call), -EIO);
	engine_end(engine(0), &call);
	ranks_await_free(&ranks, 0);
	call = begin(2, &asked, 10);
	request = ranks_take(&ranks, 2);
	assert_int_equal(message_slot(request->message.ticket), slot);
	fake_net_inject_bulk(ranks.net, 1, 0, slot, "lies", 4);
	asking_work(NULL, &ranks.rank[2], request);
	assert_int_equal(engine_wait(engine(0), &call), 0);
	assert_true(asking_is_right(&asked, &call));
	engine_end(engine(0), &call);
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

/*
 * @rank asks, and leaves when its answer is ready but not yet taken up by the
 * engine, which stands between that and its bell: it was asleep, and looks at
 * its bell in the round in which it wakes.
 */
static void leave_before_the_answer(unsigned rank)
{
	const struct timespec until_asleep = { 0, 20000000 };
	struct engine_request *request;
	struct engine_call call;
	struct asked asked;

	asking_make_size(&asked, 1, 0, 10);
	call = asking_call(&asked);
	assert_int_equal(engine_begin(engine(rank), &call, 1, true), 0);
	request = ranks_take(&ranks, 0);
	assert_non_null(engine_room(request));
	nanosleep(&until_asleep, NULL);
	ranks_pause(&ranks, 0);
	engine_answer(request, 0, 10);
	ranks_stop(&ranks, rank);
	fake_net_resume(ranks.net, 0);
	ranks_await_state(&ranks, 0, rank, PEER_LEFT);
	engine_end(engine(rank), &call);
}

static void an_answer_to_who_has_just_left(void **state)
{
	struct engine_counters before, after;
	const struct timespec second = { 1, 0 };
	struct engine_request *request;
	struct engine_call call;
	struct asked asked;
	unsigned rank;

	(void)state;
	start_with(RANKS_MAX, 0, 10000);
	for (rank = 2; rank < RANKS_MAX; rank++)
		leave_before_the_answer(rank);
	/* Rooms and what is counted are as before. */
	asking_make_size(&asked, 2, 0, 10);
	call = asking_call(&asked);
	assert_int_equal(engine_begin(engine(1), &call, 1, true), 0);
	request = ranks_take(&ranks, 0);
	asking_work(NULL, &ranks.rank[0], request);
	assert_int_equal(engine_wait(engine(1), &call), 0);
	assert_true(asking_is_right(&asked, &call));
	engine_end(engine(1), &call);
	nanosleep(&second, NULL);
	engine_count(engine(0), &before);
	nanosleep(&second, NULL);
	engine_count(engine(0), &after);
	assert_true(after.wakeups - before.wakeups <= 1);
	ranks_finish(&ranks);
}

/* ---- lies ---------------------------------------------------------------- */

static void inject_answer(uint64_t ticket, int error)
{
	struct message message;

	message_init(&message, MESSAGE_ANSWER, ticket);
	message.error = error;
	fake_net_inject(ranks.net, 1, 0, &message, sizeof(message));
}

static void answers_to_other_calls(void **state)
{
	struct engine_request *request;
	struct engine_call call;
	struct asked asked;
	uint64_t ticket;

	(void)state;
	start_with(3, 0, 10000);
	call = begin(1, &asked, 10);
	request = ranks_take(&ranks, 1);
	ticket = request->message.ticket;
	fake_net_inject_bulk(ranks.net, 1, 0, 5000, "lies", 4);
	/* Of a rank that was not asked. */
	fake_net_inject_bulk(ranks.net, 2, 0, message_slot(ticket), "lies",
			     4);
	/* Nothing has come: why, says only the last. An earlier use, one to
	 * come, no slot at all, another slot. */
	fake_net_inject_bulk(ranks.net, 1, 0, message_slot(ticket), "", 0);
	inject_answer(ticket - 65536, -EPERM);
	inject_answer(ticket + 65536, -EPERM);
	inject_answer(ticket | 0xffff, -EPERM);
	inject_answer(ticket ^ 1, -EPERM);
	inject_answer(ticket, -ENOENT);
	engine_drop(request);
	assert_int_equal(engine_wait(engine(0), &call), -ENOENT);
	engine_end(engine(0), &call);
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

/* While it is not known yet that the request was sent. */
static void an_answer_that_comes_twice(void **state)
{
	const struct fake_faults late = { .sent_delay_us = 200000 };
	const struct fake_faults none = { .delay_us = 0 };
	const struct timespec until_sent = { 0, 300000000 };
	struct engine_request *request;
	struct engine_call call;
	struct asked asked;
	uint64_t ticket;
	unsigned i;

	(void)state;
	start_with(2, 0, 10000);
	for (i = 0; i < 10; i++) {
		fake_net_set_faults(ranks.net, &late);
		call = begin(1, &asked, 10);
		request = ranks_take(&ranks, 1);
		fake_net_set_faults(ranks.net, &none);
		ticket = request->message.ticket;
		engine_drop(request);
		fake_net_inject_bulk(ranks.net, 1, 0, message_slot(ticket),
				     "", 0);
		inject_answer(ticket, -ENOENT);
		inject_answer(ticket, -EPERM);
		assert_int_equal(engine_wait(engine(0), &call), -ENOENT);
		engine_end(engine(0), &call);
	}
	nanosleep(&until_sent, NULL);
	/* It looks at the network once more. */
	call = begin(1, &asked, 10);
	asking_work(NULL, &ranks.rank[1], ranks_take(&ranks, 1));
	assert_int_equal(engine_wait(engine(0), &call), 0);
	engine_end(engine(0), &call);
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

static void bulk_of_a_wrong_size(void **state)
{
	static unsigned char large[ENGINE_BULK_MAX + 1];
	struct engine_request *request;
	struct engine_call call;
	struct asked asked;

	(void)state;
	start_with(2, 0, 10000);
	call = begin(1, &asked, 10);
	request = ranks_take(&ranks, 1);
	fake_net_inject_bulk(ranks.net, 1, 0,
			     message_slot(request->message.ticket), large,
			     sizeof(large));
	assert_int_equal(engine_wait(engine(0), &call), -EPROTO);
	engine_end(engine(0), &call);
	engine_drop(request);
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

static void what_is_no_message(void **state)
{
	unsigned char bytes[2 * MESSAGE_SIZE_MAX];
	struct dice dice = { 9 };
	struct message message;
	struct asked asked;
	unsigned i;
	size_t j;

	(void)state;
	start_with(2, 1, 10000);
	for (i = 0; i < 300; i++) {
		for (j = 0; j < sizeof(bytes); j++)
			bytes[j] = (unsigned char)dice_any(&dice);
		message_init(&message, MESSAGE_REQUEST, dice_any(&dice));
		message.service = (uint16_t)dice_below(&dice, 10);
		message.size = (uint32_t)dice_below(&dice, 100);
		if (i % 2)
			memcpy(bytes, &message, sizeof(message));
		fake_net_inject(ranks.net, 1, 0, bytes,
				dice_below(&dice, i % 4 ? 100 :
							  sizeof(bytes)));
		if (i % 10 == 0) {
			asking_make_size(&asked, i, 1, i);
			asking_check(engine(0), &asked);
		}
	}
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_missed_deadline),
		cmocka_unit_test(late_answers_are_of_nobody),
		cmocka_unit_test(a_late_answer_to_a_call_that_is_held),
		cmocka_unit_test(the_deadline_of_one_call),
		cmocka_unit_test(a_request_that_is_dropped),
		cmocka_unit_test(messages_slower_than_their_rings),
		cmocka_unit_test(patience_with_who_is_there),
		cmocka_unit_test(no_patience_with_who_is_not),
		cmocka_unit_test(a_probe_finds_who_is_stopped),
		cmocka_unit_test(a_lost_rank),
		cmocka_unit_test(a_rank_that_leaves),
		cmocka_unit_test(bulk_of_who_has_left),
		cmocka_unit_test(an_answer_to_who_has_just_left),
		cmocka_unit_test(answers_to_other_calls),
		cmocka_unit_test(an_answer_that_comes_twice),
		cmocka_unit_test(bulk_of_a_wrong_size),
		cmocka_unit_test(what_is_no_message),
	};

	return cmocka_run_group_tests_name("engine_faults", tests, NULL,
					   NULL);
}
