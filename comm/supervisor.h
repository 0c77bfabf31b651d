/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watcher: the process that mpirun has started, whose child the daemon is.
 *
 * When the daemon dies, by whatever signal, the watcher detaches its mount,
 * so that no mount point is left in "Transport endpoint is not connected". It
 * then stays until all other ranks have ended, since mpirun ends the whole
 * job as soon as one of its processes ends without MPI_Finalize. When mpirun
 * dies, or the watcher is told to end, it tells the daemon to. When the
 * watcher itself is killed, the daemon gets a SIGTERM.
 */
#ifndef COMM_SUPERVISOR_H
#define COMM_SUPERVISOR_H

#include "comm/doorbell.h"

#include <sys/types.h>

/* What the daemon tells its watcher, in memory that both have. */
struct supervisor;

/*
 * Fork, before there are threads. In the child, the daemon: 0 with
 * @ret_supervisor. In the supervisor: 1 with its exit status, when all is over.
 * -errno.
 * @point is the mount point; @argv, which is overwritten with what the watcher
 * is called, and @argc are those of main.
 */
int supervisor_fork(const char *point, int argc, char **argv,
		    struct supervisor **ret_supervisor, int *ret_status);

/* The mount is there, at the real path @path, with this device; 0: it is not
 * known. */
void supervisor_mounted(struct supervisor *watch, const char *path,
			dev_t device);
/* All have met: these are the bells of the job, of which @rank is ours. */
void supervisor_started(struct supervisor *watch, uint64_t nonce, unsigned rank,
			const struct doorbell_address *addresses,
			unsigned count);
/* @rank was heard from at this address. Thread safe. */
void supervisor_known(struct supervisor *watch, unsigned rank, uint32_t ip);

#endif
