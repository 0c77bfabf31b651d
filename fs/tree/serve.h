/* SPDX-License-Identifier: Apache-2.0 */
/* The checkpoints of a namespace, for other ranks. */
#ifndef FS_TREE_SERVE_H
#define FS_TREE_SERVE_H

#include "fs/tree/namespace.h"
#include "shard/checkpoint/mounted_hooks.h"

/* Fill the table; its context is @ns, which outlives it. */
void serve_hooks(struct namespace *ns, struct checkpoint_hooks *ret_hooks);

#endif
