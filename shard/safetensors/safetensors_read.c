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
	uint64_t i = hash_64(name, size, s->seed) & mask;

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
	s->seed = hash_seed();
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
	array_finish(&safetensors->slots);
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
