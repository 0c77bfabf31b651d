/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file is
 *
 *	N: u64 | header: N bytes of JSON | the tensors, one behind the other
 *
 *	{"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
 *	 ..., "__metadata__": {"KEY": "TEXT", ...}}
 *
 * Offsets count from the end of the header. What the header describes, sorted
 * by offsets, covers the rest of the file exactly, so no two tensors share a
 * byte and none has a byte that is not there.
 *
 * Faults inside of the JSON are counted in it, and moved in one place.
 */
#include "shard/safetensors.h"

#include "shard/bytes.h"
#include "shard/json_walk.h"
#include "shard/name.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

enum { PREFIX_SIZE = 8 };

/* Which members of a tensor were seen. */
enum { SEEN_DTYPE = 1, SEEN_SHAPE = 2, SEEN_OFFSETS = 4, SEEN_ALL = 7 };

struct header {
	struct safetensors *to;
	struct json_walk walk;
	struct fault *fault;		/* borrowed, may be NULL */
	bool has_metadata;
	const char *name;		/* of the tensor at hand; borrowed */
	size_t name_size;
};

static int refuse(const struct header *h, int error, const char *reason)
{
	return fault_set_detail(h->fault, error, h->walk.position, reason,
				h->name, h->name_size);
}

static int no_memory(const struct header *h)
{
	return fault_set(h->fault, -ENOMEM, 0, "out of memory");
}

static bool is_key(const char *key, size_t size, const char *what)
{
	return size == strlen(what) && memcmp(key, what, size) == 0;
}

/* ---- members of a tensor --------------------------------------------------- */

static int take_dtype(const struct header *h, struct json_object *value,
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
					"tensor of an unknown type", name,
					size);
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

