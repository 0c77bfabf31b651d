/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The union: what all ranks have in one folder, as one. A path that several
 * ranks have is one file if size and content agree; else the lowest rank
 * wins, which is said. Of a rank that does not answer, what it had at the
 * last look counts, or at that of another rank.
 */
#ifndef SHARD_STORE_UNION_FOLDER_H
#define SHARD_STORE_UNION_FOLDER_H

#include "shard/store/comparer.h"
#include "shard/store/peers.h"

/* Immutable once it is made. Its entries are known, and have replicas if they
 * are files: the owner's, and all that are equal to it. */
struct union_folder {
	struct store_list list;		/* first: passed as this */
	char *path;			/* owned */
	unsigned ranks;
	bool found;			/* some rank has such a folder */
	struct array *lists;		/* owned: of each rank, as it came */
	bool *known;			/* owned: what the rank has is known */
	struct replica *replicas;	/* owned: those of the entries */
};

/* Ask all ranks for the folder @path; @before, which may be NULL, is what it
 * was. May block. 0 also for one that nobody has; -ENOMEM, -ESHUTDOWN. */
int union_folder_create(struct peers *peers, struct comparer *comparer,
			const char *path, const struct union_folder *before,
			struct union_folder **ret_folder);
/* The same of a folder that is open, but has lost its name: @fds, of each rank,
 * or -1, say what it is. Nobody else is asked. */
int union_folder_create_open(struct peers *peers, struct comparer *comparer,
			     const char *path, const int *fds,
			     struct union_folder **ret_folder);

static inline struct union_folder *union_folder_of(struct store_list *list)
{
	return (struct union_folder *)list;
}

#endif
