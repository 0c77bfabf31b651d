/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/codec/decode.h"

#include "shard/base/array.h"
#include "shard/base/limits.h"

#include <errno.h>

struct decode_buffer {
	struct decode_output output;	/* first: passed as this */
	struct array bytes;		/* owned */
};

static int append(struct decode_output *output, const void *data, size_t size)
{
	struct decode_buffer *buffer = (struct decode_buffer *)output;

	return array_append(&buffer->bytes, data, size);
}

int decode_use(const struct input *input, const struct catalog *catalog,
	       const struct catalog_shard *shard,
	       int (*use)(void *context, const struct input *input),
	       void *context)
{
	struct decode_buffer decoding = {
		.output = { append, LIMIT_OBJECT_MEMORY },
	};
	struct fault fault = { .error = 0 };
	struct input decoded;
	size_t size;
	const char *chain = catalog_transforms(catalog, shard, &size);
	int error = decode_check(chain, size, &fault);

	if (!error)
		error = decode(input, chain, size, &decoding.output, &fault);
	if (!error) {
		decoded = input_memory(decoding.bytes.data,
				       decoding.bytes.size);
		error = use(context, &decoded);
	}
	array_finish(&decoding.bytes);
	return error == -E2BIG ? -EOPNOTSUPP : error;
}
