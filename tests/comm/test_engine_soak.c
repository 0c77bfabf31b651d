/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many threads of four ranks ask each other at random, over a network that is
 * late, then one that also loses and spoils, and with ranks that stop now and
 * then. Each answer is the right one or an error.
 *
 * CKPTFS_SEED replays the dice; CKPTFS_SOAK_MS is how long each part takes.
 */
#include "support/test.h"
#include "support/asking.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RANKS = 4, THREADS = 3, BATCH_MAX = 4 };

static struct dice dice;
static struct ranks ranks;
static atomic_uint asked_count, wrong_count, error_count;
static bool lossy;
static atomic_bool over;
static bool errors_allowed;
static unsigned soak_ms = 2500;

struct asker {
	pthread_t thread;
	unsigned rank;
	struct dice dice;
};

static void count_answer(const struct asked *asked,
			 const struct engine_call *call)
{
	atomic_fetch_add(&asked_count, 1);
	if (asking_is_right(asked, call))
		return;
	/* The error of an answer may be spoilt as well, and what is cut short,
	 * or another's, is seen by who knows what size it must have. */
	if (errors_allowed &&
	    (call->error < 0 || call->got != asked->size))
		atomic_fetch_add(&error_count, 1);
	else
		atomic_fetch_add(&wrong_count, 1);
}

/* A few calls at once; some are patient, some have less time, and some are
 * given up. */
static void ask_some(struct asker *asker)
{
	struct engine *engine = ranks.rank[asker->rank].engine;
	unsigned count = 1 + (unsigned)dice_below(&asker->dice, BATCH_MAX), i;
	struct engine_call calls[BATCH_MAX];
	struct asked asked[BATCH_MAX];
	bool nowait = dice_chance(&asker->dice, 50);
	int error;

	for (i = 0; i < count; i++) {
		unsigned to = (asker->rank + 1 + (unsigned)
			       dice_below(&asker->dice, RANKS - 1)) % RANKS;

		asking_make(&asked[i], &asker->dice, asker->rank, to);
		calls[i] = asking_call(&asked[i]);
		/* Patience waits for what is lost as long as its rank is
		 * there: MPI loses nothing. */
		calls[i].patient = !lossy && dice_chance(&asker->dice, 20);
	}
	error = engine_begin(engine, calls, count, nowait);
	if (error) {
		if (error != -EAGAIN || !nowait)
			atomic_fetch_add(&wrong_count, 1);
		sched_yield();
		return;
	}
	for (i = 0; i < count; i++) {
		if (!dice_chance(&asker->dice, 5)) {
			engine_wait(engine, &calls[i]);
			count_answer(&asked[i], &calls[i]);
		}
		engine_end(engine, &calls[i]);
	}
}

static void *run_asker(void *argument)
{
	while (!atomic_load(&over))
		ask_some(argument);
	return NULL;
}

/* Stops a rank now and then, for less or more than the deadline. */
static void disturb(unsigned deadline_ms)
{
	unsigned rank = (unsigned)dice_below(&dice, RANKS);
	uint64_t ms = dice_chance(&dice, 30) ?
		      deadline_ms + dice_below(&dice, deadline_ms) :
		      dice_below(&dice, 30);
	const struct timespec pause = { 0, (long)ms * 1000000 };

	fake_net_pause(ranks.net, rank);
	nanosleep(&pause, NULL);
	fake_net_resume(ranks.net, rank);
}

static void soak(unsigned deadline_ms, bool stops)
{
	const struct timespec some = { 0, 10000000 };
	struct asker askers[RANKS * THREADS];
	uint64_t end = ranks_now_ms() + soak_ms;
	unsigned i;

	atomic_store(&over, false);
	atomic_store(&asked_count, 0);
	atomic_store(&error_count, 0);
	atomic_store(&wrong_count, 0);
	for (i = 0; i < COUNT_OF(askers); i++) {
		askers[i].rank = i % RANKS;
		askers[i].dice.state = dice_any(&dice);
		assert_int_equal(pthread_create(&askers[i].thread, NULL,
						run_asker, &askers[i]), 0);
	}
	while (ranks_now_ms() < end) {
		if (stops)
			disturb(deadline_ms);
		nanosleep(&some, NULL);
	}
	atomic_store(&over, true);
	for (i = 0; i < COUNT_OF(askers); i++)
		assert_int_equal(pthread_join(askers[i].thread, NULL), 0);
	printf("%u calls, %u errors\n", atomic_load(&asked_count),
	       atomic_load(&error_count));
	assert_int_equal(atomic_load(&wrong_count), 0);
	assert_true(atomic_load(&asked_count) > 100);
}

static void start(unsigned deadline_ms, const struct fake_faults *faults)
{
	const struct ranks_options options = {
		.count = RANKS, .deadline_ms = deadline_ms,
		.workers = RANKS_WORKERS, .work = asking_work,
		.seed = dice_any(&dice),
	};

	ranks_start(&ranks, &options);
	fake_net_set_faults(ranks.net, faults);
}

/* All is well again, and of each rank no slot is left used but those whose
 * answer was lost. */
static void check_health(unsigned lost)
{
	const struct fake_faults none = { .delay_us = 0 };
	unsigned i, j, k, stuck = 0;
	struct asked asked;

	fake_net_set_faults(ranks.net, &none);
	for (i = 0; i < RANKS; i++)
		for (j = 0; j < RANKS; j++) {
			if (i == j)
				continue;
			ranks_await_state(&ranks, i, j, PEER_UP);
			for (k = 0; k < 20; k++) {
				asking_make(&asked, &dice, i, j);
				asking_check(ranks.rank[i].engine, &asked);
			}
		}
	for (i = 0; i < RANKS && lost == 0; i++)
		ranks_await_free(&ranks, i);
	for (i = 0; i < RANKS; i++) {
		struct engine_counters counters;

		engine_count(ranks.rank[i].engine, &counters);
		stuck += (unsigned)counters.slots;
	}
	assert_true(stuck <= lost);
}

static void a_slow_network(void **state)
{
	const struct fake_faults slow = {
		.delay_us = 1500, .sent_delay_us = 3000,
	};

	(void)state;
	errors_allowed = false;
	start(20000, &slow);
	soak(20000, false);
	check_health(0);
	ranks_finish(&ranks);
}

static void ranks_that_stop(void **state)
{
	const struct fake_faults slow = {
		.delay_us = 500, .sent_delay_us = 1000,
	};

	(void)state;
	errors_allowed = true;
	start(100, &slow);
	soak(100, true);
	check_health(0);
	ranks_finish(&ranks);
}

static void a_bad_network(void **state)
{
	/* Half of the slots of one rank, if all of it hits that one. */
	const struct fake_faults bad = {
		.delay_us = 300, .sent_delay_us = 1000, .drop = 20,
		.corrupt = 40, .budget = 48,
	};

	(void)state;
	errors_allowed = true;
	lossy = true;
	start(100, &bad);
	soak(100, true);
	assert_true(fake_net_count_faults(ranks.net) > 0);
	check_health(48);
	ranks_finish(&ranks);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_slow_network),
		cmocka_unit_test(ranks_that_stop),
		cmocka_unit_test(a_bad_network),
	};
	const char *text = getenv("CKPTFS_SOAK_MS");

	if (text && *text)
		soak_ms = (unsigned)strtoul(text, NULL, 0);
	dice = dice_make();
	return cmocka_run_group_tests_name("engine_soak", tests, NULL, NULL);
}
