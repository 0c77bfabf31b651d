/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is what two ranks have at one path one file? By size and content, which are
 * looked at once for each pair of pins. Thread safe.
 */
#ifndef SHARD_STORE_COMPARER_H
#define SHARD_STORE_COMPARER_H

#include "shard/store/peers.h"

#include <pthread.h>

struct comparer {
	struct peers *peers;	/* borrowed; const, as is what says */
	void (*say)(void *context, const char *line);
	void *context;
	pthread_mutex_t lock;
	void *verdicts;		/* a tree of search.h; guarded by lock */
};

/* @say, unless NULL, is told once of each two that differ. */
void comparer_init(struct comparer *comparer, struct peers *peers,
		   void (*say)(void *context, const char *line),
		   void *context);
void comparer_finish(struct comparer *comparer);

/* Are @a and @b, at @path of two ranks, the lower rank's first, one file? What a
 * rank does not say now is as if they differed, until it is asked again. May ask
 * the ranks. */
bool comparer_is_same(struct comparer *comparer, const char *path,
		      const struct replica *a, const struct replica *b);

#endif
