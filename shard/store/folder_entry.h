/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file or folder of a store, as one rank tells another of it: this struct,
 * then its name, then the target if it is a link, both without an end. A list
 * of them has no gaps, so they are unaligned.
 */
#ifndef SHARD_STORE_FOLDER_ENTRY_H
#define SHARD_STORE_FOLDER_ENTRY_H

#include "shard/base/array.h"
#include "shard/base/io.h"

struct stored_entry {
	struct pin pin;
	uint16_t name_size, target_size;	/* bytes */
	uint32_t reserved;			/* 0 */
};

_Static_assert(sizeof(struct stored_entry) == sizeof(struct pin) + 2 * 4,
	       "it travels");

enum { STORED_ENTRY_MAX = sizeof(struct stored_entry) + 255 + 4096 };

struct stored {
	struct stored_entry entry;
	const char *name, *target;	/* borrowed from the list */
};

/* Append one. 0 or -ENOMEM. */
int stored_entry_append(struct array *out, const char *name,
			const struct stat *status, const char *target,
			size_t target_size);

/* The entry at @position of @size bytes, which is checked: its name is a
 * name, and only a link has a target. Moves @position on. False at the end, or
 * when what follows is no entry: then @position is not @size. */
bool stored_entry_next(const void *data, size_t size, size_t *position,
		       struct stored *ret_stored);

#endif
