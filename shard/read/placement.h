/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the files of a catalog are: beside the catalog, which is the same on
 * all ranks. Immutable once it is made.
 */
#ifndef SHARD_READ_PLACEMENT_H
#define SHARD_READ_PLACEMENT_H

#include "shard/base/pin.h"

#include <stdbool.h>
#include <stdint.h>

/* One copy of a file. Those of a file have equal content. */
struct replica {
	uint32_t rank;		/* of the daemon whose store has it */
	struct pin pin;		/* of it there */
};

struct placed_file {
	uint64_t first;		/* of its replicas: index */
	uint32_t count;		/* of them; 0: nobody has such a file */
	int error;		/* -errno: why there is none */
	bool has_own;		/* behind them stands this rank's, which is not
				 * known to be equal: for who knows that it is */
};

struct placement {
	unsigned ranks;
	int *folders;		/* owned: of each rank, the checkpoint's folder
				 * if it can be opened here; -1 */
	uint64_t file_count;
	struct placed_file *files;	/* owned; as in the catalog */
	uint32_t *owners;	/* owned; likewise: the rank whose copy
				 * counts */
	struct replica *replicas; /* owned; of a file, the nearest first */
};

/* Of @file_count files that nobody has, in no folder that can be opened; there
 * is room for @replica_count replicas. NULL: no memory. */
struct placement *placement_create(unsigned ranks, uint64_t file_count,
				   uint64_t replica_count);
/* NULL is fine. */
void placement_destroy(struct placement *placement);

/* The replicas of file @index: @count of the placed file. */
const struct replica *placement_replicas(const struct placement *placement,
					 uint64_t index);
/* The nearest one's pin; with the inode 0 when there is none. */
const struct pin *placement_pin(const struct placement *placement,
				uint64_t index);
/* The nearest one in a folder that is open here; NULL: there is none. */
const struct replica *placement_local(const struct placement *placement,
				      uint64_t index);
/* Likewise, or else this rank's own, equal or not: for ranks that know. */
const struct replica *placement_here(const struct placement *placement,
				     uint64_t index);

#endif
