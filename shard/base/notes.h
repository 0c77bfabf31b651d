/* SPDX-License-Identifier: Apache-2.0 */
/* What is odd in a checkpoint but no reason to refuse it: lines for a log
 * that its owner prints. At most LIMIT_NOTES, the rest is counted. */
#ifndef SHARD_BASE_NOTES_H
#define SHARD_BASE_NOTES_H

#include "shard/base/limits.h"

struct notes {
	char line[LIMIT_NOTES][256];	/* printable, cut when longer */
	unsigned count;			/* of lines */
	unsigned dropped;		/* lines that found no room */
};

__attribute__((format(printf, 2, 3)))
void notes_add(struct notes *notes, const char *format, ...);

#endif
