/* SPDX-License-Identifier: Apache-2.0 */
/* A stored file that is open here. */
#ifndef SHARD_STORE_LOCAL_FILE_H
#define SHARD_STORE_LOCAL_FILE_H

#include "shard/store/store.h"

/* What was opened, and where its name is. */
struct local_opened {
	int fd;			/* taken over, also on failure */
	struct stat status;	/* when it was opened */
	unsigned rank;		/* whose copy it is */
	int folder;		/* borrowed; outlives the file */
	const char *path;	/* below that; copied */
};

/* 0 or -ENOMEM. */
int local_file_create(const struct local_opened *opened,
		      struct stored_file **ret_file);

#endif
