/* SPDX-License-Identifier: Apache-2.0 */
#include "support/stall.h"

#include "support/test.h"
#include "support/mounts.h"

#include "shard/base/pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

enum { PATIENCE_S = 20 };

static struct {
	pthread_mutex_t lock;
	pthread_cond_t change;
	/* Guarded by lock: */
	bool pool, clock;		/* is stalled */
	unsigned begun, ended;		/* of the jobs */
	unsigned waiting;		/* for the time */
} stall = { .lock = PTHREAD_MUTEX_INITIALIZER,
	    .change = PTHREAD_COND_INITIALIZER };

static struct job jobs[MOUNTS_LANE_MAX];

/* Until @counter is @least; fails the test, and not those who are stalled. */
static void await_locked(const unsigned *counter, unsigned least)
{
	struct timespec until;
	int error = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += PATIENCE_S;
	while (*counter < least && !error)
		error = pthread_cond_clockwait(&stall.change, &stall.lock,
					       CLOCK_MONOTONIC, &until);
	if (!error)
		return;
	pthread_mutex_unlock(&stall.lock);
	fail_msg("nobody came for %d seconds", PATIENCE_S);
}

/* ---- the pool ------------------------------------------------------------ */

static void run_stalled(struct job *job)
{
	(void)job;
	pthread_mutex_lock(&stall.lock);
	stall.begun++;
	pthread_cond_broadcast(&stall.change);
	while (stall.pool)
		pthread_cond_wait(&stall.change, &stall.lock);
	stall.ended++;
	pthread_cond_broadcast(&stall.change);
	pthread_mutex_unlock(&stall.lock);
}

void stall_pool(unsigned rank)
{
	unsigned lane, i;
	struct pool *pool = mounts_pool(rank, &lane);

	pthread_mutex_lock(&stall.lock);
	assert_false(stall.pool);
	stall.pool = true;
	stall.begun = stall.ended = 0;
	pthread_mutex_unlock(&stall.lock);
	for (i = 0; i < MOUNTS_LANE_MAX; i++) {
		jobs[i] = (struct job){ .run = run_stalled, .lane = lane };
		assert_int_equal(pool_submit(pool, &jobs[i]), 0);
	}
	/* As many as may run at once: nothing else runs any more. */
	pthread_mutex_lock(&stall.lock);
	await_locked(&stall.begun, MOUNTS_LANE_MAX);
	pthread_mutex_unlock(&stall.lock);
}

void stall_pool_end(void)
{
	pthread_mutex_lock(&stall.lock);
	if (stall.pool) {
		stall.pool = false;
		pthread_cond_broadcast(&stall.change);
		/* Those that have not begun will end at once. */
		await_locked(&stall.ended, MOUNTS_LANE_MAX);
	}
	pthread_mutex_unlock(&stall.lock);
}

void stall_settle(unsigned rank)
{
	stall_pool(rank);
	stall_pool_end();
}

/* ---- the clock ----------------------------------------------------------- */

void stall_pass_clock(void)
{
	pthread_mutex_lock(&stall.lock);
	stall.waiting++;
	pthread_cond_broadcast(&stall.change);
	while (stall.clock)
		pthread_cond_wait(&stall.change, &stall.lock);
	stall.waiting--;
	pthread_mutex_unlock(&stall.lock);
}

void stall_clock(void)
{
	pthread_mutex_lock(&stall.lock);
	stall.clock = true;
	pthread_mutex_unlock(&stall.lock);
}

void stall_clock_end(void)
{
	pthread_mutex_lock(&stall.lock);
	stall.clock = false;
	pthread_cond_broadcast(&stall.change);
	pthread_mutex_unlock(&stall.lock);
}

void stall_clock_await(void)
{
	pthread_mutex_lock(&stall.lock);
	assert_true(stall.clock);
	await_locked(&stall.waiting, 1);
	pthread_mutex_unlock(&stall.lock);
}

void stall_end_all(void)
{
	stall_clock_end();
	stall_pool_end();
}
