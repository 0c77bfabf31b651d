/* SPDX-License-Identifier: Apache-2.0 */
/* The command stat: what it found, and how that is printed. */
#ifndef FS_CLI_STAT_RUN_H
#define FS_CLI_STAT_RUN_H

#include "fs/cli/parallel_scan.h"

#include "shard/values/statistics.h"

struct stat_tensor {
	uint64_t entry;			/* index in the catalog; const */
	struct parallel_scan_failure failure; /* of reading it */
};

struct stat_run {
	const char *path, *glob;
	bool json;
	const struct checkpoint *checkpoint;
	const struct catalog *catalog;
	struct stat_tensor *tensors;	/* owned */
	struct parallel_scan_item *items; /* owned; of each tensor */
	uint64_t count;			/* of tensors */
	struct parallel_scan sweep;
	struct statistics *parts;	/* owned; of each unit */
	struct parallel_scan_replies replies;
};

/* Tensors that could not be read. */
uint64_t stat_count_unreadable(const struct stat_run *run);

/* Lines for people, or JSON. 0 or -ENOMEM. */
int stat_print(const struct stat_run *run);

#endif
