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

enum metadata_kind {
	METADATA_DCP,
	METADATA_DCP_LOCAL,
	METADATA_SAFETENSORS,
};

struct metadata_file {
	char *name;		/* owned; relative to the folder */
	struct pin pin;		/* of it; inode 0: not looked at */
};

struct metadata_files {
	enum metadata_kind kind;
	unsigned count;
	struct metadata_file *markers; /* owned. Safetensors: sorted by name, the
				 * index behind them */
	bool has_index;
};

/* Bytes of the longest name of a marker, its end included. */
#define METADATA_NAME_MAX (sizeof("sharded/") + 255)

/*
 * List the markers in @folder; @file: the one safetensors file that counts, or
 * NULL. 0, -ENOENT when there are none, -E2BIG when they are too many,
 * -ENOMEM, or what reading the folder gave.
 */
int metadata_files_read(int folder, const char *file,
			struct metadata_files *ret);
/* The same from merged folders: @inner is that of sharded/, or NULL. */
struct merged;
int metadata_files_merged(const struct merged *merged,
			  const struct merged *inner,
			  struct metadata_files *ret);
void metadata_files_finish(struct metadata_files *list);

/* Markers that are safetensors files. */
unsigned metadata_files_files(const struct metadata_files *list);
/* That marker; NULL: there is none of that name. */
const struct metadata_file *
metadata_files_find(const struct metadata_files *list, const char *name);
/* Is it one of the folder sharded/? */
bool metadata_file_is_inner(const struct metadata_file *marker);

/* Do the two name the same? */
bool metadata_files_equal(const struct metadata_files *a,
			  const struct metadata_files *b);

/* A number that changes with the markers in @folder; 0: there is none. */
uint64_t metadata_files_signature(int folder);

#endif
