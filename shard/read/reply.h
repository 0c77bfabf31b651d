/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a read fills, and what came of it. The memory is that of who asks: a
 * buffer that stays warm, what an answer to another rank is sent from, a
 * program's array. A reply is one thread's, used for one read after the other,
 * and keeps what memory reading needs besides.
 */
#ifndef SHARD_READ_REPLY_H
#define SHARD_READ_REPLY_H

#include "shard/base/fault.h"
#include "shard/base/limits.h"

#include <stdbool.h>
#include <stdint.h>

/* What `rank` is when nobody else is asked. */
enum { REPLY_LOCAL = -1 };

struct reply {
	/* Set by reply_begin. */
	unsigned char *data;	/* borrowed, or `buffer`, or lent */
	uint64_t size;		/* bytes of it that are to be filled; of a file
				 * that ends before, fewer when it was read */
	/* Set by who asks, before; stay as they are. */
	bool nowait;		/* -EAGAIN instead of blocking */
	bool takes_loans;	/* see reply_lend */
	/* Set by those who read. */
	uint64_t base;		/* where in `data` the tensor at hand starts:
				 * targets of pieces count from there */
	int rank;		/* whom the read waits for, or would: a rank, or
				 * REPLY_LOCAL */
	struct fault fault;	/* of an item found bad just now */
	const char *fault_file;	/* borrowed from the catalog */
	void (*release)(void *context, void *loan); /* NULL: nothing is lent */
	void *context, *loan;
	/* Owned, LIMIT_READ_SIZE bytes each, made when first needed. */
	unsigned char *buffer, *window, *elements;
};

/* NULL: out of memory. */
struct reply *reply_create(void);
/* Release it if need be, and free it. NULL is fine. */
void reply_destroy(struct reply *reply);
/* That of this thread, which is destroyed with it. NULL: out of memory. */
struct reply *reply_of_thread(void);

/* Start a read of @size bytes into @data, or, if that is NULL, of at most
 * LIMIT_READ_SIZE into the reply's own buffer. Releases the last one. 0 or
 * -ENOMEM. */
int reply_begin(struct reply *reply, void *data, uint64_t size);

/*
 * Let `data` be @data, of `size` bytes that are all filled, until the reply is
 * released; @release, which may be NULL, is called then. Only if it takes
 * loans.
 */
void reply_lend(struct reply *reply, const void *data,
		void (*release)(void *context, void *loan), void *context,
		void *loan);
/* Give back what was lent: `data` is void. */
void reply_release(struct reply *reply);

/* LIMIT_READ_SIZE bytes, for parts of a file, and for elements that are still
 * to be converted. NULL: out of memory. */
unsigned char *reply_window(struct reply *reply);
unsigned char *reply_elements(struct reply *reply);

#endif
