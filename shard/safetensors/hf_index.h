/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of a Hugging Face model in several files: which tensor is in
 * which of them.
 *
 *	{"metadata": {...}, "weight_map": {"NAME": "FILE", ...}}
 *
 * Other keys mean nothing here; files in the wild have some.
 * Source: transformers, modeling_utils.py; huggingface_hub, serialization.
 */
#ifndef SHARD_SAFETENSORS_HF_INDEX_H
#define SHARD_SAFETENSORS_HF_INDEX_H

#include "shard/base/fault.h"
#include "shard/base/name_table.h"

#include <stdbool.h>

struct hf_index {
	struct name_table tensors, files;
	struct array file_of;		/* uint32_t, of each tensor */
};

/* 0, or -EBADMSG, -E2BIG or -ENOMEM with @fault filled. Names of files are
 * plain: no absolute ones, none with ".." or control bytes. */
int hf_index_read(const char *text, size_t size, struct hf_index *ret,
		  struct fault *fault);
void hf_index_finish(struct hf_index *index);

/* Is tensor @name in file @file of the index? */
bool hf_index_has(const struct hf_index *index, const char *name, size_t size,
		  uint32_t file);

#endif
