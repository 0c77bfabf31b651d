/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/safetensors/safetensors_header.h"

#include "shard/base/bytes.h"
#include "shard/base/json_text.h"
#include "shard/base/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What data begins at a multiple of: the pages of who maps the file. */
enum { ALIGNMENT = 4096 };

static const char metadata_key[] = "__metadata__";

static int append_text(struct array *out, const char *text)
{
	return array_append(out, text, strlen(text));
}

static int append_number(struct array *out, uint64_t number, const char *end)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64 "%s", number, end);
	return append_text(out, text);
}

static int append_numbers(struct array *out, const uint64_t *numbers,
			  unsigned count)
{
	unsigned i;
	int error = append_text(out, "[");

	for (i = 0; i < count && !error; i++)
		error = append_number(out, numbers[i],
				      i + 1 < count ? "," : "");
	return error ? error : append_text(out, "]");
}

/* The sizes of @selection as the header has them, which counts elements also
 * where the catalog counts bytes. */
static void header_shape(const struct catalog *catalog,
			 const struct catalog_entry *entry, enum dtype dtype,
			 const struct box *selection, uint64_t *ret_size)
{
	unsigned bits = dtype_info(dtype)->bits;
	struct box written;

	catalog_written(catalog, entry, selection, &written);
	memcpy(ret_size, written.size, entry->ndim * sizeof(*ret_size));
	/* Of two that torch has in one byte: its shapes count bytes. */
	if (bits % 8 != 0 && !(entry->flags & CATALOG_PACKED))
		ret_size[entry->ndim - 1] *= 8 / bits;
}

bool safetensors_header_fits(const struct catalog *catalog,
			     const struct safetensors_header_tensor *tensor)
{
	const struct dtype_info *info = dtype_info(tensor->dtype);
	const char *key = tensor->key;
	size_t size = tensor->key_size;

	/* A byte of F4 is two elements of the last axis, if there is one. */
	return info->order &&
	       (info->bits % 8 == 0 ||
		catalog_entry(catalog, tensor->entry)->ndim) &&
	       json_text_is_exact(key, size) &&
	       !(size == sizeof(metadata_key) - 1 &&
		 memcmp(key, metadata_key, size) == 0);
}

/* The part @selection of @tensor, under its key. */
static int append_tensor(struct array *out, const struct catalog *catalog,
			 const struct safetensors_header_tensor *tensor,
			 const struct box *selection)
{
	const struct catalog_entry *entry =
		catalog_entry(catalog, tensor->entry);
	const struct dtype_info *info = dtype_info(tensor->dtype);
	uint64_t shape[LIMIT_NDIM];
	uint64_t end = tensor->begin + box_volume(selection) * info->size;
	int error = json_text_string(out, tensor->key, tensor->key_size);

	header_shape(catalog, entry, tensor->dtype, selection, shape);
	if (!error)
		error = append_text(out, ":{\"dtype\":\"");
	if (!error)
		error = append_text(out, info->name);
	if (!error)
		error = append_text(out, "\",\"shape\":");
	if (!error)
		error = append_numbers(out, shape, entry->ndim);
	if (!error)
		error = append_text(out, ",\"data_offsets\":");
	if (!error)
		error = append_numbers(out, (uint64_t[]){ tensor->begin, end },
				       2);
	return error ? error : append_text(out, "}");
}

int safetensors_header_add(struct safetensors_header *header,
			   const struct safetensors_header_tensor *tensor)
{
	const struct catalog *catalog = header->catalog;
	struct array *out = &header->tensors;
	struct box shape;
	int error = append_text(out, ",");

	catalog_shape(catalog, catalog_entry(catalog, tensor->entry), &shape);
	return error ? error : append_tensor(out, catalog, tensor, &shape);
}

int safetensors_header_leave_out(struct safetensors_header *header,
				 const char *key, size_t size)
{
	int error = append_text(&header->left_out,
				header->left_out.size ? "," : "[");

	return error ? error : json_text_string(&header->left_out, key, size);
}

