/* SPDX-License-Identifier: Apache-2.0 */
/* Counts of references, of what several threads share. */
#ifndef SHARD_BASE_REFERENCE_H
#define SHARD_BASE_REFERENCE_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>

/* One less. Was it the last? */
static inline bool reference_drop(_Atomic unsigned *references)
{
	unsigned before = atomic_fetch_sub(references, 1);

	assert(before > 0);
	return before == 1;
}

#endif
