/* SPDX-License-Identifier: Apache-2.0 */
/* Safetensors files for tests, with whatever header; and what must hold of
 * one that was taken. */
#ifndef SUPPORT_SAFETENSORS_OUT_H
#define SUPPORT_SAFETENSORS_OUT_H

#include "shard/safetensors/safetensors.h"

/* Append a file with this header and @data_size bytes, each decided by its
 * place in the data. */
void safetensors_out(struct array *out, const char *header, size_t size,
		     uint64_t data_size);
/* That byte. */
unsigned char safetensors_byte(uint64_t place);

/* Everything that is promised of a file of @size bytes. */
void safetensors_check(const struct safetensors *safetensors, uint64_t size);

#endif
