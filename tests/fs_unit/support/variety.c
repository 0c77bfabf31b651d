/* SPDX-License-Identifier: Apache-2.0 */
#include "support/variety.h"

#include "support/test.h"
#include "support/archive_out.h"
#include "support/catalog_out.h"
#include "support/item_out.h"
#include "support/metadata_out.h"
#include "support/zstd_out.h"

#include <stdlib.h>
#include <string.h>

const struct variety_tensor variety_tensors[VARIETY_TENSORS] = {
	[VARIETY_W] = { "model.w", "model.w", "F32", "float32", 2,
			{ VARIETY_ROWS, VARIETY_ROW_SIZE / 4 },
			VARIETY_ROWS * VARIETY_ROW_SIZE },
	[VARIETY_B] = { "model.b", "model.b", "BF16", "bfloat16", 1, { 8 },
			16 },
	[VARIETY_EXP] = { "optim.exp.w", "optim.exp.w", "F64", "float64", 1,
			  { 4 }, 32 },
	[VARIETY_STEP] = { "step", "step", "I64", "int64", 0, { 0 }, 8 },
	[VARIETY_NAME] = { "a/b[c]%", "a%2Fb%5Bc]%25", "F16", "float16", 1,
			   { 2 }, 4 },
	[VARIETY_HOLES] = { "holes", "holes", "F32", "float32", 2,
			    { 4, 1024 }, 16384 },
	[VARIETY_LOST] = { "lost", "lost", "F32", "float32", 1, { 2000 },
			   8000 },
};

const char variety_args[] = "{\"lr\":0.5}\n";

static const char *const data_names[2] = { "__0_0.distcp", "__1_0.distcp" };

struct writing {
	struct metadata metadata;
	struct array data[2];
	unsigned char first;
};

unsigned char variety_byte(unsigned char first, uint64_t index)
{
	return (unsigned char)(first + index % 64 + index / 4096 % 8);
}

/* ---- tensors ------------------------------------------------------------- */

static struct box tensor_box(const struct variety_tensor *tensor)
{
	static const uint64_t zeros[2];

	return catalog_out_box(tensor->ndim, zeros, tensor->shape);
}

/* The item of a part of @tensor at the end of a data file. */
static void put_part(struct writing *w, const struct variety_tensor *tensor,
		     const struct box *part, unsigned file)
{
	struct array *data = &w->data[file];
	enum dtype dtype = dtype_from_torch(tensor->torch,
					    strlen(tensor->torch));
	struct item_spec spec = item_spec_make(dtype, part->ndim, part->size);
	struct metadata_place place = { data_names[file], data->size, 0 };
	unsigned char *bytes = malloc(spec.storage_size);
	uint64_t from = 0, i;

	assert_non_null(bytes);
	if (part->ndim > 0)
		from = part->offset[0] * (tensor->size / tensor->shape[0]);
	for (i = 0; i < spec.storage_size; i++)
		bytes[i] = variety_byte(w->first, from + i);
	spec.storage = bytes;
	item_out(data, &spec);
	free(bytes);
	place.length = data->size - place.offset;
	metadata_item(&w->metadata, tensor->name, part, place);
}

/* @count parts of equal rows, of which the first @kept are in the data files,
 * one in each. */
static void add_tensor(struct writing *w, unsigned index, unsigned count,
		       unsigned kept)
{
	const struct variety_tensor *tensor = &variety_tensors[index];
	struct box part = tensor_box(tensor);
	unsigned i;

	metadata_begin(&w->metadata, tensor->name, tensor->torch, tensor->ndim,
		       tensor->shape);
	if (tensor->ndim > 0)
		part.size[0] /= count;
	for (i = 0; i < kept; i++) {
		if (tensor->ndim > 0)
			part.offset[0] = i * part.size[0];
		metadata_chunk(&w->metadata, &part);
	}
	metadata_end(&w->metadata);
	for (i = 0; i < kept; i++) {
		if (tensor->ndim > 0)
			part.offset[0] = i * part.size[0];
		put_part(w, tensor, &part, i);
	}
}

