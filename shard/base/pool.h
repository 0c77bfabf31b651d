/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads for whatever may block. They are started as needed, up to a number,
 * and sleep without waking up when there is nothing to do.
 *
 * Jobs are in lanes: one for each thing that jobs wait for.
 * Only so many of one lane run at once; the others of that lane wait in
 * order, without a thread. So a disk or a peer that does not answer holds up
 * who asked for it, and nobody else.
 */
#ifndef SHARD_BASE_POOL_H
#define SHARD_BASE_POOL_H

struct pool;

/* A piece of work: embedded in what it works on. */
struct job {
	void (*run)(struct job *job);
	unsigned lane;		/* set by who submits it */
	struct job *next;	/* guarded by the pool's lock */
};

/* @lane_max has @lane_count numbers, each at least 1: how many jobs of the lane
 * may run at once. All lanes but lane 0 leave as many threads alone as lane 0
 * may use, if @thread_max is more than that. NULL: out of memory. */
struct pool *pool_create(unsigned thread_max, const unsigned *lane_max,
			 unsigned lane_count);
/* Runs what is queued, takes nothing more, and ends all threads. */
void pool_stop(struct pool *pool);
/* After pool_stop. NULL is fine. */
void pool_destroy(struct pool *pool);

/* 0; -ENOMEM when no thread could be started at all; -ESHUTDOWN when the pool
 * was stopped. */
int pool_submit(struct pool *pool, struct job *job);

#endif
