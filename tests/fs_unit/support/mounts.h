/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All of a daemon but the mount, once for each of some ranks, in one process:
 * a store, the tree, and a session that a kernel of our own talks to. Ranks
 * are joined by a network in memory (comm/support/ranks.h), and answer each
 * other with what the daemon answers. One set of a program.
 *
 * The clock by which folders are looked at again stands still unless
 * mounts_later moves it: what a look finds is decided by the test.
 */
#ifndef SUPPORT_MOUNTS_H
#define SUPPORT_MOUNTS_H

#include "support/folder.h"
#include "support/kernel.h"
#include "support/ranks.h"

#include <stdbool.h>
#include <stdint.h>

/* Ranks; and what may run at once in a lane of the pool of one. */
enum { MOUNTS_MAX = 4, MOUNTS_LANE_MAX = 4 };

struct mounts_options {
	unsigned count;		/* of ranks; 1: there are no others */
	bool direct;		/* they open each other's stores */
	unsigned deadline_ms;	/* 0: 10000 */
	const char *hf_root;	/* NULL: as usual */
	const char *hf_assets;	/* a folder; NULL: none */
};

/* The stores; made empty by mounts_prepare, and there until mounts_stop. */
extern struct test_folder mounts_stores[MOUNTS_MAX];
/* Their engines: to stop, pause and kill. Only with several ranks. */
extern struct ranks mounts_ranks;

void mounts_prepare(unsigned count);
/* The folder @path in the store of @rank, "" the store, made with all above
 * it; the caller closes its descriptor. */
struct test_folder mounts_folder(unsigned rank, const char *path);
/* The file @name in such a folder, made or overwritten. */
void mounts_write(unsigned rank, const char *path, const char *name,
		  const char *text);
/* Move the file @name of the folder @path from one store to another, where the
 * folder is made if need be. */
void mounts_move(unsigned from, unsigned to, const char *path,
		 const char *name);

void mounts_start(const struct mounts_options *options);
/* End all, and see that nothing is left: no descriptor, no answer. */
void mounts_stop(void);
/* The same without the end of the test: the daemon of @rank ends, as at its
 * unmount. */
void mounts_leave(unsigned rank);

/* The pool takes nothing any more, as when the daemon ends. */
void mounts_stop_pool(unsigned rank);

struct kernel *mounts_kernel(unsigned rank);
/* For stall.c: the pool of @rank, and the lane in which all but reads wait. */
struct pool *mounts_pool(unsigned rank, unsigned *ret_lane);
/* What this rank can ask the others. */
struct peers *mounts_peers(unsigned rank);
/* The number that stands for the metadata of the checkpoint at @path, as
 * @rank knows it: on all ranks the same. 0: there is none. */
uint64_t mounts_signature(unsigned rank, const char *path);
/* Lines with @text in the log of all daemons, since mounts_prepare. */
unsigned mounts_count_log(const char *text);

/* What @rank keeps for others. */
unsigned mounts_count_holds(unsigned rank);

/* Let so much time pass for all: a second is enough for the next look. */
void mounts_later(unsigned ms);

#endif
