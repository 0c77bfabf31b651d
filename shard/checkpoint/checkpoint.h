/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One checkpoint in one folder of a store: its catalog, where the files are that
 * the catalog refers to, and the source that reads them. Immutable; thread safe
 * but for open and close.
 */
#ifndef SHARD_CHECKPOINT_CHECKPOINT_H
#define SHARD_CHECKPOINT_CHECKPOINT_H

#include "shard/catalog/catalog_json.h"
#include "shard/checkpoint/checkpoint_report.h"
#include "shard/read/source_decoded.h"

struct checkpoint {
	struct store_folder *folder;	/* owned */
	struct catalog *catalog;	/* one reference */
	struct placement *placement;	/* owned */
	struct source_file *files;	/* owned */
	struct source_decoded *decoded;	/* owned; NULL: nothing is behind a
					 * stream extension */
	struct source *source;		/* reads also what is elsewhere; owned,
					 * unless it is that of the two above */
	struct metadata_files markers;	/* owned */
	uint64_t signature;		/* of the markers; const */
	char *file;			/* owned; as in the options */
	atomic_bool stale;		/* a read met a file that is not what
					 * its pin says */
};

struct checkpoint_options {
	struct decoded_cache *cache;	/* borrowed; outlives the checkpoint */
	const char *file;		/* the one safetensors file that counts;
					 * NULL: what is in the folder */
	const struct checkpoint *before; /* borrowed; what was there, or NULL:
					 * with the same markers it has the same
					 * catalog, where that is made by others
					 * as well */
};

/*
 * Open the checkpoint of @markers, which metadata_files_read has found in
 * @folder; both are taken over, also on failure. Where others make catalogs, it
 * comes from them, and the notes stay there. 0; -ENOENT when a marker is gone;
 * -ESTALE when one changed while it was read; or -errno with the fault in
 * @report, but without a file in it when it is others who know. The caller
 * closes it.
 */
int checkpoint_open(struct store_folder *folder, struct metadata_files *markers,
		    const struct checkpoint_options *options,
		    struct checkpoint **ret_checkpoint,
		    struct checkpoint_report *report);
/* The same, found first. -ENOENT: there is no marker. */
int checkpoint_open_folder(struct store_folder *folder,
			   const struct checkpoint_options *options,
			   struct checkpoint **ret_checkpoint,
			   struct checkpoint_report *report);
/* NULL is fine. */
void checkpoint_close(struct checkpoint *checkpoint);

/* Where its bytes come from; borrowed. And where those do that are in files of
 * this machine. */
struct source *checkpoint_source(const struct checkpoint *checkpoint);
struct source *checkpoint_local_source(const struct checkpoint *checkpoint);

/* A read met a file that is not what its pin says. */
bool checkpoint_is_stale(const struct checkpoint *checkpoint);

/* The pin of a file of the catalog, where it is read; inode 0: nobody has
 * it. */
const struct pin *checkpoint_pin(const struct checkpoint *checkpoint,
				 uint64_t file);
/* The catalog, and whose its files are: borrowed. */
struct owned_catalog checkpoint_owned(const struct checkpoint *checkpoint);
/* That of the first marker that was of use. */
const struct pin *checkpoint_marker_pin(const struct checkpoint *checkpoint);

/* The whole stored item of a shard, decoded, through @use: as
 * source_decoded_item. */
int checkpoint_item(const struct checkpoint *checkpoint,
		    const struct catalog_shard *shard,
		    int (*use)(void *context, const struct input *input),
		    void *context);

/*
 * Keep all files that rank @rank has and that are here, so that they are read
 * whatever becomes of their names; as far as it can be done. Their numbers are
 * appended to @out, for checkpoint_release_files. May block.
 */
void checkpoint_hold_files(const struct checkpoint *checkpoint, unsigned rank,
			   struct array *out);
void checkpoint_release_files(const struct checkpoint *checkpoint,
			      const struct array *held);
/* Close the files that nobody reads or keeps. May block. */
void checkpoint_close_idle(const struct checkpoint *checkpoint);

/* Is all of @entry there and of a form that is read, as far as is known
 * without reading its items? */
bool checkpoint_has(const struct checkpoint *checkpoint,
		    const struct catalog_entry *entry);

/* Has one of its files, that is open or elsewhere, other bytes now? Then it is
 * stale. */
void checkpoint_find_changes(struct checkpoint *checkpoint);

/*
 * Does the store still hold what the catalog was made from? @folder is what is
 * there now, and @markers what was found in it. Looks at the markers and at up
 * to 4096 files from @cursor on, which it moves.
 */
bool checkpoint_is_current(const struct checkpoint *checkpoint,
			   struct store_folder *folder,
			   const struct metadata_files *markers,
			   uint64_t *cursor);

#endif
