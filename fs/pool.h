/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads for whatever may block on the store. They are started as needed, up
 * to a number, and sleep without waking up when there is nothing to do.
 */
#ifndef FS_POOL_H
#define FS_POOL_H

struct pool;
struct reply;

/* A piece of work: embedded in what it works on. */
struct job {
	/* @reply is the thread's own, free to use; NULL: out of memory. */
	void (*run)(struct job *job, struct reply *reply);
	unsigned lane;		/* see peers.h */
	struct job *next;	/* guarded by the pool's lock */
};

/* NULL: out of memory. */
struct pool *pool_create(unsigned thread_max);
/* Runs what is queued, takes nothing more, and ends all threads. */
void pool_stop(struct pool *pool);
/* After pool_stop. NULL is fine. */
void pool_destroy(struct pool *pool);

/* 0; -ENOMEM when no thread could be started at all; -ESHUTDOWN when the pool
 * was stopped. */
int pool_submit(struct pool *pool, struct job *job);

#endif
