/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/fuse/interrupt.h"

#include "fs/fuse/client.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { INTERVAL_MS = 100 };

struct watch {
	pthread_mutex_t lock;
	pthread_cond_t wake;		/* the first one, or the stop */
	pthread_cond_t done;		/* busy was set to NULL */
	LIST_HEAD(, watched) all;	/* guarded by lock */
	struct watched *busy;		/* its `dying` runs; guarded by lock */
	bool started, stop;		/* guarded by lock */
	pthread_t thread;		/* if started */
};

struct watch *watch_create(void)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	pthread_condattr_t attributes;

	if (!watch)
		return NULL;
	pthread_mutex_init(&watch->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&watch->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	pthread_cond_init(&watch->done, NULL);
	LIST_INIT(&watch->all);
	return watch;
}

static void unlink_locked(struct watched *watched)
{
	if (watched->linked)
		LIST_REMOVE(watched, link);
	watched->linked = false;
}

static struct watched *find_dying_locked(const struct watch *watch)
{
	struct watched *watched;

	LIST_FOREACH(watched, &watch->all, link)
		if (client_is_dying(watched->tid))
			break;
	return watched;
}

static void look_locked(struct watch *watch)
{
	struct watched *dying = find_dying_locked(watch);

	while (dying) {
		watch->busy = dying;
		pthread_mutex_unlock(&watch->lock);
		dying->dying(dying);
		pthread_mutex_lock(&watch->lock);
		unlink_locked(dying);
		watch->busy = NULL;
		pthread_cond_broadcast(&watch->done);
		dying = find_dying_locked(watch);
	}
}

static void wait_locked(struct watch *watch)
{
	struct timespec until;

	if (LIST_EMPTY(&watch->all)) {
		pthread_cond_wait(&watch->wake, &watch->lock);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += INTERVAL_MS * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&watch->wake, &watch->lock, &until);
}

static void *thread_main(void *context)
{
	struct watch *watch = context;

	pthread_mutex_lock(&watch->lock);
	while (!watch->stop) {
		wait_locked(watch);
		look_locked(watch);
	}
	pthread_mutex_unlock(&watch->lock);
	return NULL;
}

void watch_destroy(struct watch *watch)
{
	if (!watch)
		return;
	pthread_mutex_lock(&watch->lock);
	watch->stop = true;
	pthread_cond_signal(&watch->wake);
	pthread_mutex_unlock(&watch->lock);
	if (watch->started)
		pthread_join(watch->thread, NULL);
	pthread_cond_destroy(&watch->done);
	pthread_cond_destroy(&watch->wake);
	pthread_mutex_destroy(&watch->lock);
	free(watch);
}

void watch_add(struct watch *watch, struct watched *watched)
{
	pthread_mutex_lock(&watch->lock);
	if (!watch->started)
		watch->started = pthread_create(&watch->thread, NULL,
						thread_main, watch) == 0;
	if (watch->started && !watched->linked) {
		if (LIST_EMPTY(&watch->all))
			pthread_cond_signal(&watch->wake);
		LIST_INSERT_HEAD(&watch->all, watched, link);
		watched->linked = true;
	}
	pthread_mutex_unlock(&watch->lock);
}

void watch_remove(struct watch *watch, struct watched *watched)
{
	pthread_mutex_lock(&watch->lock);
	while (watch->busy == watched)
		pthread_cond_wait(&watch->done, &watch->lock);
	unlink_locked(watched);
	pthread_mutex_unlock(&watch->lock);
}
