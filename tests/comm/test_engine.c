/* SPDX-License-Identifier: Apache-2.0 */
/* Calls, slots, rooms, and how an engine ends. */
#include "support/test.h"
#include "support/asking.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* Those of engine.c. */
enum { SLOTS = 96, ROOMS = 64 };

static struct ranks ranks;

static void start(unsigned count, unsigned workers, unsigned deadline_ms)
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

/* ---- calls --------------------------------------------------------------- */

static void answers_of_every_size(void **state)
{
	static const uint32_t sizes[] = {
		1, 7, 8, 4095, 4096, 4097, 65536, ENGINE_BULK_MAX - 1,
		ENGINE_BULK_MAX, 0,
	};
	struct asked asked;
	unsigned i;

	(void)state;
	start(2, 1, 10000);
	for (i = 0; i < 2 * COUNT_OF(sizes); i++) {
		asking_make_size(&asked, i, i % 2, sizes[i / 2]);
		asking_check(engine(!(i % 2)), &asked);
	}
	ranks_await_free(&ranks, 0);
	ranks_await_free(&ranks, 1);
	ranks_finish(&ranks);
}

static void errors_are_answers(void **state)
{
	struct dice dice = { 3 };
	struct asked asked;
	unsigned errors = 0;

	(void)state;
	start(2, 2, 10000);
	while (errors < 50) {
		asking_make(&asked, &dice, 0, 1);
		errors += asked.error != 0;
		asking_check(engine(0), &asked);
	}
	assert_int_equal(engine_state(engine(0), 1), PEER_UP);
	ranks_finish(&ranks);
}

