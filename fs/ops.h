/* SPDX-License-Identifier: Apache-2.0 */
/* The FUSE operations of a namespace. */
#ifndef FS_OPS_H
#define FS_OPS_H

#include "fs/namespace.h"
#include "fs/pool.h"

#include <stddef.h>

struct ops {
	struct namespace *ns;		/* borrowed */
	struct pool *pool;		/* borrowed */
	void (*ready)(void *context);	/* the kernel has said hello */
	void *ready_context;
};

/* The table for fuse_session_new, a struct fuse_lowlevel_ops, and its size;
 * the session's user data is a struct ops. */
const void *ops_table(size_t *ret_size);

/* What a thread that runs operations owns; before it ends. */
void ops_thread_finish(void);

#endif
