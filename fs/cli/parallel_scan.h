/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pass over the elements of many tensors, on all cores.
 *
 * It is cut into units, each a range of the elements of one item. Where they
 * begin depends on the items alone, so that sums over units that are added up
 * in their order do not depend on the number of threads. A unit has 4 MiB, or
 * more when there would be over 65536 and some: what is kept for each of them
 * stays small.
 */
#ifndef FS_CLI_PARALLEL_SCAN_H
#define FS_CLI_PARALLEL_SCAN_H

#include "fs/cli/tool.h"

#include <stdatomic.h>

struct parallel_scan_item {
	uint64_t count;		/* of elements */
	uint64_t size;		/* of an element, bytes; a power of two, at
				 * most 16; of the larger one of two sides */
};

struct parallel_scan_range {
	uint64_t item;		/* index */
	uint64_t begin, end;	/* elements of it */
};

struct parallel_scan {
	const struct parallel_scan_item *items; /* borrowed */
	uint64_t count;			/* of items */
	uint64_t unit_size;		/* bytes */
	uint64_t *first;		/* owned; the first unit of each item,
					 * and behind the last the number of
					 * all units */
	uint64_t size;			/* of all, bytes */
};

/* 0 or -ENOMEM; finish it in any case. */
int parallel_scan_init(struct parallel_scan *sweep,
		       const struct parallel_scan_item *items, uint64_t count);
void parallel_scan_finish(struct parallel_scan *sweep);

/* What @unit covers. */
struct parallel_scan_range
parallel_scan_range(const struct parallel_scan *sweep, uint64_t unit);

/* The replies of all threads, for one or two sides, made when first needed. */
struct parallel_scan_replies {
	struct reply *replies[TOOL_THREADS_MAX][2];	/* owned */
};

/* NULL: no memory. Called for @thread by that thread alone. */
struct reply *parallel_scan_reply(struct parallel_scan_replies *replies,
				  unsigned thread, unsigned side);
void parallel_scan_replies_finish(struct parallel_scan_replies *replies);

/* What is read: entry @entry of the checkpoint at @path. Borrowed. */
struct parallel_scan_entry {
	const char *path;
	const struct checkpoint *checkpoint;
	uint64_t entry;
};

/*
 * @size bytes at @offset of @what, at most LIMIT_READ_SIZE and more than 0.
 * What @ret_data points to is valid until @reply is used again. 0 or -errno
 * (shard/source.h).
 */
int parallel_scan_read(struct reply *reply,
		       const struct parallel_scan_entry *what, uint64_t offset,
		       uint64_t size, const void **ret_data);

/* Does @error, of reading, say that the bytes are bad, and not that there is no
 * room here at the moment, or that the checkpoint is being replaced? */
bool parallel_scan_is_damage(int error);

/* Of an entry; all zeros at first. */
struct parallel_scan_failure {
	atomic_int error;		/* the first; 0: none */
	atomic_bool explained;		/* it was said why */
};

/*
 * Reading @what into @reply, which may be NULL, gave @error, which is damage.
 * Of the threads that meet a bad item one is told what is wrong: @tool says it
 * then. True for the first one that fails.
 */
bool parallel_scan_fail(struct parallel_scan_failure *failure,
			const struct tool *tool,
			const struct parallel_scan_entry *what,
			const struct reply *reply, int error);
/* When all threads are done: say it if there was a failure and nobody was told
 * what is wrong. */
void parallel_scan_end(const struct parallel_scan_failure *failure,
		       const struct tool *tool,
		       const struct parallel_scan_entry *what);

#endif
