/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory as an input that aborts when it is read beyond its end, and that can
 * fail its n-th read.
 */
#ifndef TESTS_FUZZ_GUARDED_INPUT_H
#define TESTS_FUZZ_GUARDED_INPUT_H

#include "shard/base/io.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <string.h>

struct guarded_input {
	struct input input;	/* first: passed as this */
	unsigned *reads;	/* counts down; the read that finds 0 fails */
};

enum { GUARDED_ERROR = -ENOTCONN };

static inline int guarded_read(const struct input *input, void *buffer, size_t size,
			uint64_t offset)
{
	const struct guarded_input *guarded =
		(const struct guarded_input *)input;

	CHECK(offset <= input->size && size <= input->size - offset);
	if ((*guarded->reads)-- == 0)
		return GUARDED_ERROR;
	memcpy(buffer, (const char *)input->data + offset, size);
	return 0;
}

static inline struct guarded_input guarded_input(const void *data,
						 uint64_t size,
						 unsigned *reads)
{
	return (struct guarded_input){
		.input = { .read = guarded_read, .size = size, .fd = -1,
			   .data = data },
		.reads = reads,
	};
}

#endif
