/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread receives requests and answers them, and never blocks on the
 * store: what would, goes to the pool. A second one on a 2-core machine slows
 * a single reader down, since the kernel wakes them in turn; but many large
 * reads at once gain from it. So the others sleep, and the thread that has
 * just received a request wakes one of them only if more are waiting. One that
 * was woken serves until nothing waits, and sleeps again.
 */
#ifndef FS_FUSE_WORKERS_H
#define FS_FUSE_WORKERS_H

#include <pthread.h>
#include <semaphore.h>

struct fuse_session;

enum { WORKERS_MAX = 4 };

struct workers {
	struct fuse_session *session;	/* borrowed; const once started */
	/* By the first thread: a request was answered; there will be no more,
	 * since the mount is gone. Const likewise. */
	void (*served)(void *context);
	void (*ended)(void *context);
	void *context;
	/* Its own: */
	pthread_t threads[WORKERS_MAX];
	unsigned count;			/* of threads */
	sem_t spare;			/* posted to wake a spare one */
	_Atomic unsigned asleep;	/* spare ones */
};

void workers_init(struct workers *workers);
/* After workers_stop. */
void workers_finish(struct workers *workers);

/* 0, or -errno if there is not even one thread. */
int workers_start(struct workers *workers);
/* Ends the threads, between two requests. May be called twice. */
void workers_stop(struct workers *workers);

#endif
