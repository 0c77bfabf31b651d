/* SPDX-License-Identifier: Apache-2.0 */
/* A header as a safetensors file whose data is as long as anybody likes. */
#ifndef TESTS_FUZZ_SAFETENSORS_FILE_H
#define TESTS_FUZZ_SAFETENSORS_FILE_H

#include "tests/fuzz/guarded_input.h"

enum { SAFETENSORS_PREFIX = 8 };

/* The size of the header, and the header, in memory of its own; free(). */
static inline void *safetensors_file(const void *header, size_t size)
{
	unsigned char *file = malloc(SAFETENSORS_PREFIX + size);
	unsigned i;

	CHECK(file);
	for (i = 0; i < SAFETENSORS_PREFIX; i++)
		file[i] = (unsigned char)((uint64_t)size >> (8 * i));
	memcpy(file + SAFETENSORS_PREFIX, header, size);
	return file;
}

/*
 * An input of @file_size bytes whose header has @size of them. Reading a byte
 * of the data aborts: no parser has business there. The one byte that is read
 * with the prefix is exempt.
 */
static inline int safetensors_file_read(const struct input *input,
					void *buffer, size_t size,
					uint64_t offset)
{
	const struct guarded_input *guarded =
		(const struct guarded_input *)input;
	uint64_t end = input->base;

	CHECK(offset <= input->size && size <= input->size - offset);
	if ((*guarded->reads)-- == 0)
		return GUARDED_ERROR;
	CHECK(offset + size <= end || end < SAFETENSORS_PREFIX + 1);
	memset(buffer, 0, size);
	if (offset < end)
		memcpy(buffer, (const char *)input->data + offset,
		       size < end - offset ? size : end - offset);
	return 0;
}

static inline struct guarded_input
safetensors_file_input(const void *file, size_t size, uint64_t file_size,
		       unsigned *reads)
{
	return (struct guarded_input){
		.input = { .read = safetensors_file_read, .size = file_size,
			   .base = SAFETENSORS_PREFIX + size, .fd = -1,
			   .data = file },
		.reads = reads,
	};
}

#endif
