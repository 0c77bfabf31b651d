/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that say of their stores what a test tells them to, and the union of
 * these: one of a program. */
#ifndef SUPPORT_UNION_FAKES_H
#define SUPPORT_UNION_FAKES_H

#include "shard/store/union_folders.h"

#include <stdatomic.h>
#include <sys/stat.h>

enum { RANKS = 4, FILES = 8, SAID_MAX = 4, REAL = 4711 };

/* What a rank has in each folder. */
struct fake_file {
	const char *name, *target;
	mode_t mode;
	uint64_t size, inode, content;	/* content: what its hash is */
};

struct fake_rank {
	struct fake_file files[FILES];
	unsigned count;
	int error;		/* of lists */
	int digest_error;
	bool remembers;		/* what others have */
	atomic_uint lists, digests, timeout_ms, recalls;
};

extern struct fake_rank fakes[RANKS];
extern struct peers peers;		/* of rank 3 */
extern int stores[RANKS];
extern struct union_folders *folders;
extern struct union_folder *found;		/* what look found; put at the end */
extern char said[SAID_MAX][512];
extern unsigned said_count;
extern uint64_t real_hash[2];		/* of files whose content is REAL */

/* For struct comparer and who makes one; @context is &peers. */
void say(void *context, const char *line);

/* NULL is fine. */
void put(struct union_folder *folder);

/* For each test. */
int union_setup(void **state);
int union_teardown(void **state);

/* One file more. */
void has(unsigned rank, const char *name, mode_t mode, uint64_t size,
	 uint64_t content);
/* Look at "folder" again, at once. */
void look(void);
/* The entry @name is that of @rank, and read at @near. */
const struct store_entry *check(const char *name, unsigned rank,
				 unsigned near);

#endif
