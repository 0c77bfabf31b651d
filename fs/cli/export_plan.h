/* SPDX-License-Identifier: Apache-2.0 */
/* Which tensors an export takes, as what, and into which of its files. */
#ifndef FS_CLI_EXPORT_PLAN_H
#define FS_CLI_EXPORT_PLAN_H

#include "fs/cli/tool.h"
#include "shard/read/virtual_file.h"

#include <limits.h>

enum export_form {
	EXPORT_NONE,
	EXPORT_SAFETENSORS,	/* one file */
	EXPORT_HF,		/* a folder of files, with an index if it takes
				 * several */
	EXPORT_NPY,		/* a folder, a file for each tensor */
};

struct export_options {
	const char *source, *path;	/* borrowed: SRC and DST */
	enum export_form form;
	const char *const *globs;	/* borrowed; any of them */
	unsigned glob_count;		/* 0: all */
	const char *top;		/* borrowed; NULL: all, names whole */
	enum dtype dtype;		/* DTYPE_UNKNOWN: as stored */
	uint64_t file_size_max;		/* bytes of tensors in a file of
					 * EXPORT_HF */
};

struct export_file {
	uint64_t first, count;		/* parts */
	struct virtual_file *content; /* owned; NULL: made when needed */
};

struct export_plan {
	const struct catalog *catalog;	/* borrowed */
	const struct checkpoint *checkpoint; /* borrowed */
	const struct export_options *options; /* borrowed */
	uint64_t matched;		/* tensors that are wanted */
	struct array parts; /* struct virtual_file_part, of EXPORT_HF in
					 * the order of their keys */
	struct array left_out;		/* likewise: those that the form of
					 * file cannot hold */
	struct array files;		/* struct export_file */
	uint64_t size;			/* bytes of the tensors, as written */
};

/* Choose the tensors: their number is `matched`. 0 or -ENOMEM, as the next;
 * finish the plan in any case. */
int export_plan_init(struct export_plan *plan,
		     const struct checkpoint *checkpoint,
		     const struct export_options *options);
/* Deal them out to files. Besides, -E2BIG: too many for a file's header. */
int export_plan_deal(struct export_plan *plan);
void export_plan_finish(struct export_plan *plan);

/* The name of a file, in the folder that it is in. */
void export_file_name(const struct export_plan *plan, uint64_t index,
		      char ret_name[NAME_MAX + 1]);
/* For struct writer. */
int export_plan_open(void *context, uint64_t index,
		     struct virtual_file **ret_content,
		     char ret_name[NAME_MAX + 1]);

const struct virtual_file_part *export_part(const struct array *parts,
					    uint64_t index);
uint64_t export_part_count(const struct array *parts);
uint64_t export_file_count(const struct export_plan *plan);

/* The key of a part, not terminated. */
const char *export_key(const struct export_plan *plan,
		       const struct virtual_file_part *part, size_t *ret_size);
/* The type of its elements in the file, and their bytes. */
enum dtype export_type(const struct export_plan *plan,
		       const struct virtual_file_part *part);
uint64_t export_size(const struct export_plan *plan,
		     const struct virtual_file_part *part);

/* The text of model.safetensors.index.json. 0 or -ENOMEM. */
int export_index(const struct export_plan *plan, struct array *out);

#endif
