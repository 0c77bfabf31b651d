/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header of a safetensors file, and the sharding in it. An input is the
 * header's text; the prefix and the data are added here. What is taken must be
 * what json-c's tree of the same text says, and cover its data exactly.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/safetensors_file.h"

#include "shard/safetensors/sharding.h"

#include <json-c/json.h>

/* ---- against the tree ---------------------------------------------------- */

static struct json_object *make_tree(const void *text, size_t size)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *tree;

	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT |
					JSON_TOKENER_VALIDATE_UTF8);
	tree = json_tokener_parse_ex(tokener, text, (int)size);
	CHECK(json_tokener_get_error(tokener) == json_tokener_success);
	json_tokener_free(tokener);
	return tree;
}

static uint64_t number_at(struct json_object *list, size_t index)
{
	struct json_object *number = json_object_array_get_idx(list, index);

	CHECK(json_object_is_type(number, json_type_int));
	return json_object_get_uint64(number);
}

static void check_members(const struct safetensors *s,
			  const struct safetensors_tensor *tensor,
			  struct json_object *members)
{
	const uint64_t *sizes = safetensors_dims(s, tensor);
	struct json_object *value;
	unsigned i;

	CHECK(json_object_object_get_ex(members, "dtype", &value));
	CHECK(strcmp(json_object_get_string(value),
		     dtype_info(tensor->dtype)->name) == 0);
	CHECK(json_object_object_get_ex(members, "data_offsets", &value));
	CHECK(number_at(value, 0) == tensor->begin);
	CHECK(number_at(value, 1) == tensor->end);
	CHECK(json_object_object_get_ex(members, "shape", &value));
	CHECK(json_object_array_length(value) == tensor->ndim);
	for (i = 0; i < tensor->ndim; i++)
		CHECK(number_at(value, i) == sizes[i]);
}

/* json-c cuts keys at a NUL: such trees are not looked at. */
static void check_tree(const struct safetensors *s, const void *text,
		       size_t size)
{
	struct json_object *tree, *members;
	uint64_t i, metadata;

	if (memmem(text, size, "\\u0000", 6))
		return;
	tree = make_tree(text, size);
	metadata = json_object_object_get_ex(tree, "__metadata__", NULL);
	CHECK((uint64_t)json_object_object_length(tree) ==
	      s->tensor_count + metadata);
	for (i = 0; i < s->tensor_count; i++) {
		const struct safetensors_tensor *tensor =
			safetensors_tensor(s, i);
		char *name = strndup(safetensors_name(s, tensor),
				     tensor->name_size);

		CHECK(name && json_object_object_get_ex(tree, name, &members));
		check_members(s, tensor, members);
		free(name);
	}
	json_object_put(tree);
}

/* ---- what must hold ------------------------------------------------------ */

static void check_tensor(const struct safetensors *s, uint64_t index,
			 size_t size)
{
	const struct safetensors_tensor *tensor = safetensors_tensor(s, index);
	const uint64_t *sizes = safetensors_dims(s, tensor);
	unsigned __int128 bits = dtype_info(tensor->dtype)->bits, bytes = 1;
	uint64_t packed[LIMIT_NDIM];
	unsigned i;

	CHECK(dtype_info(tensor->dtype)->order > 0);
	CHECK(tensor->ndim <= LIMIT_NDIM);
	CHECK(tensor->source < SAFETENSORS_PREFIX + size);
	for (i = 0; i < tensor->ndim; i++)
		bits *= sizes[i];
	CHECK(bits == (unsigned __int128)(tensor->end - tensor->begin) * 8);
	safetensors_pack(tensor->dtype, tensor->ndim, sizes, packed);
	for (i = 0; i < tensor->ndim; i++)
		bytes *= packed[i];
	CHECK(bytes * dtype_info(tensor->dtype)->size ==
	      tensor->end - tensor->begin);
	CHECK(safetensors_find(s, safetensors_name(s, tensor),
			       tensor->name_size) == (int64_t)index);
}

static void check_sharding(const struct safetensors *s, size_t size)
{
	struct fault fault = { .error = 0 };
	struct sharding_piece piece;
	struct sharding sharding;
	uint64_t i;
	unsigned j;
	int error = sharding_read(s, &sharding, &fault);

	if (error) {
		CHECK(error == -EBADMSG || error == -E2BIG);
		CHECK(s->is_sharded && fault.error == error && fault.reason);
		CHECK(fault.offset < SAFETENSORS_PREFIX + size);
		return;
	}
	for (i = 0; i < s->tensor_count; i++) {
		sharding_piece(&sharding, s, i, &piece);
		CHECK(piece.name_size <= LIMIT_NAME_SIZE);
		for (j = 0; j < safetensors_tensor(s, i)->ndim; j++) {
			CHECK(!piece.offsets ||
			      piece.offsets[j] <= LIMIT_TENSOR_SIZE);
			CHECK(!piece.global ||
			      piece.global[j] <= LIMIT_TENSOR_SIZE);
		}
	}
	sharding_finish(&sharding);
}

static void check_good(const struct safetensors *s, const void *text,
		       size_t size)
{
	uint64_t i, end = 0;

	CHECK(s->data_offset == SAFETENSORS_PREFIX + size);
	for (i = 0; i < s->tensor_count; i++) {
		check_tensor(s, i, size);
		CHECK(safetensors_tensor(s, i)->begin == end);
		end = safetensors_tensor(s, i)->end;
	}
	CHECK(s->data_size == end);
	check_tree(s, text, size);
	check_sharding(s, size);
}

/* ---- reading ------------------------------------------------------------- */

struct attempt {
	const void *file;
	size_t size;		/* of the header */
	uint64_t file_size;
	unsigned reads;		/* until one fails */
	bool exact;
};

static int attempt(struct attempt a, struct safetensors *ret)
{
	struct guarded_input input = safetensors_file_input(
		a.file, a.size, a.file_size, &a.reads);
	struct fault fault = { .error = 0 };
	int error = safetensors_read(&input.input, a.exact, ret, &fault);

	if (error) {
		CHECK(fault.error == error && fault.reason);
		CHECK(fault.offset <= a.file_size);
	}
	return error;
}

/* The same file is also read cut off, with a byte too much, and with a read
 * that fails. */
static void try_sizes(const struct safetensors *s, const void *file,
		      size_t size)
{
	uint64_t end = s->data_offset + s->data_size;
	struct attempt a = { file, size, end, 9, true };
	struct safetensors other;

	CHECK(attempt(a, &other) == 0);
	CHECK(other.tensor_count == s->tensor_count);
	safetensors_finish(&other);
	a.file_size = end + 1;
	CHECK(attempt(a, &other) == -EBADMSG);
	a.file_size = end - 1;
	CHECK(attempt(a, &other) == -EBADMSG);
	a.exact = false;
	CHECK(attempt(a, &other) == -EBADMSG);
	a.file_size = end;
	a.reads = end % 2;
	CHECK(attempt(a, &other) == GUARDED_ERROR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	void *file = safetensors_file(data, size);
	struct attempt a = { file, size, UINT64_MAX / 2, 9, false };
	struct safetensors s;
	int error;

	if (size == 0)
		a.file_size = SAFETENSORS_PREFIX;
	error = attempt(a, &s);
	if (error) {
		CHECK(error == -EBADMSG || error == -E2BIG);
	} else {
		check_good(&s, data, size);
		try_sizes(&s, file, size);
		safetensors_finish(&s);
	}
	free(file);
	return 0;
}
