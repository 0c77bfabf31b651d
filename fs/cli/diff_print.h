/* SPDX-License-Identifier: Apache-2.0 */
/* What the command diff found, for people or as JSON. */
#ifndef FS_CLI_DIFF_PRINT_H
#define FS_CLI_DIFF_PRINT_H

#include "fs/cli/pairs.h"

/* After pairs_compare. 0 or -ENOMEM. */
int diff_print(const struct pairs *pairs, bool json);

#endif
