/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/catalog/catalog_json.h"

#include "shard/base/json_text.h"
#include "shard/base/name.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

/*
 * Add @value, which is given away, to @object. Allocation failures are
 * collected in @failed, so that an object can be put together in one go.
 */
static void add(struct json_object *object, const char *key,
		struct json_object *value, bool *failed)
{
	if (!value || !object || json_object_object_add(object, key, value)) {
		json_object_put(value);
		*failed = true;
	}
}

static struct json_object *make_numbers(const uint64_t *numbers,
					unsigned count, bool *failed)
{
	struct json_object *array = json_object_new_array();
	unsigned i;

	for (i = 0; i < count && array; i++) {
		struct json_object *number = json_object_new_uint64(numbers[i]);

		if (!number || json_object_array_add(array, number)) {
			json_object_put(number);
			*failed = true;
		}
	}
	return array;
}

static struct json_object *make_box(const struct box *box, bool *failed)
{
	struct json_object *object = json_object_new_object();

	add(object, "offsets", make_numbers(box->offset, box->ndim, failed),
	    failed);
	add(object, "sizes", make_numbers(box->size, box->ndim, failed),
	    failed);
	return object;
}

static struct json_object *make_shard(const struct owned_catalog *owned,
				      const struct catalog_shard *shard,
				      const struct box *box, bool *failed)
{
	const struct catalog *catalog = owned->catalog;
	const struct catalog_file *file = catalog_file(catalog, shard->file);
	struct json_object *object = json_object_new_object();

	add(object, "box", make_box(box, failed), failed);
	add(object, "rank",
	    json_object_new_uint64(owned->owners[shard->file]), failed);
	add(object, "file",
	    json_text_name(catalog_text(catalog, file->path), file->path_size),
	    failed);
	add(object, "offset", json_object_new_uint64(shard->offset), failed);
	add(object, "size", json_object_new_uint64(shard->size), failed);
	return object;
}

int catalog_json_shape(const struct box *shape, struct array *out)
{
	bool failed = false;
	struct json_object *sizes =
		make_numbers(shape->size, shape->ndim, &failed);

	return json_text_append(out, sizes, failed);
}

int catalog_json_shards(const struct owned_catalog *owned,
			const struct catalog_entry *entry,
			const struct box *selection, size_t limit,
			struct array *out)
{
	const struct catalog *catalog = owned->catalog;
	uint64_t i;
	size_t start = out->size;
	struct box box, common;
	bool failed = false, first = true;
	int error = array_append(out, "[", 1);

	for (i = 0; i < entry->shard_count && !error; i++) {
		struct json_object *shard;

		catalog_box(catalog, entry, i, &box);
		if (selection && !box_intersect(&box, selection, &common))
			continue;
		if (!first)
			error = array_append(out, ",", 1);
		first = false;
		if (error)
			break;
		shard = make_shard(owned, catalog_shard(catalog, entry, i),
				   &box, &failed);
		error = json_text_append(out, shard, failed);
		if (!error && limit && out->size - start >= limit)
			error = -E2BIG;
	}
	return error ? error : array_append(out, "]", 1);
}

static struct json_object *make_holes(const struct catalog *catalog,
				      const struct catalog_entry *entry,
				      bool *failed)
{
	struct json_object *array = json_object_new_array();
	struct box box;
	uint32_t i;

	for (i = 0; i < entry->hole_count && array; i++) {
		struct json_object *hole;

		catalog_box(catalog, entry, entry->shard_count + i, &box);
		hole = make_box(&box, failed);
		if (!hole || json_object_array_add(array, hole)) {
			json_object_put(hole);
			*failed = true;
		}
	}
	return array;
}

/* All but the shards, which may be many and are appended one by one. */
static struct json_object *make_tensor(const struct catalog *catalog,
				       const struct catalog_entry *entry,
				       bool *failed)
{
	const char *name = catalog_text(catalog, entry->name);
	const struct dtype_info *info = dtype_info(entry->dtype);
	struct json_object *object = json_object_new_object();
	char encoded[NAME_ENCODED_MAX];
	struct box shape;

	catalog_written_shape(catalog, entry, &shape);
	name_encode(name, entry->name_size, encoded);
	add(object, "name", json_text_name(name, entry->name_size), failed);
	add(object, "dtype", json_object_new_string(info->name), failed);
	add(object, "torch_dtype", entry->type_name_size ?
	    json_text_name(catalog_text(catalog, entry->type_name),
		      entry->type_name_size) :
	    json_object_new_string(info->torch), failed);
	add(object, "shape", make_numbers(shape.size, shape.ndim, failed),
	    failed);
	add(object, "nbytes", json_object_new_uint64(entry->size), failed);
	add(object, "file", json_object_new_string(encoded), failed);
	if (entry->flags & CATALOG_HOLES)
		add(object, "holes", make_holes(catalog, entry, failed),
		    failed);
	if (entry->flags & CATALOG_OVERLAP)
		add(object, "overlap", json_object_new_boolean(1), failed);
	return object;
}

int catalog_json_tensor(const struct owned_catalog *owned, uint64_t index,
			uint64_t limit, struct array *out)
{
	const struct catalog *catalog = owned->catalog;
	const struct catalog_entry *entry = catalog_entry(catalog, index);
	bool failed = false;
	struct json_object *object = make_tensor(catalog, entry, &failed);
	int error = json_text_append(out, object, failed);

	if (error)
		return error;
	out->size--; /* the closing brace */
	error = array_append(out, ",\"shards\":", 10);
	if (!error)
		error = catalog_json_shards(owned, entry, NULL, limit, out);
	return error ? error : array_append(out, "}", 1);
}
