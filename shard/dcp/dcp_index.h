/* SPDX-License-Identifier: Apache-2.0 */
/* The pickles of DCP metadata and what is looked up in them, for dcp_read.c. */
#ifndef SHARD_DCP_DCP_INDEX_H
#define SHARD_DCP_DCP_INDEX_H

#include "shard/base/array.h"
#include "shard/base/hash_table.h"
#include "shard/dcp/dcp.h"
#include "shard/dcp/dcp_value.h"

/* One element of storage_data. */
struct dcp_item {
	struct dcp_text name;
	struct pickle_value offsets;	/* a tuple; None of an object */
	struct pickle_value info;	/* _StorageInfo */
	uint32_t file;			/* index of the metadata file */
};

/* One element of a state_dict_metadata. */
struct dcp_name {
	struct dcp_text name;
	struct pickle_value value;
	struct pickle_value path;	/* in planner_data; anything at all */
	uint32_t file;			/* index of the metadata file */
	uint32_t path_file;		/* likewise of the path, + 1; 0: there
					 * is no path */
	uint32_t next;			/* index + 1 of the same name's in a
					 * later file; 0: none */
	uint32_t last;			/* of the first of its name: index + 1
					 * of the last; 0: it is not the
					 * first */
};

struct dcp_index {
	struct pickle *pickles;		/* owned; of each file */
	unsigned file_count;
	unsigned bad;			/* file that the fault is in */
	struct fault *fault;		/* borrowed */
	struct array items, names;	/* struct dcp_item, dcp_name */
	struct hash_table item_table, name_table;
};

/* Parse @count files, which are borrowed. 0 or -errno; to be finished in both
 * cases. */
int dcp_index_init(struct dcp_index *index, const struct dcp_file *files,
		   unsigned count, struct fault *fault);
void dcp_index_finish(struct dcp_index *index);

/* What is stored of (@name, @offsets), where the latter are of @file; NULL:
 * nothing. */
const struct dcp_item *dcp_index_item(const struct dcp_index *index,
				      const struct dcp_text *name,
				      unsigned file,
				      struct pickle_value offsets);

/* The first of the name @name; NULL: there is none. Fast when it comes next
 * after @last, which may be NULL. */
struct dcp_name *dcp_index_name(const struct dcp_index *index,
				const struct dcp_text *name,
				const struct dcp_name *last);

/* Make -EBADMSG the fault, at @where in @file; @name may be NULL. */
int dcp_index_bad(struct dcp_index *index, unsigned file,
		  struct pickle_value where, const char *reason,
		  const struct dcp_text *name);

#endif
