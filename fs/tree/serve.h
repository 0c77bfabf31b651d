/* SPDX-License-Identifier: Apache-2.0 */
/* What other ranks may ask of a namespace. */
#ifndef FS_TREE_SERVE_H
#define FS_TREE_SERVE_H

#include "fs/tree/namespace.h"

/* Fill the table; its context is @ns, which outlives it. */
void serve_handlers(struct namespace *ns, struct peer_handlers *ret_handlers);

#endif
