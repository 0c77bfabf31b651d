/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A place that holds bytes of shards, and the reply that it fills.
 *
 * errno vocabulary of reads:
 *	EIO		damaged, missing, or contradicts the metadata
 *	EOPNOTSUPP	stored in a form, or of a type, that is not read
 *	ESTALE		the store changed since the catalog was built
 *	E2BIG		beyond a limit of limits.h
 *	ENOMEM, EMFILE	no room here; may work later
 *	EAGAIN		would block, and the reply said not to; never seen by
 *			who reads a file
 *	ENOBUFS		more segments than a reply has room for; never seen
 *			by who reads a file
 */
#ifndef SHARD_READ_SOURCE_H
#define SHARD_READ_SOURCE_H

#include "shard/base/fault.h"
#include "shard/read/plan.h"

#include <sys/uio.h>

/*
 * What a read would wait for. What waits for the same thing shares a lane of
 * the pool that it waits in, so that a rank which does not answer stops nobody
 * else. Catalogs that other ranks ask for have one, since they may have to be
 * asked for in turn, and must not keep anybody from being answered.
 */
enum {
	LANE_STORE,	/* the files of the store, and whatever is made of them */
	LANE_FOLDERS,	/* peers, for what is in a folder */
	LANE_CATALOGS,	/* answers that may wait for other ranks */
	LANE_RANKS,	/* two of each rank: see peers_read_lane */
};

struct reply_segment {
	uint64_t target;	/* bytes from the start of the reply */
	const void *data;	/* borrowed until the reply is released */
	uint64_t size;		/* bytes */
};

struct reply_hold {
	void (*release)(void *context, uint64_t index);
	void *context;
	uint64_t index;
};

/*
 * The bytes of one range, in any mixture of borrowed memory and its own
 * buffer: what no segment covers is taken from the buffer. One thread's, used
 * for one read after the other: a reply is large.
 */
struct reply {
	uint64_t size;			/* bytes of the range */
	uint64_t base;			/* where in it the tensor at hand
					 * starts: targets count from there */
	bool copy;			/* borrow nothing, ever: our own code
					 * will touch the bytes */
	bool gather;			/* borrow nothing this time */
	bool nowait;			/* -EAGAIN instead of blocking */
	unsigned lane;			/* what the read waits for, or would:
					 * LANE_STORE, or as said by the
					 * source */
	unsigned char *buffer;		/* owned; reply_buffer makes it */
	unsigned char *scratch;		/* owned; reply_scratch makes it */
	struct reply *inner;		/* owned; reply_inner makes it */
	bool buffered;			/* the buffer holds something */
	struct fault fault;		/* of an item found bad just now */
	const char *fault_file;		/* borrowed from the catalog */
	unsigned segment_count, hold_count;
	struct reply_segment segments[LIMIT_SEGMENTS];
	struct reply_hold holds[LIMIT_SEGMENTS];
	struct iovec iov[LIMIT_SEGMENTS + 1]; /* see reply_finish */
	unsigned iov_count;
};

/* Bytes of a reply's buffer, and of its scratch: a read and two elements. */
#define REPLY_SIZE_MAX (LIMIT_READ_SIZE + 32)

/* NULL: out of memory. */
struct reply *reply_create(void);
/* Release it if need be, and free it. */
void reply_destroy(struct reply *reply);

/* Start a range of @size <= REPLY_SIZE_MAX bytes, with the base 0. Releases
 * the last one. */
void reply_begin(struct reply *reply, uint64_t size);

/* Let go of all that was borrowed; iov is void. */
void reply_release(struct reply *reply);

/* REPLY_SIZE_MAX bytes of memory, kept by the reply. NULL: out of memory. */
unsigned char *reply_buffer(struct reply *reply);
unsigned char *reply_scratch(struct reply *reply);
/* A reply for bytes that are still to be converted; it copies. */
struct reply *reply_inner(struct reply *reply);

/* Add @size bytes at @data for @target bytes behind the base, valid until the
 * reply is released. 0, or -ENOBUFS. */
int reply_borrow(struct reply *reply, uint64_t target, const void *data,
		 uint64_t size);

/* Call @release(@context, @index) when the reply is released. 0, or
 * -ENOBUFS with nothing done. */
int reply_hold(struct reply *reply,
	       void (*release)(void *context, uint64_t index), void *context,
	       uint64_t index);

/* Lay out bytes [@skip, @skip + @size) of the range in iov. 0, or -ENOBUFS,
 * or -EIO when neither a segment nor the buffer has some of them. */
int reply_finish(struct reply *reply, uint64_t skip, uint64_t size);

/*
 * `read` adds what the @count pieces of @plan hold to @reply, behind its
 * base, all of it or -errno; thread safe. It may fill reply->fault once for each bad item.
 */
struct source {
	int (*read)(struct source *source, const struct plan *plan,
		    const struct piece *pieces, unsigned count,
		    struct reply *reply);
	void (*destroy)(struct source *source);
};

#endif
