/* SPDX-License-Identifier: Apache-2.0 */
/* A stored file that is open: it is read until it is closed, whatever becomes of
 * its name. */
#ifndef FS_TREE_OPEN_STORED_H
#define FS_TREE_OPEN_STORED_H

#include "fs/tree/namespace.h"

struct stored_opening {
	struct namespace *ns;		/* all but the file are borrowed */
	uint64_t number;		/* of its inode */
	struct open_files *beside;
	const char *name;		/* for people */
	struct stored_file *stored;	/* taken over, also on failure */
	bool committed;			/* it does not change any more: else
					 * it is stale */
};

/* 0 or -ENOMEM. */
int open_stored(const struct stored_opening *opening,
		struct open_file **ret_file);

#endif
