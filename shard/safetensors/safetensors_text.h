/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON of a safetensors file's header: a part of
 * safetensors_header.c. */
#ifndef SHARD_SAFETENSORS_SAFETENSORS_TEXT_H
#define SHARD_SAFETENSORS_SAFETENSORS_TEXT_H

#include "shard/safetensors/safetensors.h"

/* Bytes before the header: its size. */
enum { SAFETENSORS_PREFIX_SIZE = 8 };

/*
 * Add what the header @text says to @to: tensors as they come, each right by
 * itself, and DCP_SHARDING_INFO. 0, or -errno with @fault filled, its offset
 * counted in the file.
 */
int safetensors_text_read(struct safetensors *to, const char *text,
			  size_t size, struct fault *fault);

#endif
