/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One checkpoint in one folder: its catalog, the pins of all files that the
 * catalog was made from and refers to, and the source that reads them.
 * Immutable; thread safe but for open and close.
 */
#ifndef SHARD_CHECKPOINT_CHECKPOINT_H
#define SHARD_CHECKPOINT_CHECKPOINT_H

#include "shard/base/fault.h"
#include "shard/base/io.h"
#include "shard/base/notes.h"
#include "shard/catalog/catalog.h"
#include "shard/checkpoint/metadata_files.h"
#include "shard/checkpoint/spread.h"
#include "shard/read/source_decoded.h"

struct checkpoint {
	int folder;			/* owned descriptor; -1: spread */
	struct spread *spread;		/* owned; NULL: all is in `folder` */
	struct source *remote;		/* owned; of a spread one: also reads
					 * from other ranks */
	struct catalog *catalog;	/* owned */
	struct pin *pins;		/* owned; of the catalog's files;
					 * inode 0: missing */
	struct source_file *files;	/* owned */
	struct source_decoded *decoded;	/* owned; NULL: nothing is behind a
					 * stream extension */
	struct metadata_files markers; /* owned */
	char *file;			/* owned; as in the options */
	struct stat status;		/* of the first marker that was read */
};

/* What was found while opening: printed by who has the log. */
struct checkpoint_report {
	struct notes notes;
	struct fault fault;
	char file[METADATA_NAME_MAX]; /* the marker that the fault is in */
};

struct checkpoint_options {
	struct decoded_cache *cache;	/* borrowed; outlives the checkpoint */
	const char *file;		/* the one safetensors file that counts;
					 * NULL: what is in the folder */
	const struct checkpoint *before; /* borrowed; what was there, or NULL:
				 * a spread one with the same markers has the
				 * same catalog */
};

/* A number that changes with the markers in @folder; 0: there is none. */
uint64_t checkpoint_signature(int folder);

/*
 * Open the checkpoint in @folder, which stays the caller's. 0; -ENOENT when
 * there is no marker; -ESTALE when it changed while it was read; or -errno
 * with the fault in @report. The caller closes it.
 */
int checkpoint_open(int folder, const struct checkpoint_options *options,
		    struct checkpoint **ret_checkpoint,
		    struct checkpoint_report *report);
/*
 * Open the checkpoint at @path of the union of all ranks' stores: the builder
 * reads the markers, the others have the catalog from the ranks above. As
 * checkpoint_open; the notes are the builder's. -EPROTO and -EIO also when
 * the catalog could not be had.
 */
int checkpoint_open_spread(struct merger *merger, struct peers *peers,
			   const char *path,
			   const struct checkpoint_options *options,
			   struct checkpoint **ret_checkpoint,
			   struct checkpoint_report *report);
/* A number that changes with the markers at @path of the union, equal on all
 * ranks; 0: there is none. @fresh: look now. */
uint64_t checkpoint_spread_signature(struct merger *merger, const char *path,
				     bool fresh);

/* Where bytes come from that are in files of this machine; borrowed. */
struct source *checkpoint_local_source(const struct checkpoint *checkpoint);

/* NULL is fine. */
void checkpoint_close(struct checkpoint *checkpoint);

/* Where its bytes come from; borrowed. */
struct source *checkpoint_source(const struct checkpoint *checkpoint);
/* A read met a file that is not what its pin says. */
bool checkpoint_is_stale(const struct checkpoint *checkpoint);
/* The whole stored item of a shard, decoded, through @use: as
 * source_decoded_item. */
int checkpoint_item(const struct checkpoint *checkpoint,
		    const struct catalog_shard *shard,
		    int (*use)(void *context, const struct input *input),
		    void *context);

/* Is all of @entry there and of a form that is read, as far as is known
 * without reading its items? */
bool checkpoint_has(const struct checkpoint *checkpoint,
		    const struct catalog_entry *entry);

/*
 * Does the store still hold what the catalog was made from? Looks at the
 * markers and at up to 4096 files from @cursor on, which it moves.
 */
bool checkpoint_is_current(const struct checkpoint *checkpoint,
			   uint64_t *cursor);

#endif