static void many_calls_at_once(void **state)
{
	struct engine_call calls[ENGINE_CALL_MAX];
	struct asked asked[ENGINE_CALL_MAX];
	unsigned i;

	(void)state;
	start(4, 2, 10000);
	for (i = 0; i < ENGINE_CALL_MAX; i++) {
		asking_make_size(&asked[i], i, 1 + i % 3, 100 * i);
		calls[i] = asking_call(&asked[i]);
	}
	assert_int_equal(engine_begin(engine(0), calls, ENGINE_CALL_MAX,
				      true), 0);
	for (i = ENGINE_CALL_MAX; i > 0; i--) {
		engine_wait(engine(0), &calls[i - 1]);
		assert_true(asking_is_right(&asked[i - 1], &calls[i - 1]));
	}
	/* They stay what they are until they are let go of. */
	for (i = 0; i < ENGINE_CALL_MAX; i++) {
		assert_true(asking_is_right(&asked[i], &calls[i]));
		engine_end(engine(0), &calls[i]);
		assert_null(calls[i].slot);
		engine_end(engine(0), &calls[i]);
	}
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

static void nobody_asks_itself(void **state)
{
	struct asked asked;

	(void)state;
	start(2, 1, 10000);
	asking_make_size(&asked, 1, 0, 10);
	assert_int_equal(asking_try(engine(0), &asked), -EIO);
	assert_int_equal(engine_state(engine(0), 0), PEER_SELF);
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

/* Of what nobody waits for any more the slot comes back with the answer. */
static void calls_that_are_given_up(void **state)
{
	struct engine_call call;
	struct asked asked;
	unsigned i;

	(void)state;
	start(2, 1, 10000);
	ranks_hold(&ranks, 1, true);
	asking_make_size(&asked, 1, 1, 10);
	for (i = 0; i < 10; i++) {
		call = asking_call(&asked);
		assert_int_equal(engine_begin(engine(0), &call, 1, true), 0);
		engine_end(engine(0), &call);
	}
	ranks_await_quarantined(&ranks, 0, 10);
	ranks_hold(&ranks, 1, false);
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

/* ---- slots and rooms ----------------------------------------------------- */

static struct engine_call calls[SLOTS];
static struct asked all_asked;

static void use_all_slots(void)
{
	unsigned i;

	asking_make_size(&all_asked, 1, 1, 10);
	for (i = 0; i < SLOTS; i++)
		calls[i] = asking_call(&all_asked);
	for (i = 0; i < SLOTS; i += ENGINE_CALL_MAX)
		assert_int_equal(engine_begin(engine(0), &calls[i],
					      ENGINE_CALL_MAX, true), 0);
}

static void *ask_one(void *ret_error)
{
	struct engine_call call = asking_call(&all_asked);
	int *error = ret_error;

	*error = engine_begin(engine(0), &call, 1, false);
	if (!*error)
		*error = engine_wait(engine(0), &call);
	if (!*error && !asking_is_right(&all_asked, &call))
		*error = -EILSEQ;
	engine_end(engine(0), &call);
	return NULL;
}

static void no_slot_is_left(void **state)
{
	struct engine_counters counters;
	struct engine_call call;
	pthread_t thread;
	unsigned i;
	int error;

	(void)state;
	start(2, 2, 10000);
	ranks_hold(&ranks, 1, true);
	use_all_slots();
	engine_count(engine(0), &counters);
	assert_int_equal(counters.slots, SLOTS);
	assert_int_equal(counters.quarantined, 0);
	call = asking_call(&all_asked);
	assert_int_equal(engine_begin(engine(0), &call, 1, true), -EAGAIN);
	assert_null(call.slot);
	assert_int_equal(pthread_create(&thread, NULL, ask_one, &error), 0);
	/* Given up, they are used until their answer comes. */
	for (i = 0; i < SLOTS; i++)
		engine_end(engine(0), &calls[i]);
	assert_int_equal(engine_begin(engine(0), &call, 1, true), -EAGAIN);
	ranks_hold(&ranks, 1, false);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(error, 0);
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

/* Two need more than there is: neither takes a part of it. */
static void all_slots_or_none(void **state)
{
	struct engine_call more[2];

	(void)state;
	start(2, 2, 10000);
	ranks_hold(&ranks, 1, true);
	use_all_slots();
	ranks_hold(&ranks, 1, false);
	assert_int_equal(engine_wait(engine(0), &calls[0]), 0);
	engine_end(engine(0), &calls[0]);
	/* The slot is free when its request is known to be sent, too. */
	more[0] = more[1] = asking_call(&all_asked);
	assert_int_equal(engine_begin(engine(0), more, 2, true), -EAGAIN);
	assert_int_equal(engine_begin(engine(0), more, 1, false), 0);
	assert_int_equal(engine_begin(engine(0), &more[1], 1, true), -EAGAIN);
	ranks_stop(&ranks, 0);
	ranks_finish(&ranks);
}

static struct engine_request *requests[ROOMS + 1];

static void *take_last_room(void *ret_room)
{
	*(unsigned char **)ret_room = engine_room(requests[ROOMS]);
	return NULL;
}

static void no_room_is_left(void **state)
{
	const struct timespec short_time = { 0, 50000000 };
	unsigned char *room = NULL;
	pthread_t thread;
	unsigned i;

	(void)state;
	start(2, 0, 10000);
	use_all_slots();
	for (i = 0; i <= ROOMS; i++)
		requests[i] = ranks_take(&ranks, 1);
	for (i = 0; i < ROOMS; i++) {
		assert_non_null(engine_room(requests[i]));
		assert_ptr_equal(engine_room(requests[i]),
				 engine_room(requests[i]));
	}
	/* There is none in time. */
	requests[ROOMS]->expires_ms = ranks_now_ms() + 50;
	assert_null(engine_room(requests[ROOMS]));
	requests[ROOMS]->expires_ms = ranks_now_ms() + 60000;
	assert_int_equal(pthread_create(&thread, NULL, take_last_room, &room),
			 0);
	/* That it may wait; it need not, to get one. */
	nanosleep(&short_time, NULL);
	engine_drop(requests[0]);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_non_null(room);
	memset(room, 'x', 3);
	engine_answer(requests[ROOMS], 0, 3);
	for (i = 1; i < ROOMS; i++)
		engine_answer(requests[i], -ENOENT, 0);
	for (i = 1; i < ROOMS; i++)
		assert_int_equal(engine_wait(engine(0), &calls[i]), -ENOENT);
	assert_int_equal(engine_wait(engine(0), &calls[ROOMS]), 0);
	assert_int_equal(calls[ROOMS].got, 3);
	assert_memory_equal(calls[ROOMS].data, "xxx", 3);
	for (i = 0; i < SLOTS; i++)
		engine_end(engine(0), &calls[i]);
	ranks_finish(&ranks);
}

/* ---- the end ------------------------------------------------------------- */

static void calls_end_with_the_engine(void **state)
{
	pthread_t threads[8];
	struct engine_call call;
	int errors[8];
	unsigned i;

	(void)state;
	start(2, 1, 60000);
	ranks_hold(&ranks, 1, true);
	use_all_slots();
	/* These wait for a slot. */
	for (i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask_one,
						&errors[i]), 0);
	ranks_stop(&ranks, 0);
	for (i = 0; i < 8; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(errors[i], -ESHUTDOWN);
	}
	for (i = 0; i < SLOTS; i++) {
		assert_int_equal(engine_wait(engine(0), &calls[i]),
				 -ESHUTDOWN);
		engine_end(engine(0), &calls[i]);
	}
	call = asking_call(&all_asked);
	assert_int_equal(engine_begin(engine(0), &call, 1, false),
			 -ESHUTDOWN);
	ranks_finish(&ranks);
}

static void calls_after_the_end(void **state)
{
	struct asked asked;

	(void)state;
	start(2, 1, 60000);
	ranks_stop(&ranks, 0);
	asking_make_size(&asked, 1, 1, 10);
	assert_int_equal(asking_try(engine(0), &asked), -ESHUTDOWN);
	ranks_finish(&ranks);
}

/* What is being sent goes out, but not for ever. */
static void an_answer_that_nobody_takes(void **state)
{
	struct engine_request *request;
	struct engine_call call;
	struct asked asked;
	unsigned char *room;

	(void)state;
	start(2, 0, 60000);
	asking_make_size(&asked, 1, 1, ENGINE_BULK_MAX);
	call = asking_call(&asked);
	assert_int_equal(engine_begin(engine(0), &call, 1, true), 0);
	request = ranks_take(&ranks, 1);
	room = engine_room(request);
	assert_non_null(room);
	ranks_pause(&ranks, 0);
	engine_answer(request, 0, ENGINE_BULK_MAX);
	ranks_stop(&ranks, 1);
	fake_net_resume(ranks.net, 0);
	ranks_await_state(&ranks, 0, 1, PEER_LEFT);
	assert_int_equal(engine_wait(engine(0), &call), -EIO);
	engine_end(engine(0), &call);
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
}

/* ---- sleep --------------------------------------------------------------- */

static void who_is_idle_sleeps(void **state)
{
	const struct timespec second = { 1, 0 };
	struct engine_counters before, after;
	struct asked asked;
	unsigned i;

	(void)state;
	start(3, 1, 10000);
	asking_make_size(&asked, 1, 1, 1000);
	asking_check(engine(0), &asked);
	ranks_await_free(&ranks, 0);
	for (i = 0; i < 3; i++) {
		/* Longer than anything goes on after it happened. */
		nanosleep(&second, NULL);
		engine_count(engine(i), &before);
		nanosleep(&second, NULL);
		engine_count(engine(i), &after);
		assert_true(after.wakeups - before.wakeups <= 1);
	}
	asking_check(engine(0), &asked);
	ranks_finish(&ranks);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_of_every_size),
		cmocka_unit_test(errors_are_answers),
		cmocka_unit_test(many_calls_at_once),
		cmocka_unit_test(nobody_asks_itself),
		cmocka_unit_test(calls_that_are_given_up),
		cmocka_unit_test(no_slot_is_left),
		cmocka_unit_test(all_slots_or_none),
		cmocka_unit_test(no_room_is_left),
		cmocka_unit_test(calls_end_with_the_engine),
		cmocka_unit_test(calls_after_the_end),
		cmocka_unit_test(an_answer_that_nobody_takes),
		cmocka_unit_test(who_is_idle_sleeps),
	};

	return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
