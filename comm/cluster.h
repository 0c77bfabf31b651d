/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All ranks of a job, as struct peers: started in the background, since MPI
 * waits until all of them are there. Until then its calls wait.
 */
#ifndef COMM_CLUSTER_H
#define COMM_CLUSTER_H

#include "comm/engine.h"
#include "comm/handshake.h"
#include "comm/supervisor.h"

struct cluster;

struct cluster_options {
	unsigned rank, count;		/* as mpirun says */
	struct handshake_options mine; /* what this rank says of itself; its
					 * store_fd is used until the end */
	unsigned deadline_ms;
	bool force_mpi;			/* ask also ranks of this host */
	struct supervisor *watch; /* borrowed; NULL: nobody watches */
	/* As that of the engine, with a context of its own: server_submit. */
	void (*serve)(void *server, struct engine_request *request);
	void *server;
	/* As that of the engine. */
	void (*changed)(void *context, unsigned rank, enum peer_state state);
	/* Once: all have met (NULL), or why they have not; @common: all say
	 * the same. */
	void (*started)(void *context, const char *trouble, bool common);
	void *context;
};

/* Nothing happens yet. 0 or -errno. */
int cluster_create(const struct cluster_options *options,
		   struct cluster **ret_cluster);

/* Start the thread, from which everything is called. 0 or -errno. */
int cluster_start(struct cluster *cluster);

/* Say goodbye and end the thread; all calls fail from now on. False: MPI did
 * not end in time, and the process should end without it. */
bool cluster_stop(struct cluster *cluster);
/* After that, when nobody calls any more. NULL is fine. */
void cluster_destroy(struct cluster *cluster);

struct peers *cluster_peers(struct cluster *cluster);
/* Zero before all have met. */
void cluster_count(struct cluster *cluster, struct engine_counters *ret);

#endif
