/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What other ranks want this one to keep, although its name may go: open files,
 * and checkpoints with their files. Each has a number that its rank has given
 * it. It ends when that rank says so, or is gone.
 */
#ifndef COMM_HELD_FOR_OTHERS_H
#define COMM_HELD_FOR_OTHERS_H

#include "shard/base/same_bytes.h"
#include "shard/checkpoint/mounted_hooks.h"

#include <stdatomic.h>
#include <sys/queue.h>

/* Of each rank at most; more are refused. */
enum { HOLDS_MAX = 4096 };

/* One of the two; const, but for what is said. */
struct hold {
	LIST_ENTRY(hold) link;		/* guarded by the lock of all */
	atomic_uint references;
	unsigned rank;			/* whose wish it is */
	uint64_t number;		/* by which that rank knows it */
	int fd;				/* owned; -1 */
	struct same_bytes bytes;		/* what it must stay */
	pthread_mutex_t lock;		/* of that */
	int folder;			/* borrowed; where its path starts */
	char *path;			/* owned */
	struct held_checkpoint held;	/* owned; its checkpoint is NULL: a
					 * file */
	struct array files;		/* owned: see checkpoint_hold_files */
	const struct checkpoint_hooks *hooks; /* borrowed */
};

struct holds {
	pthread_mutex_t lock;
	LIST_HEAD(, hold) all;		/* guarded by lock */
};

void holds_init(struct holds *holds);
/* All end. */
void holds_finish(struct holds *holds);

/* @made, which is allocated and filled but for what lists need, is taken over,
 * also on failure. 0, or -EMFILE. */
int holds_add(struct holds *holds, struct hold *made);
/* With one more reference, or NULL. */
struct hold *holds_get(struct holds *holds, unsigned rank, uint64_t number);
void hold_put(struct hold *hold);
/* The wish ends. Nothing if it is not known. May block. */
void holds_drop(struct holds *holds, unsigned rank, uint64_t number);
/* All of @rank's do, since it is gone. May block. */
void holds_drop_rank(struct holds *holds, unsigned rank);

#endif
