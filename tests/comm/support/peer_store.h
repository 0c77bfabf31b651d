/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store whose files are those of three ranks: all are in one folder, but
 * each rank opens only its own, and rank 0, which reads, asks the others for
 * the rest. One of a program.
 */
#ifndef SUPPORT_PEER_STORE_H
#define SUPPORT_PEER_STORE_H

#include "support/handlers.h"
#include "support/test_store.h"

#include "comm/source_peer.h"

#include <stdatomic.h>

enum { RANKS = 3 };

extern struct dice dice;		/* made by main */
extern struct ranks ranks;
extern struct test_store store;
extern struct source *source;		/* of rank 0 */
extern struct placement *placed;	/* its files, as rank 0 knows them */
extern atomic_bool stale;
extern atomic_bool own_is_gone;		/* file 0 of rank 0's is another one */

/* What the others do. */
extern atomic_bool knows[RANKS];	/* the catalog */
extern atomic_bool learns;		/* when it is told to */
extern atomic_uint lessons;
extern atomic_uint asked[RANKS];	/* for pieces */
extern atomic_int read_error, learn_error;
extern atomic_uint cut;			/* bytes missing from answers */
extern atomic_bool spoils;		/* what a later part overlaps */

/* For each test. */
int peer_store_start(void **state);
int peer_store_stop(void **state);

/* A store for @world, and a source of rank 0; each file belongs to @owner, or
 * to any rank if it is -1. */
void open_store(const struct world *world, bool plain, int owner);
void close_store(void);
/* The first replica of a file; and one more of all, at @rank. */
struct replica *first_of(uint64_t file);
void also_at(unsigned rank);

/* Bytes of @selection, NULL: of the whole. 0 or -errno. */
int read_into(struct reply *reply, const struct box *selection,
	      uint64_t offset, uint64_t size);
/* Of the whole, into the store's reply. */
int read_range(uint64_t offset, uint64_t size);
/* Are these the bytes of the world? */
bool is_right(struct reply *reply, const struct box *selection,
	      uint64_t offset, uint64_t size);

/* Rows of 4 KiB, @rows to a part. */
struct world rows_world(unsigned parts, unsigned rows);

#endif
