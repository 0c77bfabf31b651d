/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that make a folder a checkpoint, and that its catalog is made
 * from, its markers:
 *
 *	.metadata		DCP's, alone
 *	__N.metadata		else those of ranks, in their order
 *	*.safetensors		else these, and an index; and those of the
 *				folder sharded/, into which DCP writes what it
 *				then consolidates
 */
#ifndef SHARD_CHECKPOINT_METADATA_FILES_H
#define SHARD_CHECKPOINT_METADATA_FILES_H

#include "shard/store/store.h"

enum metadata_kind {
	METADATA_DCP,
	METADATA_DCP_LOCAL,
	METADATA_SAFETENSORS,
};

struct metadata_file {
	char *name;		/* owned; relative to the folder */
	struct replica owner;	/* whose it is, and its pin; inode 0: not looked
				 * at, or not to be had */
	bool unused;		/* nothing in the catalog is from it */
};

struct metadata_files {
	enum metadata_kind kind;
	unsigned count;
	struct metadata_file *files;	/* owned. Safetensors: sorted by name,
					 * the index behind them */
	bool has_index;
};

/* Bytes of the longest name of one, its end included. */
#define METADATA_NAME_MAX (sizeof("sharded/") + 255)

/*
 * List those of @folder; @file: the one safetensors file that counts, or NULL.
 * 0, -ENOENT when there are none, -E2BIG when they are too many, -ENOMEM, or
 * what reading the folder gave.
 */
int metadata_files_read(struct store_folder *folder, const char *file,
			struct metadata_files *ret);
void metadata_files_finish(struct metadata_files *files);

/* How many are safetensors files. */
unsigned metadata_files_safetensors(const struct metadata_files *files);
/* That of them; NULL: there is none of that name. */
const struct metadata_file *
metadata_files_find(const struct metadata_files *files, const char *name);
/* Is it one of the folder sharded/? */
bool metadata_file_is_inner(const struct metadata_file *file);

/* Do the two name the same? */
bool metadata_files_equal(const struct metadata_files *a,
			  const struct metadata_files *b);

/* Find out owners and pins where they are not known. */
void metadata_files_pin(struct metadata_files *files,
			struct store_folder *folder);
/* A number, not 0, that changes with any of them: equal on all ranks. They are
 * pinned. */
uint64_t metadata_files_signature(const struct metadata_files *files);

#endif
