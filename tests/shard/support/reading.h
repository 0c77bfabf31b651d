/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes of a selection, as who reads a file asks for them. */
#ifndef SUPPORT_READING_H
#define SUPPORT_READING_H

#include "shard/read/transfer.h"
#include "shard/read/virtual_file.h"

/* Begin @reply, and fill it with the bytes of @transfer, which need not be
 * whole elements. 0 or -errno. */
int reading(const struct transfer *transfer, struct reply *reply);

/* The same of a virtual file. */
int reading_file(const struct virtual_file *file, struct source *source,
		 uint64_t offset, uint64_t size, struct reply *reply);

#endif
