/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane is
 *
 *	empty		no job is queued; some may run
 *	waiting		jobs are queued: it is in the list of waiting lanes
 *
 * and a waiting lane is open while fewer than `max` of its jobs run, and, but
 * for lane 0, while the other lanes leave lane 0 its threads. Whoever is free
 * takes the first job of the first open lane, which goes to the end of the
 * list: lanes take turns.
 *
 * A thread is woken or started only for a job that can run now. The end of a
 * job lets at most one more run: the thread that has ended it takes that one,
 * and nobody need be woken. For the same reason a thread may leave a stopped
 * pool as soon as it finds no open lane: those that run have the rest.
 */
#include "shard/base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/queue.h>

/* Guarded by the pool's lock, but for max. */
struct lane {
	struct job *first, **last;	/* the queue */
	unsigned queued, running;
	unsigned max;			/* const */
	TAILQ_ENTRY(lane) link;		/* while something is queued */
};

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	TAILQ_HEAD(, lane) waiting;	/* guarded by lock */
	unsigned others;		/* running, not of lane 0; likewise */
	unsigned idle, count;		/* guarded by lock */
	bool stop;			/* guarded by lock */
	unsigned thread_max, others_max; /* const */
	struct lane *lanes;		/* owned */
	pthread_t threads[];		/* guarded by lock; count of them */
};

struct pool *pool_create(unsigned thread_max, const unsigned *lane_max,
			 unsigned lane_count)
{
	struct pool *pool;
	unsigned i;

	pool = calloc(1, sizeof(*pool) + thread_max * sizeof(pthread_t));
	if (!pool)
		return NULL;
	pool->lanes = calloc(lane_count, sizeof(*pool->lanes));
	if (!pool->lanes) {
		free(pool);
		return NULL;
	}
	for (i = 0; i < lane_count; i++) {
		pool->lanes[i].last = &pool->lanes[i].first;
		pool->lanes[i].max = lane_max[i];
	}
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->wake, NULL);
	TAILQ_INIT(&pool->waiting);
	pool->thread_max = thread_max;
	pool->others_max = thread_max > lane_max[0] ? thread_max - lane_max[0] :
						      thread_max;
	return pool;
}

static bool is_first(const struct pool *pool, const struct lane *lane)
{
	return lane == &pool->lanes[0];
}

/* How many jobs could start now, if there were threads. */
static unsigned count_open_locked(const struct pool *pool)
{
	unsigned first = 0, others = 0, most;
	const struct lane *lane;

	TAILQ_FOREACH(lane, &pool->waiting, link) {
		most = lane->max - lane->running;
		if (most > lane->queued)
			most = lane->queued;
		if (is_first(pool, lane))
			first = most;
		else
			others += most;
	}
	most = pool->others_max - pool->others;
	return first + (others < most ? others : most);
}

/* Can a job of the lane start now? */
static bool is_open_locked(const struct pool *pool, const struct lane *lane)
{
	return lane->running < lane->max &&
	       (is_first(pool, lane) || pool->others < pool->others_max);
}

static struct lane *find_open_locked(const struct pool *pool)
{
	struct lane *lane;

	TAILQ_FOREACH(lane, &pool->waiting, link)
		if (is_open_locked(pool, lane))
			return lane;
	return NULL;
}

/* NULL: nothing that can run now is queued. */
static struct job *take_locked(struct pool *pool)
{
	struct lane *lane = find_open_locked(pool);
	struct job *job;

	if (!lane)
		return NULL;
	job = lane->first;
	lane->first = job->next;
	if (!lane->first)
		lane->last = &lane->first;
	TAILQ_REMOVE(&pool->waiting, lane, link);
	if (--lane->queued > 0)
		TAILQ_INSERT_TAIL(&pool->waiting, lane, link);
	lane->running++;
	pool->others += !is_first(pool, lane);
	return job;
}

static void end_locked(struct pool *pool, struct lane *lane)
{
	lane->running--;
	pool->others -= !is_first(pool, lane);
}

static void put_locked(struct pool *pool, struct job *job)
{
	struct lane *lane = &pool->lanes[job->lane];

	job->next = NULL;
	*lane->last = job;
	lane->last = &job->next;
	if (lane->queued++ == 0)
		TAILQ_INSERT_TAIL(&pool->waiting, lane, link);
}

static void *thread_main(void *context)
{
	struct pool *pool = context;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		struct job *job = take_locked(pool);
		struct lane *lane;

		while (!job && !pool->stop) {
			pool->idle++;
			pthread_cond_wait(&pool->wake, &pool->lock);
			pool->idle--;
			job = take_locked(pool);
		}
		if (!job)
			break;
		pthread_mutex_unlock(&pool->lock);
		/* The job is gone when it has run. */
		lane = &pool->lanes[job->lane];
		job->run(job);
		pthread_mutex_lock(&pool->lock);
		end_locked(pool, lane);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

void pool_stop(struct pool *pool)
{
	unsigned i;

	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->wake);
	pthread_mutex_unlock(&pool->lock);
	for (i = 0; i < pool->count; i++)
		pthread_join(pool->threads[i], NULL);
}

void pool_destroy(struct pool *pool)
{
	if (!pool)
		return;
	pthread_cond_destroy(&pool->wake);
	pthread_mutex_destroy(&pool->lock);
	free(pool->lanes);
	free(pool);
}

static void start_thread_locked(struct pool *pool)
{
	if (pool->count < pool->thread_max &&
	    pthread_create(&pool->threads[pool->count], NULL, thread_main,
			   pool) == 0)
		pool->count++;
}

/* Queue @job, and see to a thread for it if it can run now. */
static int submit_locked(struct pool *pool, struct job *job)
{
	unsigned open = count_open_locked(pool);

	if (pool->stop)
		return -ESHUTDOWN;
	put_locked(pool, job);
	if (count_open_locked(pool) > open) {
		if (open >= pool->idle)
			start_thread_locked(pool);
		pthread_cond_signal(&pool->wake);
	}
	if (pool->count > 0)
		return 0;
	/* Nobody will ever come for it; it is the only one. */
	take_locked(pool);
	end_locked(pool, &pool->lanes[job->lane]);
	return -ENOMEM;
}

int pool_submit(struct pool *pool, struct job *job)
{
	int error;

	pthread_mutex_lock(&pool->lock);
	error = submit_locked(pool, job);
	pthread_mutex_unlock(&pool->lock);
	return error;
}
