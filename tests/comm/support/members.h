/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clusters of several ranks in one process: one set of a program, which lies
 * beside the ckptfs_mpi.so of fake_mpi.h. Each gets a transport of a network
 * in memory. Waiting fails the test after 20 seconds.
 */
#ifndef COMM_SUPPORT_MEMBERS_H
#define COMM_SUPPORT_MEMBERS_H

#include "support/fake_net.h"
#include "support/folder.h"

#include "comm/cluster.h"

enum { MEMBERS = 3 };

/* One rank, and what its cluster has told. */
struct member {
	struct cluster *cluster;
	struct peers *peers;
	struct test_folder store;
	bool running;			/* it was started */
	/* Guarded by a lock of all: */
	unsigned started;		/* times that it has said how that
					 * went */
	char *trouble;			/* owned; NULL: none */
	bool common;
	bool busy;			/* it goes on saying it */
	unsigned served;		/* requests of others */
	bool keeps;			/* requests are not answered */
	struct engine_request *kept;	/* owned; the last of these */
	enum peer_state states[MEMBERS]; /* that others have changed to */
};

extern struct member members[MEMBERS];
extern struct fake_net *members_net;

/* For each test: stores, and nobody yet; and the end of all there are. */
int members_setup(void **state);
int members_teardown(void **state);

/* A cluster that answers each request with -EXDEV; its store is also its mount
 * point. */
void members_create(unsigned rank, const char *settings, bool force_mpi);
/* Start it, and wait until it has MPI, which takes it for @mpi_rank. */
void members_start_as(unsigned rank, unsigned mpi_rank);
/* Make one like all others and start it. */
void members_start(unsigned rank);
/* MPI cannot be started from now on; 0: it can. */
void members_fail_mpi(int error);
/* Stop one that has met the others; it ends in time. */
void members_stop(unsigned rank);

/* While @busy, @rank does not go on once it has said how its start went. */
void members_keep_busy(unsigned rank, bool busy);
void members_await_started(unsigned rank);
/* Until @rank keeps a request. */
void members_await_request(unsigned rank);
/* Until @rank was told that @other is in @state. */
void members_await_state(unsigned rank, unsigned other, enum peer_state state);
/* So far. */
unsigned members_count_started(unsigned rank);
unsigned members_count_served(unsigned rank);

/* CLOCK_MONOTONIC. */
uint64_t members_now_ms(void);

#endif
