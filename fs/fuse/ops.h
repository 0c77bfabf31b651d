/* SPDX-License-Identifier: Apache-2.0 */
/* The FUSE operations of a namespace. */
#ifndef FS_FUSE_OPS_H
#define FS_FUSE_OPS_H

#include "fs/tree/tree.h"
#include "shard/base/pool.h"

#include <stdbool.h>
#include <stddef.h>

/* Const while there is a session. */
struct ops {
	struct namespace *ns;		/* borrowed */
	struct pool *pool;		/* borrowed */
	/* Reads past the page cache may be killed, too; in exchange a large
	 * one is asked for piece by piece, and not all pieces at once. */
	bool interruptible;
	unsigned lane;			/* where all but reads wait */
	void (*ready)(void *context);	/* the kernel has said hello */
	void *ready_context;
};

/* The table for fuse_session_new, a struct fuse_lowlevel_ops, and its size;
 * the session's user data is a struct ops. */
const void *ops_table(size_t *ret_size);

#endif
