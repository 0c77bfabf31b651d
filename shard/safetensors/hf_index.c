/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/safetensors/hf_index.h"

#include "shard/base/limits.h"
#include "shard/safetensors/json_walk.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

struct hf_index_reader {
	struct hf_index *to;
	struct json_walk walk;
	struct fault *fault;		/* borrowed, may be NULL */
	bool has_map;
};

static int refuse(const struct hf_index_reader *r, int error,
		  const char *reason, const char *name, size_t size)
{
	return fault_set_detail(r->fault, error, r->walk.position, reason,
				(struct fault_detail){ name, size });
}

static bool is_plain_path(const char *path, size_t size)
{
	const char *part = path, *end = path + size, *p;

	if (size == 0 || size > LIMIT_PATH_SIZE || *path == '/')
		return false;
	for (p = path; p < end; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return false;
	for (p = path; p <= end; p++) {
		if (p < end && *p != '/')
			continue;
		if (p - part == 2 && memcmp(part, "..", 2) == 0)
			return false;
		part = p + 1;
	}
	return true;
}

static int take_file(struct hf_index_reader *r, struct json_object *value,
		     uint32_t *ret_file)
{
	const char *path;
	size_t size;
	int added;

	if (!json_object_is_type(value, json_type_string))
		return refuse(r, -EBADMSG, "name of a file is no string",
			      NULL, 0);
	path = json_object_get_string(value);
	size = (size_t)json_object_get_string_len(value);
	if (!is_plain_path(path, size))
		return refuse(r, -EBADMSG, "bad name of a file", path, size);
	added = name_table_add(&r->to->files, path, size, ret_file);
	return added >= 0 ? 0 :
	       fault_set(r->fault, added, 0, strerror(-added));
}

static int read_pair(struct hf_index_reader *r, const char *name, size_t size)
{
	struct json_object *value;
	uint32_t index, file;
	int error;

	if (size > LIMIT_NAME_SIZE)
		return refuse(r, -E2BIG, "name too long", name, size);
	error = name_table_add(&r->to->tensors, name, size, &index);
	if (error == 0)
		return refuse(r, -EBADMSG, "tensor given twice", name, size);
	if (error < 0)
		return fault_set(r->fault, error, 0, strerror(-error));
	error = json_walk_value(&r->walk, &value);
	if (error)
		return error;
	error = take_file(r, value, &file);
	json_object_put(value);
	if (error)
		return error;
	return array_append(&r->to->file_of, &file, sizeof(file)) ?
	       fault_set(r->fault, -ENOMEM, 0, "out of memory") : 0;
}

static int read_map(struct hf_index_reader *r)
{
	const char *key;
	size_t size;
	int error;

	if (r->has_map)
		return refuse(r, -EBADMSG, "weight_map given twice", NULL, 0);
	r->has_map = true;
	error = json_walk_enter(&r->walk);
	while (!error) {
		error = json_walk_next(&r->walk, &key, &size);
		if (error <= 0)
			break;
		error = read_pair(r, key, size);
	}
	return error;
}

static int read_members(struct hf_index_reader *r)
{
	struct json_object *value;
	const char *key;
	size_t size;
	int error = json_walk_enter(&r->walk);

	while (!error) {
		error = json_walk_next(&r->walk, &key, &size);
		if (error <= 0)
			break;
		if (size == 10 && memcmp(key, "weight_map", 10) == 0) {
			error = read_map(r);
			continue;
		}
		error = json_walk_value(&r->walk, &value);
		if (!error)
			json_object_put(value);
	}
	if (!error)
		error = json_walk_end(&r->walk);
	if (!error && !r->has_map)
		error = refuse(r, -EBADMSG, "index without a weight_map",
			       NULL, 0);
	return error;
}

int hf_index_read(const char *text, size_t size, struct hf_index *ret,
		  struct fault *fault)
{
	struct hf_index_reader r = { .to = ret, .fault = fault };
	int error;

	name_table_init(&ret->tensors, LIMIT_COUNT);
	name_table_init(&ret->files, LIMIT_COUNT);
	ret->file_of = (struct array){ .data = NULL };
	error = json_walk_init(&r.walk, text, size, fault);
	if (!error)
		error = read_members(&r);
	json_walk_finish(&r.walk);
	if (error)
		hf_index_finish(ret);
	return error;
}

void hf_index_finish(struct hf_index *index)
{
	name_table_finish(&index->tensors);
	name_table_finish(&index->files);
	array_finish(&index->file_of);
}

bool hf_index_has(const struct hf_index *index, const char *name, size_t size,
		  uint32_t file)
{
	const uint32_t *file_of = (const void *)index->file_of.data;
	int64_t tensor = name_table_find(&index->tensors, name, size);

	return tensor >= 0 && file_of[tensor] == file;
}