static void add_lost(struct writing *w)
{
	const struct variety_tensor *tensor = &variety_tensors[VARIETY_LOST];
	struct metadata_place place = { "lost.distcp", 0, 100 };
	struct box part = tensor_box(tensor);
	unsigned i;

	metadata_begin(&w->metadata, tensor->name, tensor->torch, 1,
		       tensor->shape);
	part.size[0] = 1;
	for (i = 0; i < tensor->shape[0]; i++) {
		part.offset[0] = i;
		metadata_chunk(&w->metadata, &part);
	}
	metadata_end(&w->metadata);
	for (i = 0; i < tensor->shape[0]; i++) {
		part.offset[0] = i;
		place.offset = 100 * i;
		metadata_item(&w->metadata, tensor->name, &part, place);
	}
}

/* The keys that lead to a tensor, up to a NULL. */
static void add_path(struct writing *w, unsigned index,
		     const char *const *keys)
{
	struct array path = { .data = NULL };

	PUT(&path, "(");
	while (*keys)
		put_text(&path, *keys++);
	PUT(&path, "t");
	metadata_path(&w->metadata, variety_tensors[index].name, &path);
	array_finish(&path);
}

#define ADD_PATH(w, index, ...) \
	add_path(w, index, (const char *const[]){ __VA_ARGS__, NULL })

/* ---- objects ------------------------------------------------------------- */

static void add_object(struct writing *w, const char *name, const char *pickle,
		       size_t size, bool packed)
{
	struct array *data = &w->data[1];
	struct metadata_place place = { data_names[1], data->size, 0 };
	struct archive archive = { .count = 0 };

	archive_add(&archive, "archive/data.pkl", pickle, size);
	archive_end(&archive);
	if (packed)
		zstd_out(data, archive.out.data, archive.out.size,
			 ZSTD_OUT_PLAIN);
	else
		put_bytes(data, archive.out.data, archive.out.size);
	archive_free(&archive);
	place.length = data->size - place.offset;
	metadata_object(&w->metadata, name);
	w->metadata.transform = packed ? "stream.zstd/1" : NULL;
	metadata_item(&w->metadata, name, NULL, place);
	w->metadata.transform = NULL;
}

static void add_objects(struct writing *w)
{
	static const char plain[] = "\x80\2}\x8c\2lrG\x3f\xe0\0\0\0\0\0\0s.";
	static const char call[] = "\x80\2cos\nsystem\n\x8c\2rm\x85R.";

	add_object(w, "args", plain, sizeof(plain) - 1, false);
	add_object(w, "packed", plain, sizeof(plain) - 1, true);
	add_object(w, "code", call, sizeof(call) - 1, false);
}

void variety_write(const struct test_folder *folder, unsigned char first)
{
	struct writing w = { .first = first };
	struct array text = { .data = NULL };
	unsigned i;

	add_tensor(&w, VARIETY_W, 2, 2);
	add_tensor(&w, VARIETY_B, 1, 1);
	add_tensor(&w, VARIETY_EXP, 1, 1);
	add_tensor(&w, VARIETY_STEP, 1, 1);
	add_tensor(&w, VARIETY_NAME, 1, 1);
	add_tensor(&w, VARIETY_HOLES, 2, 1);
	add_lost(&w);
	add_objects(&w);
	ADD_PATH(&w, VARIETY_W, "model", "w");
	ADD_PATH(&w, VARIETY_B, "model", "b");
	ADD_PATH(&w, VARIETY_EXP, "optim", "exp", "w");
	for (i = 0; i < 2; i++) {
		folder_write(folder, data_names[i], w.data[i].data,
			     w.data[i].size);
		array_finish(&w.data[i]);
	}
	/* Last: without it there is no checkpoint yet. */
	metadata_finish(&w.metadata, &text);
	folder_write(folder, ".metadata", text.data, text.size);
	array_finish(&text);
}
