/* SPDX-License-Identifier: Apache-2.0 */
/* What is not a tensor, in two checkpoints. */
#ifndef FS_CLI_OBJECT_PAIR_H
#define FS_CLI_OBJECT_PAIR_H

#include "shard/checkpoint/checkpoint.h"

struct object_pair {
	/* Borrowed. */
	const struct checkpoint *checkpoints[2];
	const struct catalog_entry *entries[2];
	unsigned char *buffers[2];	/* of LIMIT_READ_SIZE bytes */
	/* Set by object_pair_compare. */
	bool differ;
	unsigned side;			/* the one that could not be read */
	const struct input *left;	/* while it runs */
};

/*
 * The two differ when their stored items do, decoded, unless both are plain
 * data and the same as JSON: releases of torch store one value in different
 * ways. 0 or -errno of reading a side.
 */
int object_pair_compare(struct object_pair *pair);

#endif
