/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/safetensors/sharding.h"

#include "shard/safetensors/json_walk.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

/* Of each 0: not given. */
struct stored_piece {
	uint64_t offsets, global;	/* in `numbers`, index */
	uint64_t name;			/* in `names`, bytes */
	uint64_t name_size;
};

struct sharding_reader {
	const struct safetensors *header;
	struct sharding *to;
	struct json_walk walk;
	struct fault *fault;		/* borrowed, may be NULL */
	const struct safetensors_tensor *tensor; /* at hand */
	struct stored_piece *piece;		 /* of it */
};

static int refuse(const struct sharding_reader *r, int error,
		  const char *reason)
{
	return fault_set_detail(r->fault, error, 0, reason,
				(struct fault_detail){
					safetensors_name(r->header, r->tensor),
					r->tensor->name_size });
}

static int no_memory(const struct sharding_reader *r)
{
	return fault_set(r->fault, -ENOMEM, 0, "out of memory");
}

/* A list of a number for each axis. */
static int take_numbers(const struct sharding_reader *r,
			struct json_object *value, uint64_t *ret_place)
{
	uint64_t numbers[LIMIT_NDIM];
	unsigned i;

	if (*ret_place)
		return refuse(r, -EBADMSG, "sharding with a key given twice");
	if (!json_object_is_type(value, json_type_array) ||
	    json_object_array_length(value) != r->tensor->ndim)
		return refuse(r, -EBADMSG,
			      "sharding and tensor differ in axes");
	for (i = 0; i < r->tensor->ndim; i++) {
		struct json_object *item = json_object_array_get_idx(value, i);

		if (!json_object_is_type(item, json_type_int) ||
		    json_object_get_int64(item) < 0)
			return refuse(r, -EBADMSG, "bad number in sharding");
		numbers[i] = json_object_get_uint64(item);
		if (numbers[i] > LIMIT_TENSOR_SIZE)
			return refuse(r, -E2BIG,
				      "number in sharding too large");
	}
	*ret_place = r->to->numbers.size / sizeof(*numbers);
	return array_append(&r->to->numbers, numbers, i * sizeof(*numbers)) ?
	       no_memory(r) : 0;
}

static int take_name(const struct sharding_reader *r, struct json_object *value)
{
	if (r->piece->name)
		return refuse(r, -EBADMSG, "sharding with a key given twice");
	if (!json_object_is_type(value, json_type_string))
		return refuse(r, -EBADMSG, "logical_fqn is no string");
	r->piece->name = r->to->names.size;
	r->piece->name_size = (uint64_t)json_object_get_string_len(value);
	if (r->piece->name_size > LIMIT_NAME_SIZE)
		return refuse(r, -E2BIG, "name too long");
	return array_append(&r->to->names, json_object_get_string(value),
			    r->piece->name_size) ? no_memory(r) : 0;
}

static bool is_key(const char *key, size_t size, const char *what)
{
	return size == strlen(what) && memcmp(key, what, size) == 0;
}

/* Null stands for what is not given. */
static int take_member(struct sharding_reader *r, const char *key, size_t size)
{
	bool offsets = is_key(key, size, "saved_offsets");
	bool global = is_key(key, size, "global_shape");
	bool name = is_key(key, size, "logical_fqn");
	struct json_object *value;
	int error = json_walk_value(&r->walk, &value);

	if (error)
		return error;
	if (r->tensor && offsets)
		error = take_numbers(r, value, &r->piece->offsets);
	else if (r->tensor && global && value)
		error = take_numbers(r, value, &r->piece->global);
	else if (r->tensor && name && value)
		error = take_name(r, value);
	json_object_put(value);
	return error;
}

/* What is said of one key; of a key that the file does not have, nothing
 * counts. */
static int read_piece(struct sharding_reader *r, const char *key, size_t size)
{
	int64_t index = safetensors_find(r->header, key, size);
	int error;

	r->tensor = index < 0 ? NULL :
		    safetensors_tensor(r->header, (uint64_t)index);
	r->piece = index < 0 ? NULL :
		   (struct stored_piece *)(void *)r->to->pieces.data + index;
	if (r->tensor && r->piece->offsets)
		return refuse(r, -EBADMSG, "sharding of a tensor given twice");
	error = json_walk_enter(&r->walk);
	while (!error) {
		error = json_walk_next(&r->walk, &key, &size);
		if (error <= 0)
			break;
		error = take_member(r, key, size);
	}
	if (!error && r->tensor && !r->piece->offsets)
		return refuse(r, -EBADMSG, "sharding without saved_offsets");
	return error;
}

static int read_pieces(struct sharding_reader *r)
{
	const char *key;
	size_t size;
	int error = json_walk_enter(&r->walk);

	while (!error) {
		error = json_walk_next(&r->walk, &key, &size);
		if (error <= 0)
			break;
		error = read_piece(r, key, size);
	}
	return error ? error : json_walk_end(&r->walk);
}

/* A piece for each tensor; nothing else has the place 0. */
static int make_room(struct sharding_reader *r)
{
	size_t size = r->header->tensor_count * sizeof(struct stored_piece);
	void *pieces = size > 0 ? array_add(&r->to->pieces, size) : NULL;

	if ((!pieces && size > 0) ||
	    array_append(&r->to->numbers, &(uint64_t){ 0 },
			 sizeof(uint64_t)) ||
	    array_append(&r->to->names, "", 1))
		return no_memory(r);
	if (size > 0)
		memset(pieces, 0, size);
	return 0;
}

int sharding_read(const struct safetensors *header, struct sharding *ret,
		  struct fault *fault)
{
	struct sharding to = { .pieces = { .data = NULL } };
	struct sharding_reader r = {
		.header = header, .to = &to, .fault = fault,
	};
	int error = 0;

	if (header->is_sharded) {
		error = make_room(&r);
		if (!error)
			error = json_walk_init(&r.walk, header->sharding.data,
					       header->sharding.size, fault);
		if (!error)
			error = read_pieces(&r);
		json_walk_finish(&r.walk);
	}
	if (!error) {
		*ret = to;
		return 0;
	}
	/* The text is escaped in the file: only its start has an offset. */
	if (fault && error != -ENOMEM)
		fault->offset = header->sharding_source;
	sharding_finish(&to);
	return error;
}

void sharding_finish(struct sharding *sharding)
{
	array_finish(&sharding->pieces);
	array_finish(&sharding->numbers);
	array_finish(&sharding->names);
}

void sharding_piece(const struct sharding *sharding,
		    const struct safetensors *header, uint64_t index,
		    struct sharding_piece *ret_piece)
{
	static const struct stored_piece none;
	const struct safetensors_tensor *tensor =
		safetensors_tensor(header, index);
	const struct stored_piece *piece = header->is_sharded ?
		(const struct stored_piece *)
			(const void *)sharding->pieces.data + index : &none;
	const uint64_t *numbers = (const void *)sharding->numbers.data;

	*ret_piece = (struct sharding_piece){
		.offsets = piece->offsets ? numbers + piece->offsets : NULL,
		.global = piece->global ? numbers + piece->global : NULL,
		.name = safetensors_name(header, tensor),
		.name_size = tensor->name_size,
	};
	if (piece->name) {
		ret_piece->name = sharding->names.data + piece->name;
		ret_piece->name_size = piece->name_size;
	}
}
