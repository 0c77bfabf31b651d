/* SPDX-License-Identifier: Apache-2.0 */
/* A stored file of another rank, which keeps it open as long. */
#ifndef SHARD_STORE_REMOTE_FILE_H
#define SHARD_STORE_REMOTE_FILE_H

#include "shard/store/peers.h"

/* What is at @path now. -ENOENT, -errno. */
int remote_file_status(struct peers *peers, unsigned rank, const char *path,
		       struct pin *ret_pin);

/* Open the regular file @path of @rank; @pin as in peers->hold_file. 0, -EINVAL
 * for anything else, -errno. */
int remote_file_open(struct peers *peers, unsigned rank, const char *path,
		     const struct pin *pin, struct stored_file **ret_file);

#endif