/* Room for the length of the text that follows. */
static int begin_file(struct array *out)
{
	int error = array_append(out, "\0\0\0\0\0\0\0\0", 8);

	return error ? error :
	       append_text(out, "{\"__metadata__\":{\"format\":\"pt\"");
}

/* The text is complete: pad it, and say how long it is. */
static int end_file(struct array *out)
{
	size_t padding, size;
	unsigned i;
	char *room;
	int error = append_text(out, "}");

	if (error)
		return error;
	padding = -out->size & (ALIGNMENT - 1);
	room = array_add(out, padding);
	if (!room)
		return -ENOMEM;
	memset(room, ' ', padding);
	size = out->size - 8;
	if (size > LIMIT_SAFETENSORS_HEADER)
		return -E2BIG;
	for (i = 0; i < 8; i++)
		out->data[i] = (char)(size >> 8 * i & 255);
	return 0;
}

/* A member of the metadata: a string, even when it holds JSON. */
static int append_member(struct array *out, const char *key,
			 const struct array *value)
{
	int error = append_text(out, ",\"");

	if (!error)
		error = append_text(out, key);
	if (!error)
		error = append_text(out, "\":");
	return error ? error : json_text_string(out, value->data, value->size);
}

int safetensors_header_finish(struct safetensors_header *header,
			      struct array *out)
{
	int error = begin_file(out);

	if (!error && header->left_out.size) {
		error = append_text(&header->left_out, "]");
		if (!error)
			error = append_member(out, "ckptfs.left_out",
					      &header->left_out);
	}
	if (!error)
		error = append_text(out, "}");
	if (!error && header->tensors.size)
		error = array_append(out, header->tensors.data,
				     header->tensors.size);
	return error ? error : end_file(out);
}

void safetensors_header_clear(struct safetensors_header *header)
{
	array_finish(&header->tensors);
	array_finish(&header->left_out);
}

/* {"NAME": {"saved_offsets": [...], "global_shape": [...]}}, in torch's units:
 * for packed types these are bytes, as in the catalog. */
static int append_sharding(struct array *out, const struct catalog *catalog,
			   const struct catalog_entry *entry,
			   const struct box *selection)
{
	struct array text = { .data = NULL };
	struct box shape;
	int error = append_text(&text, "{");

	catalog_shape(catalog, entry, &shape);
	if (!error)
		error = json_text_string(&text,
					 catalog_text(catalog, entry->name),
					 entry->name_size);
	if (!error)
		error = append_text(&text, ":{\"saved_offsets\":");
	if (!error)
		error = append_numbers(&text, selection->offset, entry->ndim);
	if (!error)
		error = append_text(&text, ",\"global_shape\":");
	if (!error)
		error = append_numbers(&text, shape.size, entry->ndim);
	if (!error)
		error = append_text(&text, "}}");
	if (!error)
		error = append_text(out, ",\"DCP_VERSION\":\"1.0\"");
	if (!error)
		error = append_member(out, "DCP_SHARDING_INFO", &text);
	array_finish(&text);
	return error;
}

int safetensors_header_slice(const struct catalog *catalog, uint64_t index,
			     enum dtype dtype, const struct box *selection,
			     struct array *out)
{
	const struct catalog_entry *entry = catalog_entry(catalog, index);
	const struct safetensors_header_tensor tensor = {
		.entry = index, .dtype = dtype,
		.key = catalog_text(catalog, entry->name),
		.key_size = entry->name_size,
	};
	struct box shape;
	int error;

	if (!safetensors_header_fits(catalog, &tensor))
		return -EOPNOTSUPP;
	catalog_shape(catalog, entry, &shape);
	error = begin_file(out);
	if (!error && memcmp(shape.size, selection->size,
			     entry->ndim * sizeof(*shape.size)) != 0)
		error = append_sharding(out, catalog, entry, selection);
	if (!error)
		error = append_text(out, "},");
	if (!error)
		error = append_tensor(out, catalog, &tensor, selection);
	return error ? error : end_file(out);
}
