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
 */
#include "shard/safetensors/safetensors.h"

#include "shard/base/bytes.h"
#include "shard/base/hash.h"
#include "shard/safetensors/safetensors_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PREFIX_SIZE = SAFETENSORS_PREFIX_SIZE };

/* ---- all tensors together ------------------------------------------------ */

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
				(struct fault_detail){
					safetensors_name(s, tensor),
					tensor->name_size });
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

static uint64_t hash_name(const void *owner, uint32_t index)
{
	const struct safetensors *s = owner;
	const struct safetensors_tensor *tensor = safetensors_tensor(s, index);

	return hash_64(safetensors_name(s, tensor), tensor->name_size,
		       s->table.seed);
}

static bool equal_name(const void *owner, uint32_t index, const void *key)
{
	const struct safetensors_tensor *tensor =
		safetensors_tensor(owner, index);
	const struct hash_table_text *wanted = key;

	return tensor->name_size == wanted->size &&
	       memcmp(safetensors_name(owner, tensor), wanted->data,
		      wanted->size) == 0;
}

static int index_names(struct safetensors *s, struct fault *fault)
{
	static const struct hash_table_keys keys = { hash_name, equal_name };
	uint32_t i;
	int error;

	hash_table_init(&s->table, &keys);
	error = hash_table_reserve(&s->table, s, s->tensor_count);
	for (i = 0; i < s->tensor_count && !error; i++) {
		const struct safetensors_tensor *tensor = tensor_at(s, i);

		if (safetensors_find(s, safetensors_name(s, tensor),
				     tensor->name_size) >= 0)
			return refuse_tensor(s, tensor, fault,
					     "two tensors of one name");
		error = hash_table_insert(&s->table, s, i);
	}
	return error ? fault_set(fault, error, 0, "out of memory") : 0;
}

/* ---- the file ------------------------------------------------------------ */

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
		error = safetensors_text_read(to, text, size, fault);
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
	hash_table_finish(&safetensors->table);
	array_finish(&safetensors->sharding);
}

/* ---- looking things up --------------------------------------------------- */

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
	const struct hash_table_text key = { name, size };
	const struct hash_table *table = &safetensors->table;

	return hash_table_find(table, safetensors,
			       hash_64(name, size, table->seed), &key);
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
