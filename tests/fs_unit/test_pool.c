/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs that block until they are let go, and say when they begin: what has
 * begun, and what has not although something else has, is what is asked for.
 * Nothing sleeps: a job that must not have begun is one that could only have
 * begun before another one which has.
 */
#include "support/test.h"

#include "shard/base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

enum { LANES = 4, JOBS = 32 };

static struct {
	pthread_mutex_t lock;
	pthread_cond_t moved;
	/* Guarded by lock: */
	unsigned begun, ended, running[LANES], most[LANES];
	/* Of who submits, alone: */
	bool threads_fail;
	unsigned threads_left;
} seen = { .lock = PTHREAD_MUTEX_INITIALIZER,
	   .moved = PTHREAD_COND_INITIALIZER };

struct blocked {
	struct job job;		/* first: passed as this */
	bool open;		/* may end; guarded by seen.lock */
	unsigned begun;		/* it was the n-th to begin; 0: not yet */
};

/* Threads can run out. */
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*start)(void *), void *context);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*start)(void *), void *context);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*start)(void *), void *context)
{
	if (seen.threads_fail && seen.threads_left == 0)
		return EAGAIN;
	seen.threads_left -= seen.threads_fail;
	return __real_pthread_create(thread, attributes, start, context);
}

static void run_blocked(struct job *job)
{
	struct blocked *blocked = (struct blocked *)job;
	unsigned lane = job->lane;

	pthread_mutex_lock(&seen.lock);
	blocked->begun = ++seen.begun;
	if (++seen.running[lane] > seen.most[lane])
		seen.most[lane] = seen.running[lane];
	pthread_cond_broadcast(&seen.moved);
	while (!blocked->open)
		pthread_cond_wait(&seen.moved, &seen.lock);
	seen.running[lane]--;
	seen.ended++;
	pthread_cond_broadcast(&seen.moved);
	pthread_mutex_unlock(&seen.lock);
}

static void let_go(struct blocked *blocked, unsigned count)
{
	unsigned i;

	pthread_mutex_lock(&seen.lock);
	for (i = 0; i < count; i++)
		blocked[i].open = true;
	pthread_cond_broadcast(&seen.moved);
	pthread_mutex_unlock(&seen.lock);
}

static void wait_begun(const struct blocked *blocked, unsigned count)
{
	unsigned i;

	pthread_mutex_lock(&seen.lock);
	for (i = 0; i < count; i++)
		while (!blocked[i].begun)
			pthread_cond_wait(&seen.moved, &seen.lock);
	pthread_mutex_unlock(&seen.lock);
}

static unsigned count_begun(const struct blocked *blocked, unsigned count)
{
	unsigned begun = 0, i;

	pthread_mutex_lock(&seen.lock);
	for (i = 0; i < count; i++)
		begun += blocked[i].begun > 0;
	pthread_mutex_unlock(&seen.lock);
	return begun;
}

static void submit(struct pool *pool, struct blocked *blocked, unsigned count,
		   unsigned lane)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		blocked[i] = (struct blocked){ .job = { .run = run_blocked,
							.lane = lane } };
		assert_int_equal(pool_submit(pool, &blocked[i].job), 0);
	}
}

static int reset(void **state)
{
	unsigned i;

	(void)state;
	seen.begun = seen.ended = 0;
	for (i = 0; i < LANES; i++)
		seen.running[i] = seen.most[i] = 0;
	seen.threads_fail = false;
	return 0;
}

static void finish(struct pool *pool)
{
	pool_stop(pool);
	pool_destroy(pool);
}

static const unsigned caps[LANES] = { 3, 1, 2, 2 };

static void test_caps(void **state)
{
	struct pool *pool = pool_create(16, caps, LANES);
	static struct blocked jobs[LANES][JOBS];
	unsigned lane, total = 0;

	(void)state;
	assert_non_null(pool);
	for (lane = 0; lane < LANES; lane++) {
		submit(pool, jobs[lane], JOBS, lane);
		wait_begun(jobs[lane], caps[lane]);
		total += caps[lane];
	}
	/* All that may run do: nothing can begin until something ends. */
	assert_int_equal(seen.begun, total);
	for (lane = 0; lane < LANES; lane++)
		let_go(jobs[lane], JOBS);
	pool_stop(pool);
	assert_int_equal(seen.ended, LANES * JOBS);
	for (lane = 0; lane < LANES; lane++)
		assert_int_equal(seen.most[lane], caps[lane]);
	pool_destroy(pool);
}

/* One after the other through a lane whose jobs wait, another blocks. */
static void test_blocked_lane(void **state)
{
	struct pool *pool = pool_create(16, caps, LANES);
	static struct blocked stuck[JOBS], jobs[JOBS];
	unsigned i;

	(void)state;
	assert_non_null(pool);
	submit(pool, stuck, JOBS, 2);
	wait_begun(stuck, caps[2]);
	submit(pool, jobs, JOBS, 0);
	for (i = 0; i < JOBS; i++) {
		wait_begun(&jobs[i], 1);
		let_go(&jobs[i], 1);
	}
	assert_int_equal(count_begun(stuck, JOBS), caps[2]);
	let_go(stuck, JOBS);
	finish(pool);
	assert_int_equal(seen.ended, 2 * JOBS);
}

static void test_order(void **state)
{
	struct pool *pool = pool_create(16, caps, LANES);
	static struct blocked jobs[JOBS];
	unsigned i;

	(void)state;
	assert_non_null(pool);
	submit(pool, jobs, JOBS, 1);
	let_go(jobs, JOBS);
	pool_stop(pool);
	for (i = 0; i < JOBS; i++)
		assert_int_equal(jobs[i].begun, i + 1);
	pool_destroy(pool);
}

