/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request of the kernel and its way to exactly one answer: on the thread
 * that received it, or on the pool, or without either when the client is
 * killed meanwhile.
 */
#ifndef FS_FUSE_REQUEST_H
#define FS_FUSE_REQUEST_H

#include "fs/fuse/ops.h"

#include "shard/read/source.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct fuse_req;

struct call {
	struct job job;		/* first: passed as this */
	/*
	 * Claims the call, replies and returns 0, or returns -EAGAIN without
	 * either, but only when @nowait; job.lane is what it waits for then.
	 */
	int (*run)(struct call *call, bool nowait);
	const struct ops *ops;
	struct fuse_req *request;
	uint64_t inode;
	uint64_t size, offset;
	uint64_t began_ns;	/* of a read */
	/* Of calls on what is open, one of them: */
	struct handle *handle;
	struct listing *listing;
	atomic_int state;	/* see call.c */
	struct watched watched;
	char name[];
};

/* A call to start. */
struct call call_make(struct fuse_req *request, uint64_t inode,
		      int (*run)(struct call *, bool));

/* Run a copy of @call, with @name unless NULL, here, or on the pool if it
 * would block. */
void call_start(const struct call *call, const char *name);

/* To be asked before the reply. False: the client was killed and has been
 * answered, the request is gone, and what would be the reply must be undone,
 * as when the kernel does not take one. */
bool call_claim(struct call *call);

#endif
