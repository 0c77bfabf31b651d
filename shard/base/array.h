/* SPDX-License-Identifier: Apache-2.0 */
/* A growing array of bytes. */
#ifndef SHARD_BASE_ARRAY_H
#define SHARD_BASE_ARRAY_H

#include <stddef.h>

struct array {
	char *data;		/* owned; moves when the array grows */
	size_t size, capacity;	/* bytes */
};

/* Room for @size more bytes at the end, uninitialised; NULL: out of memory,
 * and the array is unchanged. */
void *array_add(struct array *array, size_t size);

/* Append a copy of @size bytes. 0 or -ENOMEM. */
int array_append(struct array *array, const void *data, size_t size);

void array_finish(struct array *array);

#endif
