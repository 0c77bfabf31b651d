/* SPDX-License-Identifier: Apache-2.0 */
/* What there is to say of a checkpoint as a whole. */
#ifndef FS_CLI_SUMMARY_H
#define FS_CLI_SUMMARY_H

#include "shard/base/array.h"
#include "shard/checkpoint/checkpoint.h"

/* The tensors below one key of the state dict. */
struct summary_key {
	const char *name;		/* borrowed from the catalog; NULL: all
					 * that lie below none */
	size_t name_size;		/* bytes */
	uint64_t tensors, size;		/* size: bytes */
};

/* What is wrong with a file. */
enum summary_file { SUMMARY_MISSING = 1, SUMMARY_CUT };

struct summary {
	const struct checkpoint *checkpoint;	/* borrowed */
	uint64_t tensors, objects;
	uint64_t size;			/* bytes of the tensors */
	struct array keys;		/* struct summary_key, sorted */
	uint64_t incomplete;		/* tensors that have holes */
	uint64_t missing, cut;		/* files that are not there, or end
					 * before an item of theirs does */
	unsigned char *file_flags;	/* owned; enum summary_file, of each */
	struct array orphans;		/* names, terminated: files of shards
					 * that the catalog knows nothing of */
	uint64_t orphan_count, orphan_size;	/* size: bytes */
	struct array leftovers;		/* likewise, of an interrupted save */
};

/*
 * @path is what the checkpoint was opened by. Totals are those of the entries
 * that match @glob, NULL: all; the rest is of the whole. 0 or -ENOMEM, or what
 * listing the folder gave; finish it in any case.
 */
int summary_init(struct summary *summary, const struct checkpoint *checkpoint,
		 const char *path, const char *glob);
void summary_finish(struct summary *summary);

/* Everything that the metadata promises seems to be there. */
bool summary_is_complete(const struct summary *summary);

/* Append lines for people, or one line {"summary":{...}}. 0 or -ENOMEM. */
int summary_text(const struct summary *summary, struct array *out);
int summary_json(const struct summary *summary, struct array *out);

#endif
