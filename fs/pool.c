/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/pool.h"

#include "shard/source.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct job *first, **last;	/* guarded by lock: the queue */
	unsigned queued, idle, count;	/* guarded by lock */
	bool stop;			/* guarded by lock */
	unsigned thread_max;		/* const */
	pthread_t threads[];		/* guarded by lock; count of them */
};

struct pool *pool_create(unsigned thread_max)
{
	struct pool *pool;

	pool = calloc(1, sizeof(*pool) + thread_max * sizeof(pthread_t));
	if (!pool)
		return NULL;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->wake, NULL);
	pool->last = &pool->first;
	pool->thread_max = thread_max;
	return pool;
}

static struct job *take_locked(struct pool *pool)
{
	struct job *job = pool->first;

	pool->first = job->next;
	if (!pool->first)
		pool->last = &pool->first;
	pool->queued--;
	return job;
}

static void *thread_main(void *context)
{
	struct pool *pool = context;
	struct reply *reply = reply_create();

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		struct job *job;

		while (!pool->first && !pool->stop) {
			pool->idle++;
			pthread_cond_wait(&pool->wake, &pool->lock);
			pool->idle--;
		}
		if (!pool->first)
			break;
		job = take_locked(pool);
		pthread_mutex_unlock(&pool->lock);
		job->run(job, reply);
		pthread_mutex_lock(&pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	reply_destroy(reply);
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
	free(pool);
}

int pool_submit(struct pool *pool, struct job *job)
{
	int error = 0;

	pthread_mutex_lock(&pool->lock);
	if (pool->stop) {
		pthread_mutex_unlock(&pool->lock);
		return -ESHUTDOWN;
	}
	if (pool->queued >= pool->idle && pool->count < pool->thread_max) {
		error = pthread_create(&pool->threads[pool->count], NULL,
				       thread_main, pool);
		pool->count += !error;
	}
	if (pool->count == 0) {
		pthread_mutex_unlock(&pool->lock);
		return -ENOMEM;
	}
	job->next = NULL;
	*pool->last = job;
	pool->last = &job->next;
	pool->queued++;
	pthread_cond_signal(&pool->wake);
	pthread_mutex_unlock(&pool->lock);
	return 0;
}
