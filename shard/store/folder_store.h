/* SPDX-License-Identifier: Apache-2.0 */
/* A store that is a folder of this machine, and nothing else. */
#ifndef SHARD_STORE_FOLDER_STORE_H
#define SHARD_STORE_FOLDER_STORE_H

#include "shard/store/store.h"

/* That of the folder @fd, which it closes in the end. NULL: no memory, and @fd
 * is still open. */
struct store *folder_store_create(int fd);

#endif
