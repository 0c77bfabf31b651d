/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/safetensors/safetensors_text.h"

#include "shard/safetensors/json_walk.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

/* Which members of a tensor were seen. */
enum { SEEN_DTYPE = 1, SEEN_SHAPE = 2, SEEN_OFFSETS = 4, SEEN_ALL = 7 };

struct header_text {
	struct safetensors *to;
	struct json_walk walk;
	struct fault *fault;		/* borrowed, may be NULL */
	bool has_metadata;
	const char *name;		/* of the tensor at hand; borrowed */
	size_t name_size;
};

static int refuse(const struct header_text *h, int error, const char *reason)
{
	return fault_set_detail(h->fault, error, h->walk.position, reason,
				(struct fault_detail){ h->name,
						       h->name_size });
}

static int no_memory(const struct header_text *h)
{
	return fault_set(h->fault, -ENOMEM, 0, "out of memory");
}

static bool is_key(const char *key, size_t size, const char *what)
{
	return size == strlen(what) && memcmp(key, what, size) == 0;
}

/* ---- members of a tensor ------------------------------------------------- */

static int take_dtype(const struct header_text *h, struct json_object *value,
		      struct safetensors_tensor *tensor)
{
	const char *name;
	size_t size;

	if (!json_object_is_type(value, json_type_string))
		return refuse(h, -EBADMSG, "tensor whose type is no string");
	name = json_object_get_string(value);
	size = (size_t)json_object_get_string_len(value);
	tensor->dtype = (uint8_t)dtype_from_safetensors(name, size);
	if (tensor->dtype == DTYPE_UNKNOWN)
		return fault_set_detail(h->fault, -EBADMSG, h->walk.position,
					"tensor of an unknown type",
					(struct fault_detail){ name, size });
	return 0;
}

/* 0 to 2^64 - 1, an integer and nothing that looks like one. */
static bool take_number(struct json_object *value, uint64_t *ret_number)
{
	if (!json_object_is_type(value, json_type_int))
		return false;
	*ret_number = json_object_get_uint64(value);
	/* The negative ones are 0 as unsigned numbers. */
	return *ret_number > 0 || json_object_get_int64(value) == 0;
}

static int take_shape(const struct header_text *h, struct json_object *value,
		      struct safetensors_tensor *tensor)
{
	uint64_t sizes[LIMIT_NDIM];
	size_t ndim, i;

	if (!json_object_is_type(value, json_type_array))
		return refuse(h, -EBADMSG, "tensor whose shape is no list");
	ndim = json_object_array_length(value);
	if (ndim > LIMIT_NDIM)
		return refuse(h, -E2BIG, "tensor of more than 32 axes");
	for (i = 0; i < ndim; i++)
		if (!take_number(json_object_array_get_idx(value, i),
				 &sizes[i]))
			return refuse(h, -EBADMSG, "bad size of a tensor");
	tensor->ndim = (uint8_t)ndim;
	tensor->dims = h->to->dims.size / sizeof(*sizes);
	return array_append(&h->to->dims, sizes, ndim * sizeof(*sizes)) ?
	       no_memory(h) : 0;
}

static int take_offsets(const struct header_text *h, struct json_object *value,
			struct safetensors_tensor *tensor)
{
	if (!json_object_is_type(value, json_type_array) ||
	    json_object_array_length(value) != 2 ||
	    !take_number(json_object_array_get_idx(value, 0),
			 &tensor->begin) ||
	    !take_number(json_object_array_get_idx(value, 1), &tensor->end) ||
	    tensor->begin > tensor->end)
		return refuse(h, -EBADMSG, "bad data_offsets of a tensor");
	return 0;
}

static int take_member(struct header_text *h, const char *key, size_t size,
		       unsigned *seen, struct safetensors_tensor *tensor)
{
	unsigned which = is_key(key, size, "dtype") ? SEEN_DTYPE :
			 is_key(key, size, "shape") ? SEEN_SHAPE :
			 is_key(key, size, "data_offsets") ? SEEN_OFFSETS : 0;
	struct json_object *value;
	int error;

	if (*seen & which)
		return refuse(h, -EBADMSG, "tensor with a key given twice");
	*seen |= which;
	error = json_walk_value(&h->walk, &value);
	if (error)
		return error;
	if (which == SEEN_DTYPE)
		error = take_dtype(h, value, tensor);
	else if (which == SEEN_SHAPE)
		error = take_shape(h, value, tensor);
	else if (which == SEEN_OFFSETS)
		error = take_offsets(h, value, tensor);
	json_object_put(value);
	return error;
}

/* Do the offsets fit the shape? The product of all that is not 0 must be a
 * number, too: strides are such products. */
