/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of several ranks that run twice: with stores that the others have to
 * ask for, and with stores that they open.
 */
#ifndef SUPPORT_WAYS_H
#define SUPPORT_WAYS_H

#include "support/mounts.h"

/* Both, for a table of tests. */
#define WAYS_BOTH(test) \
	{ #test " elsewhere", test, NULL, ways_stop, \
	  (void *)&ways_elsewhere }, \
	{ #test " here", test, NULL, ways_stop, (void *)&ways_here }

extern const bool ways_elsewhere, ways_here;

/* Are stores opened in this run? */
bool ways_is_direct(void **state);
/* mounts_start of @count ranks in the way of this run, and the teardown. */
void ways_start(void **state, unsigned count);
int ways_stop(void **state);

/* The file @name in the folder @path of a store, "": in the store itself. */
void ways_put(unsigned rank, const char *path, const char *name,
	      const char *text);
/* The checkpoint of sample.h in the folder "step" of a store. */
void ways_put_sample(unsigned rank, bool local, unsigned char first);
/* At all of @count ranks: all of "w" of that, and parts of it, in one shard
 * and in both, are right. */
void ways_check_sample(unsigned count, unsigned char first);

/* Where its views are. */
#define WAYS_VIEWS ".ckptfs/views/step/"
/* Bytes of a row of "w", of which each shard has half. */
enum { WAYS_ROW = 64 * 4, WAYS_HALF = 32 * WAYS_ROW };

#endif
