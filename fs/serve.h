/* SPDX-License-Identifier: Apache-2.0 */
/* What other ranks may ask of a namespace. */
#ifndef FS_SERVE_H
#define FS_SERVE_H

#include "fs/namespace.h"

/* Fill the table; its context is @ns, which outlives it. */
void serve_handlers(struct namespace *ns, struct peer_handlers *ret_handlers);

#endif
