/* SPDX-License-Identifier: Apache-2.0 */
/* The FUSE operations of a namespace. */
#ifndef FS_FUSE_OPS_H
#define FS_FUSE_OPS_H

#include "fs/fuse/request.h"

#include <stddef.h>

/* The table for fuse_session_new, a struct fuse_lowlevel_ops, and its size;
 * the session's user data is a struct requests. */
const void *ops_table(size_t *ret_size);

#endif
