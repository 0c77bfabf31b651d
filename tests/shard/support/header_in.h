/* SPDX-License-Identifier: Apache-2.0 */
/* The header of a safetensors file, read a second time: by json-c, and by
 * the rules of safetensors/src/tensor.rs. What breaks one fails the test. */
#ifndef SUPPORT_HEADER_IN_H
#define SUPPORT_HEADER_IN_H

#include <stddef.h>
#include <stdint.h>

struct json_object;

struct header_tensor {
	const char *name;	/* as long as the header */
	size_t name_size;
	const char *dtype;
	unsigned ndim;
	uint64_t shape[32];
	uint64_t begin, end;	/* bytes from the start of the data */
};

struct header_in {
	struct json_object *root;	/* owned */
	struct header_tensor *tensors;	/* owned; in the order of the text */
	uint64_t count;
	uint64_t size;			/* bytes, the length in front too */
	uint64_t data_size;		/* bytes */
};

/* Of @size bytes of a file, all of its header among them. */
void header_in_parse(struct header_in *header, const void *data, size_t size);
void header_in_free(struct header_in *header);

/* The text of a member of `__metadata__`; NULL: there is none. */
const char *header_in_metadata(const struct header_in *header,
			       const char *key);

/* Bits of an element of the type, and its place in the order of alignment;
 * fails for what safetensors does not have. */
unsigned header_in_bits(const char *dtype, unsigned *ret_order);

#endif
