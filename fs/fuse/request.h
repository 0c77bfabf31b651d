/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request of the kernel and its way to exactly one answer: on the thread
 * that received it, or on the pool, or without either when the client is
 * killed meanwhile.
 */
#ifndef FS_FUSE_REQUEST_H
#define FS_FUSE_REQUEST_H

#include "fs/tree/tree.h"
#include "shard/base/pool.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct fuse_req;
struct request;

/* What those of a session share; const while there is one. */
struct requests {
	struct namespace *ns;		/* borrowed */
	struct pool *pool;		/* borrowed */
	/* Reads past the page cache may be killed, too; in exchange a large
	 * one is asked for piece by piece, and not all pieces at once. */
	bool interruptible;
	unsigned lane;			/* where all but reads wait */
	void (*ready)(void *context);	/* the kernel has said hello */
	void *ready_context;
};

/* What a request asks for. Called in this order, on one thread. */
struct operation {
	/* Find the answer, or do what is asked. 0; -EAGAIN only if @nowait,
	 * and then request->lane says what it waits for; -errno. */
	int (*run)(struct request *request, bool nowait);
	/* Give it to the kernel. 0, or it was not taken. */
	int (*answer)(struct request *request);
	/* Nobody has it: let go of it. NULL: there is nothing to. */
	void (*undo)(struct request *request);
	/* In any case, whatever run returned. NULL likewise. */
	void (*finish)(struct request *request);
	/* Something is changed by it: it is never tried here, where it might
	 * get half way, and never given up. */
	bool mutates;
};

struct request {
	struct job job;		/* first: passed as this */
	const struct operation *operation;
	const struct requests *all;
	struct fuse_req *fuse;
	uint64_t number;	/* of the inode it is about */
	const char *name;	/* below that; NULL */
	uint64_t size, offset;
	int flags;
	uint64_t began_ns;	/* of a read */
	unsigned lane;
	/* What is open, of requests on that, one of them; borrowed: */
	struct open_file *file;
	struct open_folder *folder;
	/* What run has found: */
	union {
		struct attr attr;
		struct open_file *opened;
		struct open_folder *opened_folder;
		struct array bytes;
		struct reply *reply;
		struct {
			struct array entries;
			uint64_t last, lookups;	/* numbers that the kernel is
						 * told of: the last one, and
						 * how many */
		} list;
	} found;
	/* Of its way, see request.c: */
	atomic_int state;
	pid_t tid;		/* the client */
	char room[];		/* for the name */
};

/* Start a copy of @request, here, or on the pool if it would block. */
void request_start(const struct request *request);

#endif
