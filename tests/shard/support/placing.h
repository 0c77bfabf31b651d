/* SPDX-License-Identifier: Apache-2.0 */
/* Where the files of a catalog are, when they are in one folder. */
#ifndef SUPPORT_PLACING_H
#define SUPPORT_PLACING_H

#include "shard/catalog/catalog.h"
#include "shard/read/placement.h"

/* As they are now in the folder @fd; files that are not there are nowhere. The
 * caller destroys it. */
struct placement *placing_folder(int fd, const struct catalog *catalog);

#endif