static int check_size(const struct header_text *h,
		      const struct safetensors_tensor *tensor)
{
	const uint64_t *sizes = safetensors_dims(h->to, tensor);
	uint64_t bits = dtype_info(tensor->dtype)->bits;
	bool empty = false;
	unsigned i;

	for (i = 0; i < tensor->ndim; i++) {
		empty |= sizes[i] == 0;
		if (sizes[i] > 0 &&
		    __builtin_mul_overflow(bits, sizes[i], &bits))
			return refuse(h, -E2BIG, "tensor too large");
	}
	if (empty)
		bits = 0;
	if (bits % 8 != 0)
		return refuse(h, -EBADMSG, "tensor ends inside of a byte");
	if (bits / 8 != tensor->end - tensor->begin)
		return refuse(h, -EBADMSG,
			      "shape and data_offsets of a tensor differ");
	return 0;
}

static int read_tensor(struct header_text *h)
{
	struct safetensors_tensor tensor = {
		.name = h->to->names.size,
		.source = SAFETENSORS_PREFIX_SIZE + h->walk.position,
		.name_size = (uint32_t)h->name_size,
	};
	const char *key;
	size_t size;
	unsigned seen = 0;
	int error;

	if (h->name_size > LIMIT_NAME_SIZE)
		return refuse(h, -E2BIG, "name too long");
	/* The walk forgets the name at its next step. */
	if (array_append(&h->to->names, h->name, h->name_size))
		return no_memory(h);
	h->name = h->to->names.data + tensor.name;
	error = json_walk_enter(&h->walk);
	while (!error) {
		error = json_walk_next(&h->walk, &key, &size);
		if (error <= 0)
			break;
		error = take_member(h, key, size, &seen, &tensor);
	}
	if (!error && seen != SEEN_ALL)
		error = refuse(h, -EBADMSG,
			       "tensor without dtype, shape or data_offsets");
	if (!error)
		error = check_size(h, &tensor);
	if (error)
		return error;
	return array_append(&h->to->tensors, &tensor, sizeof(tensor)) ?
	       no_memory(h) : 0;
}

/* ---- the rest of the header ---------------------------------------------- */

static int take_text(struct header_text *h, bool sharding)
{
	uint64_t source = SAFETENSORS_PREFIX_SIZE + h->walk.position;
	struct json_object *value;
	int error = json_walk_value(&h->walk, &value);

	if (error)
		return error;
	if (!json_object_is_type(value, json_type_string)) {
		error = refuse(h, -EBADMSG, "__metadata__ has more than text");
	} else if (sharding && h->to->is_sharded) {
		error = refuse(h, -EBADMSG, "DCP_SHARDING_INFO given twice");
	} else if (sharding) {
		h->to->is_sharded = json_object_get_string_len(value) > 0;
		h->to->sharding_source = source;
		if (array_append(&h->to->sharding,
				 json_object_get_string(value),
				 (size_t)json_object_get_string_len(value)))
			error = no_memory(h);
	}
	json_object_put(value);
	return error;
}

static int read_metadata(struct header_text *h)
{
	const char *key;
	size_t size;
	int error;

	h->name_size = 0;
	if (h->has_metadata)
		return refuse(h, -EBADMSG, "__metadata__ given twice");
	h->has_metadata = true;
	error = json_walk_enter(&h->walk);
	while (!error) {
		error = json_walk_next(&h->walk, &key, &size);
		if (error <= 0)
			break;
		error = take_text(h, is_key(key, size, "DCP_SHARDING_INFO"));
	}
	return error;
}

static int read_members(struct header_text *h)
{
	int error = json_walk_enter(&h->walk);

	while (!error) {
		error = json_walk_next(&h->walk, &h->name, &h->name_size);
		if (error <= 0)
			break;
		error = is_key(h->name, h->name_size, "__metadata__") ?
			read_metadata(h) : read_tensor(h);
	}
	h->name_size = 0;
	return error ? error : json_walk_end(&h->walk);
}

int safetensors_text_read(struct safetensors *to, const char *text,
			  size_t size, struct fault *fault)
{
	struct header_text header = { .to = to, .fault = fault };
	int error = json_walk_init(&header.walk, text, size, fault);

	/* What is empty has an address, too. */
	if (!error && (array_append(&to->names, "", 1) ||
		       array_append(&to->dims, &(uint64_t){ 0 },
				    sizeof(uint64_t))))
		error = no_memory(&header);
	if (!error)
		error = read_members(&header);
	json_walk_finish(&header.walk);
	if (error && error != -ENOMEM && fault)
		fault->offset += SAFETENSORS_PREFIX_SIZE;
	return error;
}
