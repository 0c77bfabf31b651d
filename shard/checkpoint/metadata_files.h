/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that make a folder a checkpoint, and that its catalog is made
 * from:
 *
 *	.metadata		DCP's, alone
 *	__N.metadata		else those of ranks, in their order
 *	*.safetensors		else these, and an index; and those of the
 *				folder sharded/, into which DCP writes what it
 *				then consolidates
 */
#ifndef SHARD_CHECKPOINT_METADATA_FILES_H
#define SHARD_CHECKPOINT_METADATA_FILES_H

#include "shard/base/array.h"
#include "shard/base/io.h"

enum marker_kind {
	MARKER_DCP,
	MARKER_DCP_LOCAL,
	MARKER_SAFETENSORS,
};

struct marker {
	char *name;		/* owned; relative to the folder */
	struct pin pin;		/* of it; inode 0: not looked at */
};

struct marker_list {
	enum marker_kind kind;
	unsigned count;
	struct marker *markers;	/* owned. Safetensors: sorted by name, the
				 * index behind them */
	bool has_index;
};

/* Bytes of the longest name of a marker, its end included. */
#define MARKER_NAME_MAX (sizeof("sharded/") + 255)

/*
 * List the markers in @folder; @file: the one safetensors file that counts, or
 * NULL. 0, -ENOENT when there are none, -E2BIG when they are too many,
 * -ENOMEM, or what reading the folder gave.
 */
int marker_list_read(int folder, const char *file, struct marker_list *ret);
/* The same from merged folders: @inner is that of sharded/, or NULL. */
struct merged;
int marker_list_merged(const struct merged *merged, const struct merged *inner,
		       struct marker_list *ret);
void marker_list_finish(struct marker_list *list);

/* Markers that are safetensors files. */
unsigned marker_list_files(const struct marker_list *list);
/* That marker; NULL: there is none of that name. */
const struct marker *marker_list_find(const struct marker_list *list,
				      const char *name);
/* Is it one of the folder sharded/? */
bool marker_is_inner(const struct marker *marker);

/* Do the two name the same? */
bool marker_list_equal(const struct marker_list *a,
		       const struct marker_list *b);

/* A number that changes with the markers in @folder; 0: there is none. */
uint64_t marker_signature(int folder);

#endif
