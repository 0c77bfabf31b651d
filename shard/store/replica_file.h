/* SPDX-License-Identifier: Apache-2.0 */
/* A stored file that several ranks have: it is read from the nearest, and from
 * the next one when that fails. */
#ifndef SHARD_STORE_REPLICA_FILE_H
#define SHARD_STORE_REPLICA_FILE_H

#include "shard/store/peers.h"

/* What is opened. All is borrowed, and copied. */
struct replica_opening {
	struct peers *peers;
	const char *path;		/* from the top */
	struct store_folder *folder;	/* NULL: found by its path, else as
					 * @name in these descriptors */
	const char *name;
	struct pin pin;			/* of the owner's copy */
	const struct replica *replicas;	/* the nearest first, at least one */
	uint32_t count;
};

/* Only the copy that is read from is kept open. 0; -ESTALE: it is not that any
 * more; -errno, of the first. */
int replica_file_open(const struct replica_opening *opening,
		      struct stored_file **ret_file);

#endif