/* Lanes take turns when there is one thread for all. */
static void test_turns(void **state)
{
	struct pool *pool = pool_create(1, caps, LANES);
	static struct blocked first[1], many[8], few[2];

	(void)state;
	assert_non_null(pool);
	submit(pool, first, 1, 0);
	wait_begun(first, 1);
	submit(pool, many, 8, 2);
	submit(pool, few, 2, 3);
	let_go(many, 8);
	let_go(few, 2);
	let_go(first, 1);
	finish(pool);
	assert_int_equal(many[0].begun, 2);
	assert_int_equal(few[0].begun, 3);
	assert_int_equal(many[1].begun, 4);
	assert_int_equal(few[1].begun, 5);
	assert_int_equal(many[7].begun, 11);
}

/* However many peers are dead, the store has its threads. */
static void test_reserve(void **state)
{
	static const unsigned wide[LANES] = { 3, 4, 4, 4 };
	struct pool *pool = pool_create(8, wide, LANES);
	static struct blocked stuck[3][JOBS], jobs[JOBS];
	unsigned lane;

	(void)state;
	assert_non_null(pool);
	submit(pool, stuck[0], JOBS, 1);
	wait_begun(stuck[0], 4);
	submit(pool, stuck[1], JOBS, 2);
	wait_begun(stuck[1], 1);
	submit(pool, stuck[2], JOBS, 3);
	submit(pool, jobs, JOBS, 0);
	wait_begun(jobs, 3);
	assert_int_equal(seen.begun, 8);
	let_go(jobs, JOBS);
	wait_begun(jobs, JOBS);
	assert_int_equal(count_begun(stuck[0], JOBS), 4);
	assert_int_equal(count_begun(stuck[1], JOBS), 1);
	assert_int_equal(count_begun(stuck[2], JOBS), 0);
	for (lane = 1; lane < LANES; lane++)
		let_go(stuck[lane - 1], JOBS);
	finish(pool);
	assert_int_equal(seen.ended, 4 * JOBS);
}

static void *stop(void *pool)
{
	pool_stop(pool);
	return NULL;
}

struct short_job {
	struct job job;		/* first: passed as this */
	sem_t ended;
};

static void run_short(struct job *job)
{
	sem_post(&((struct short_job *)job)->ended);
}

static void test_stop(void **state)
{
	struct pool *pool = pool_create(16, caps, LANES);
	struct short_job other = { .job = { .run = run_short } };
	static struct blocked jobs[JOBS];
	pthread_t stopper;

	(void)state;
	assert_non_null(pool);
	sem_init(&other.ended, 0, 0);
	submit(pool, jobs, JOBS, 1);
	wait_begun(jobs, 1);
	assert_int_equal(pthread_create(&stopper, NULL, stop, pool), 0);
	/* Until it has come to the stop, the pool goes on. */
	while (pool_submit(pool, &other.job) == 0)
		sem_wait(&other.ended);
	assert_int_equal(count_begun(jobs, JOBS), 1);
	let_go(jobs, JOBS);
	pthread_join(stopper, NULL);
	assert_int_equal(seen.ended, JOBS);
	assert_int_equal(pool_submit(pool, &other.job), -ESHUTDOWN);
	pool_destroy(pool);
	sem_destroy(&other.ended);
}

static void test_out_of_threads(void **state)
{
	struct pool *pool = pool_create(16, caps, LANES);
	static struct blocked jobs[JOBS], others[JOBS], refused;

	(void)state;
	assert_non_null(pool);
	seen.threads_fail = true;
	seen.threads_left = 0;
	refused.job = (struct job){ .run = run_blocked, .lane = 2 };
	assert_int_equal(pool_submit(pool, &refused.job), -ENOMEM);
	refused.job.lane = 0;
	assert_int_equal(pool_submit(pool, &refused.job), -ENOMEM);
	seen.threads_left = 1;
	/* One thread is enough for all, though not at once. */
	submit(pool, jobs, JOBS, 0);
	submit(pool, others, JOBS, 3);
	let_go(jobs, JOBS);
	let_go(others, JOBS);
	finish(pool);
	assert_int_equal(seen.ended, 2 * JOBS);
	assert_int_equal(seen.most[0], 1);
	assert_int_equal(seen.most[3], 1);
	assert_int_equal(refused.begun, 0);
}

/* A thread that has nothing to do serves the next job, of whatever lane. */
static void test_idle(void **state)
{
	struct pool *pool = pool_create(16, caps, LANES);
	static struct blocked jobs[JOBS];
	unsigned i;

	(void)state;
	assert_non_null(pool);
	seen.threads_fail = true;
	seen.threads_left = 1;
	for (i = 0; i < JOBS; i++) {
		submit(pool, &jobs[i], 1, i % LANES);
		wait_begun(&jobs[i], 1);
		let_go(&jobs[i], 1);
	}
	finish(pool);
	assert_int_equal(seen.ended, JOBS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_caps, reset),
		cmocka_unit_test_setup(test_blocked_lane, reset),
		cmocka_unit_test_setup(test_order, reset),
		cmocka_unit_test_setup(test_turns, reset),
		cmocka_unit_test_setup(test_reserve, reset),
		cmocka_unit_test_setup(test_stop, reset),
		cmocka_unit_test_setup(test_out_of_threads, reset),
		cmocka_unit_test_setup(test_idle, reset),
	};

	pool_destroy(NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
