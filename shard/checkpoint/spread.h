/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint whose files are in the stores of several ranks: which rank has
 * which, and how they are opened from here. A part of checkpoint.c.
 */
#ifndef SHARD_CHECKPOINT_SPREAD_H
#define SHARD_CHECKPOINT_SPREAD_H

#include "shard/checkpoint/metadata_files.h"
#include "shard/store/union.h"

struct spread {
	struct peers *peers;		/* borrowed; const, as is merger */
	struct merger *merger;
	char *path;			/* owned; of the folder in the union */
	uint64_t signature;		/* of the markers, on all ranks the
					 * same; const */
	int *folders;			/* owned: that folder in the store of
					 * each rank that can be opened; -1 */
	uint32_t *ranks;		/* owned: who is read from, of each
					 * file of the catalog */
	atomic_bool stale;		/* a rank has said so */
};

/* NULL: no memory. */
struct spread *spread_create(struct merger *merger, struct peers *peers,
			     const char *path);
/* NULL is fine. */
void spread_destroy(struct spread *spread);

/* The markers of the folder @path of the union, pinned, and the signature of
 * both. -ENOENT: there are none. */
int spread_markers(struct merger *merger, const char *path, bool fresh,
		   struct metadata_files *ret_list, uint64_t *ret_signature,
		   struct stat *ret_status);

/*
 * Open the marker @name, which must have @pin: -ESTALE otherwise. Of a rank
 * whose store is elsewhere it is fetched to memory: all of it, or, if not
 * @whole, what a safetensors header takes; the rest of the file is a hole.
 */
int spread_open(const struct spread *spread, const char *name,
		const struct pin *pin, bool whole, int *ret_fd,
		struct stat *ret_status);

/* The file @name of the folder: its pin where it is read, and whose it is;
 * @merged as in merger_find. -ENOENT, -errno. */
int spread_find(const struct spread *spread, const char *name,
		struct merged **merged, struct pin *ret_pin,
		unsigned *ret_owner, unsigned *ret_near);

/* A stored item, @size bytes at @offset of a file of @rank, as an unnamed
 * file in memory, which the caller closes. -ESTALE, -errno. */
int spread_fetch(const struct spread *spread, const char *name, unsigned rank,
		 const struct pin *pin, uint64_t offset, uint64_t size,
		 int *ret_fd);

#endif
