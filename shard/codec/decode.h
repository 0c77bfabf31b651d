/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Undoes stream extensions: the bytes of a stored item as torch.save made
 * them, from the bytes that are stored. Knows stream.zstd, version 1: frames
 * one behind the other (RFC 8878) until the input ends.
 * Source: torch/distributed/checkpoint/_extension.py.
 */
#ifndef SHARD_CODEC_DECODE_H
#define SHARD_CODEC_DECODE_H

#include "shard/base/fault.h"
#include "shard/base/io.h"
#include "shard/catalog/catalog.h"

/* What takes the decoded bytes, in order. */
struct decode_output {
	/* 0, or -errno, which ends decoding. */
	int (*write)(struct decode_output *output, const void *data,
		     size_t size);
	uint64_t limit;		/* bytes that may come out of any one
				 * extension */
};

/*
 * Are all extensions in @chain, of @size bytes as in struct
 * catalog_transform, known? 0, or -EOPNOTSUPP with the name of the first that
 * is not as the detail of @fault.
 */
int decode_check(const char *chain, size_t size, struct fault *fault);

/*
 * Decode all of @input, last extension first, into @output; all extensions of
 * @chain, of @size bytes, are known. 0; -EIO for damage, -E2BIG beyond the
 * limit of @output, -EOPNOTSUPP for what libzstd refuses,
 * -ENOMEM, all with @fault filled (its offset is one of the input); or what
 * the input or the output gave, with @fault as it was. Thread safe.
 *
 * Memory: for each extension 256 KiB and the window that its stream asks for,
 * at most 128 MiB.
 */
int decode(const struct input *input, const char *chain, size_t size,
	   struct decode_output *output, struct fault *fault);

/*
 * Decode the item of @shard that @input has, and use it as a whole, at most
 * LIMIT_OBJECT_MEMORY bytes: as source_decoded_item, without a cache.
 */
int decode_use(const struct input *input, const struct catalog *catalog,
	       const struct catalog_shard *shard,
	       int (*use)(void *context, const struct input *input),
	       void *context);

#endif
