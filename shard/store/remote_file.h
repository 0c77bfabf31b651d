/* SPDX-License-Identifier: Apache-2.0 */
/* A stored file of another rank: nothing is open there. */
#ifndef SHARD_STORE_REMOTE_FILE_H
#define SHARD_STORE_REMOTE_FILE_H

#include "shard/store/peers.h"
#include "shard/store/store.h"

/* The file @path of the store of @rank, which must have the pin @pin there. 0
 * or -ENOMEM. */
int remote_file_create(struct peers *peers, unsigned rank, const char *path,
		       const struct pin *pin, struct stored_file **ret_file);

/* What @rank has at @path, as it is now. -ENOENT, -errno. */
int remote_file_status(struct peers *peers, unsigned rank, const char *path,
		       struct pin *ret_pin);

#endif