static int take_shape(const struct header *h, struct json_object *value,
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

static int take_offsets(const struct header *h, struct json_object *value,
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

static int take_member(struct header *h, const char *key, size_t size,
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
static int check_size(const struct header *h,
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

static int read_tensor(struct header *h)
{
	struct safetensors_tensor tensor = {
		.name = h->to->names.size,
		.source = PREFIX_SIZE + h->walk.position,
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

/* ---- the rest of the header ------------------------------------------------ */

static int take_text(struct header *h, bool sharding)
{
	uint64_t source = PREFIX_SIZE + h->walk.position;
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

static int read_metadata(struct header *h)
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

static int read_members(struct header *h)
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

static int read_text(struct safetensors *to, const char *text, size_t size,
		     struct fault *fault)
{
	struct header header = { .to = to, .fault = fault };
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
		fault->offset += PREFIX_SIZE;
	return error;
}

/* ---- all tensors together ---------------------------------------------------- */

static int compare_tensors(const void *a, const void *b)
{
	const struct safetensors_tensor *x = a, *y = b;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	if (x->end != y->end)
		return x->end < y->end ? -1 : 1;
	return x->source < y->source ? -1 : x->source > y->source;
}

static struct safetensors_tensor *tensor_at(struct safetensors *s, uint64_t i)
{
	return (struct safetensors_tensor *)(void *)s->tensors.data + i;
}

/* Most headers list tensors in the order of their data. */
static void sort_tensors(struct safetensors *s)
{
	uint64_t i;

	for (i = 1; i < s->tensor_count; i++)
		if (compare_tensors(tensor_at(s, i - 1), tensor_at(s, i)) > 0)
			break;
	if (i < s->tensor_count)
		qsort(s->tensors.data, s->tensor_count,
		      sizeof(struct safetensors_tensor), compare_tensors);
}

static int refuse_tensor(const struct safetensors *s,
			 const struct safetensors_tensor *tensor,
			 struct fault *fault, const char *reason)
{
	return fault_set_detail(fault, -EBADMSG, tensor->source, reason,
				safetensors_name(s, tensor),
				tensor->name_size);
}

static int check_tiling(struct safetensors *s, struct fault *fault)
{
	uint64_t i, end = 0;

	for (i = 0; i < s->tensor_count; i++) {
		const struct safetensors_tensor *tensor = tensor_at(s, i);

		if (tensor->begin < end)
			return refuse_tensor(s, tensor, fault,
					     "tensor overlaps another");
		if (tensor->begin > end)
			return refuse_tensor(s, tensor, fault,
					     "no tensor has the bytes before this one");
		end = tensor->end;
	}
	s->data_size = end;
	return 0;
}

/* The slot of @name: its own, or the free one where it belongs. */
static uint32_t *find_slot(const struct safetensors *s, const char *name,
			   size_t size)
{
	uint32_t *slots = (uint32_t *)(void *)s->slots.data;
	uint64_t mask = s->slots.size / sizeof(*slots) - 1;
	uint64_t i = name_hash(name, size, s->seed) & mask;

	for (; slots[i]; i = (i + 1) & mask) {
		const struct safetensors_tensor *tensor =
			safetensors_tensor(s, slots[i] - 1);

		if (tensor->name_size == size &&
		    memcmp(safetensors_name(s, tensor), name, size) == 0)
			break;
	}
	return &slots[i];
}

static int index_names(struct safetensors *s, struct fault *fault)
{
	uint64_t slot_count = 2, i;

	while (slot_count < 2 * s->tensor_count)
		slot_count *= 2;
	if (!array_add(&s->slots, slot_count * sizeof(uint32_t)))
		return fault_set(fault, -ENOMEM, 0, "out of memory");
	memset(s->slots.data, 0, s->slots.size);
	s->seed = name_seed();
	for (i = 0; i < s->tensor_count; i++) {
		const struct safetensors_tensor *tensor = tensor_at(s, i);
		uint32_t *slot = find_slot(s, safetensors_name(s, tensor),
					   tensor->name_size);

		if (*slot)
			return refuse_tensor(s, tensor, fault,
					     "two tensors of one name");
		*slot = (uint32_t)(i + 1);
	}
	return 0;
}

/* ---- the file -------------------------------------------------------------- */

/* The size of the header, which fits into the file and may be one. */
static int read_prefix(const struct input *input, size_t *ret_size,
		       struct fault *fault)
{
	unsigned char prefix[PREFIX_SIZE + 1];
	uint64_t size;
	int error;

	if (input->size < sizeof(prefix))
		return fault_set(fault, -EBADMSG, input->size,
				 "file too short for a header");
	error = input->read(input, prefix, sizeof(prefix), 0);
	if (error)
		return fault_set(fault, error, 0, "reading failed");
	size = bytes_u64le(prefix);
	if (size > LIMIT_SAFETENSORS_HEADER)
		return fault_set(fault, -E2BIG, 0,
				 "header larger than safetensors allows");
	if (size > input->size - PREFIX_SIZE)
		return fault_set(fault, -EBADMSG, 0,
				 "header ends beyond the end of the file");
	if (size == 0 || prefix[PREFIX_SIZE] != '{')
		return fault_set(fault, -EBADMSG, PREFIX_SIZE,
				 "header does not begin with {");
	*ret_size = size;
	return 0;
}

static int read_header(const struct input *input, size_t size,
		       struct safetensors *to, struct fault *fault)
{
	char *text = malloc(size);
	int error;

	if (!text)
		return fault_set(fault, -ENOMEM, 0, "out of memory");
	error = input->read(input, text, size, PREFIX_SIZE);
	if (error)
		fault_set(fault, error, PREFIX_SIZE, "reading failed");
	else
		error = read_text(to, text, size, fault);
	free(text);
	return error;
}

static int check_end(const struct safetensors *s, const struct input *input,
		     bool exact, struct fault *fault)
{
	uint64_t left = input->size - s->data_offset;

	if (s->data_size > left)
		return fault_set(fault, -EBADMSG, input->size,
				 "file ends before its tensors do");
	if (exact && s->data_size < left)
		return fault_set(fault, -EBADMSG,
				 s->data_offset + s->data_size,
				 "bytes behind the last tensor");
	return 0;
}

int safetensors_read(const struct input *input, bool exact,
		     struct safetensors *ret, struct fault *fault)
{
	struct safetensors s = { .data_offset = 0 };
	size_t size = 0;
	int error = read_prefix(input, &size, fault);

	if (error)
		return error;
	s.data_offset = PREFIX_SIZE + size;
	error = read_header(input, size, &s, fault);
	if (!error) {
		s.tensor_count =
			s.tensors.size / sizeof(struct safetensors_tensor);
		sort_tensors(&s);
		error = check_tiling(&s, fault);
	}
	if (!error)
		error = index_names(&s, fault);
	if (!error)
		error = check_end(&s, input, exact, fault);
	if (error)
		safetensors_finish(&s);
	else
		*ret = s;
	return error;
}

void safetensors_finish(struct safetensors *safetensors)
{
	array_finish(&safetensors->tensors);
	array_finish(&safetensors->dims);
	array_finish(&safetensors->names);
	array_finish(&safetensors->slots);
	array_finish(&safetensors->sharding);
}

/* ---- looking things up ------------------------------------------------------- */

const struct safetensors_tensor *
safetensors_tensor(const struct safetensors *safetensors, uint64_t index)
{
	return (const struct safetensors_tensor *)
		       (const void *)safetensors->tensors.data + index;
}

const char *safetensors_name(const struct safetensors *safetensors,
			     const struct safetensors_tensor *tensor)
{
	return safetensors->names.data + tensor->name;
}

const uint64_t *safetensors_dims(const struct safetensors *safetensors,
				 const struct safetensors_tensor *tensor)
{
	return (const uint64_t *)(const void *)safetensors->dims.data +
	       tensor->dims;
}

int64_t safetensors_find(const struct safetensors *safetensors,
			 const char *name, size_t size)
{
	return (int64_t)*find_slot(safetensors, name, size) - 1;
}

bool safetensors_pack(enum dtype dtype, unsigned ndim, const uint64_t *written,
		      uint64_t *ret_size)
{
	uint64_t bits = dtype_info(dtype)->bits;
	unsigned axis = ndim;

	if (ndim > 0)
		memmove(ret_size, written, ndim * sizeof(*written));
	if (bits % 8 == 0 || ndim == 0)
		return false;
	bits *= written[--axis];
	while (bits % 8 != 0 && axis > 0) {
		bits *= written[--axis];
		ret_size[axis] = 1;
	}
	ret_size[ndim - 1] = bits / 8;
	return true;
}
