/* SPDX-License-Identifier: Apache-2.0 */
#include "support/header_in.h"

#include "support/test.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* enum Dtype of tensor.rs, which is sorted by alignment. */
static const struct {
	const char *name;
	unsigned bits;
} dtypes[] = {
	{ "BOOL", 8 }, { "F4", 4 }, { "F6_E2M3", 6 }, { "F6_E3M2", 6 },
	{ "U8", 8 }, { "I8", 8 }, { "F8_E5M2", 8 }, { "F8_E4M3", 8 },
	{ "F8_E8M0", 8 }, { "F8_E4M3FNUZ", 8 }, { "F8_E5M2FNUZ", 8 },
	{ "I16", 16 }, { "U16", 16 }, { "F16", 16 }, { "BF16", 16 },
	{ "I32", 32 }, { "U32", 32 }, { "F32", 32 }, { "C64", 64 },
	{ "F64", 64 }, { "I64", 64 }, { "U64", 64 },
};

unsigned header_in_bits(const char *dtype, unsigned *ret_order)
{
	unsigned i;

	for (i = 0; i < COUNT_OF(dtypes); i++)
		if (strcmp(dtypes[i].name, dtype) == 0) {
			*ret_order = i;
			return dtypes[i].bits;
		}
	fail_msg("safetensors has no type %s", dtype);
	return 0;
}

static uint64_t number_at(struct json_object *array, size_t index)
{
	struct json_object *number = json_object_array_get_idx(array, index);

	assert_true(json_object_is_type(number, json_type_int));
	assert_true(json_object_get_int64(number) >= 0);
	return (uint64_t)json_object_get_int64(number);
}

static void parse_tensor(struct header_tensor *tensor,
			 struct json_object *value)
{
	struct json_object *dtype, *shape, *offsets;
	uint64_t bits;
	unsigned order, i;

	assert_int_equal(json_object_object_length(value), 3);
	assert_true(json_object_object_get_ex(value, "dtype", &dtype));
	assert_true(json_object_object_get_ex(value, "shape", &shape));
	assert_true(json_object_object_get_ex(value, "data_offsets",
					      &offsets));
	tensor->dtype = json_object_get_string(dtype);
	tensor->ndim = (unsigned)json_object_array_length(shape);
	assert_true(tensor->ndim <= COUNT_OF(tensor->shape));
	bits = header_in_bits(tensor->dtype, &order);
	for (i = 0; i < tensor->ndim; i++) {
		tensor->shape[i] = number_at(shape, i);
		bits *= tensor->shape[i];
	}
	assert_int_equal(json_object_array_length(offsets), 2);
	tensor->begin = number_at(offsets, 0);
	tensor->end = number_at(offsets, 1);
	assert_int_equal(bits % 8, 0);
	assert_int_equal(tensor->end - tensor->begin, bits / 8);
}

static void check_metadata(struct json_object *metadata)
{
	json_object_object_foreach(metadata, key, value) {
		(void)key;
		assert_true(json_object_is_type(value, json_type_string));
	}
}

/* Names may hold NUL, which only a look at each entry tells: such names are
 * not for this reader. */
void header_in_parse(struct header_in *header, const void *data, size_t size)
{
	const unsigned char *p = data;
	struct json_tokener *tokener;
	uint64_t length = 0;
	unsigned i;

	*header = (struct header_in){ .root = NULL };
	assert_true(size >= 8);
	for (i = 0; i < 8; i++)
		length |= (uint64_t)p[i] << 8 * i;
	assert_true(length <= size - 8 && length <= 100000000);
	header->size = 8 + length;
	assert_int_equal(p[8], '{');
	tokener = json_tokener_new();
	assert_non_null(tokener);
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT |
					JSON_TOKENER_VALIDATE_UTF8);
	header->root = json_tokener_parse_ex(tokener, (const char *)p + 8,
					     (int)length);
	assert_int_equal(json_tokener_get_error(tokener),
			 json_tokener_success);
	for (i = (unsigned)json_tokener_get_parse_end(tokener); i < length; i++)
		assert_int_equal(p[8 + i], ' ');
	json_tokener_free(tokener);
	header->tensors = calloc((size_t)
		json_object_object_length(header->root) + 1,
		sizeof(*header->tensors));
	assert_non_null(header->tensors);
	json_object_object_foreach(header->root, key, value) {
		struct header_tensor *tensor = &header->tensors[header->count];

		if (strcmp(key, "__metadata__") == 0) {
			check_metadata(value);
			continue;
		}
		tensor->name = key;
		tensor->name_size = strlen(key);
		parse_tensor(tensor, value);
		/* No holes, no overlaps. */
		assert_int_equal(tensor->begin, header->data_size);
		header->data_size = tensor->end;
		header->count++;
	}
}

void header_in_free(struct header_in *header)
{
	json_object_put(header->root);
	free(header->tensors);
}

const char *header_in_metadata(const struct header_in *header,
			       const char *key)
{
	struct json_object *metadata, *value;

	if (!json_object_object_get_ex(header->root, "__metadata__",
				       &metadata) ||
	    !json_object_object_get_ex(metadata, key, &value))
		return NULL;
	return json_object_get_string(value);
}
