/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/array.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void *array_add(struct array *array, size_t size)
{
	size_t needed, capacity = array->capacity;
	void *end;

	if (__builtin_add_overflow(array->size, size, &needed))
		return NULL;
	if (needed > capacity) {
		char *data;

		capacity = capacity + capacity / 2 + 256;
		if (capacity < needed)
			capacity = needed;
		data = realloc(array->data, capacity);
		if (!data)
			return NULL;
		array->data = data;
		array->capacity = capacity;
	}
	end = array->data + array->size;
	array->size = needed;
	return end;
}

int array_append(struct array *array, const void *data, size_t size)
{
	void *end;

	if (size == 0)
		return 0;
	end = array_add(array, size);
	if (!end)
		return -ENOMEM;
	memcpy(end, data, size);
	return 0;
}

void array_finish(struct array *array)
{
	free(array->data);
	*array = (struct array){ .data = NULL };
}
