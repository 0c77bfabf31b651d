/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a job waits for. What waits for the same thing shares a lane of the pool
 * (shard/base/pool.h), so that a rank which does not answer stops nobody else.
 * Catalogs that other ranks ask for have one, since they may have to be asked
 * for in turn, and must not keep anybody from being answered.
 */
#ifndef SHARD_STORE_LANES_H
#define SHARD_STORE_LANES_H

enum {
	LANE_STORE,	/* the files of the store, and whatever is made of them */
	LANE_FOLDERS,	/* other ranks, for what is in a folder */
	LANE_CATALOGS,	/* answers that may wait for other ranks */
	LANE_RANKS,	/* two of each rank: */
};

/* Reading from a rank; -1: from none. */
static inline unsigned lane_of_reading(int rank)
{
	return rank < 0 ? LANE_STORE : LANE_RANKS + 2 * (unsigned)rank;
}

/* Answering one. */
static inline unsigned lane_of_answering(unsigned rank)
{
	return LANE_RANKS + 2 * rank + 1;
}

/* Of so many ranks. */
static inline unsigned lane_count(unsigned ranks)
{
	return LANE_RANKS + 2 * ranks;
}

#endif
