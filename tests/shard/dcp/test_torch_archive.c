/* SPDX-License-Identifier: Apache-2.0 */
/* Stored items in all forms that are read. */
#include "support/test.h"
#include "support/item_out.h"

#include "shard/dcp/torch_archive.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An item at an odd place of a file. */
enum { BASE = 1000003 };

static int read_item(const struct array *item, enum dtype dtype,
		     const struct box *shard, struct layout *layout)
{
	struct input input = input_memory(item->data, item->size);
	struct fault fault = { .reason = "" };
	int error;

	input.base = BASE;
	error = torch_archive_layout(&input, dtype, shard, layout, &fault);
	if (error)
		print_error("byte %llu: %s %s\n",
			    (unsigned long long)fault.offset, fault.reason,
			    fault.detail);
	return error;
}

/* The layout that @spec asks for is what is found. */
static void check_item(const struct array *item, const struct item_spec *spec,
		       unsigned flags)
{
	struct box shard = { .ndim = spec->ndim };
	struct layout layout;
	const char *mark;

	memcpy(shard.size, spec->size, spec->ndim * sizeof(uint64_t));
	assert_int_equal(read_item(item, spec->dtype, &shard, &layout), 0);
	assert_int_equal(layout.flags, flags);
	assert_memory_equal(layout.stride, spec->stride,
			    spec->ndim * sizeof(uint64_t));
	/* The payload is where its bytes are. */
	mark = item->data + layout.offset - BASE -
	       spec->first * dtype_info(spec->dtype)->size;
	if (spec->storage)
		assert_memory_equal(mark, spec->storage, spec->storage_size);
}

static void check_spec(const struct item_spec *spec, unsigned flags)
{
	struct array item = { .data = NULL };

	item_out(&item, spec);
	check_item(&item, spec, flags);
	array_finish(&item);
}

static const uint64_t shape[2] = { 3, 4 };

static void every_type(void **state)
{
	static const char bytes[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	unsigned dtype;

	(void)state;
	for (dtype = 1; dtype < DTYPE_COUNT; dtype++) {
		struct item_spec spec =
			item_spec_make((enum dtype)dtype, 2, shape);

		if (spec.storage_size > 0 && spec.storage_size < sizeof(bytes))
			spec.storage = bytes;
		check_spec(&spec, 0);
	}
}

static void scalar_and_empty(void **state)
{
	static const uint64_t empty[3] = { 0, 5, 2 };
	struct item_spec spec = item_spec_make(DTYPE_F32, 0, NULL);

	(void)state;
	spec.storage = "abcd";
	check_spec(&spec, 0);
	spec = item_spec_make(DTYPE_F32, 3, empty);
	check_spec(&spec, 0);
	/* An empty tensor may say anything about strides and offset. */
	spec.stride[0] = INT64_MAX;
	spec.first = 7;
	check_spec(&spec, 0);
}

static void any_strides_inside_of_the_storage(void **state)
{
	struct item_spec spec = item_spec_make(DTYPE_U8, 2, shape);

	(void)state;
	spec.storage = "0123456789ab";
	spec.stride[0] = 1;
	spec.stride[1] = 3;
	check_spec(&spec, 0);
	spec.stride[0] = 0; /* expanded */
	check_spec(&spec, 0);
	spec.first = 2;
	check_spec(&spec, 0);
	spec = item_spec_make(DTYPE_U8, 2, shape);
	spec.storage_size = 40;
	spec.stride[0] = 10;
	spec.stride[1] = 2;
	spec.first = 13; /* 13 + 2 * 10 + 3 * 2 = 39 */
	check_spec(&spec, 0);
}

static void byte_orders(void **state)
{
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);

	(void)state;
	spec.byte_order = "little";
	check_spec(&spec, 0);
	spec.byte_order = "big";
	check_spec(&spec, LAYOUT_SWAP);
}

static void conjugate_and_negative_bits(void **state)
{
	struct item_spec spec = item_spec_make(DTYPE_C64, 2, shape);

	(void)state;
	spec.conj = true;
	check_spec(&spec, LAYOUT_CONJ);
	spec.neg = true;
	spec.byte_order = "big";
	check_spec(&spec, LAYOUT_CONJ | LAYOUT_NEG | LAYOUT_SWAP);
	spec.conj = false;
	check_spec(&spec, LAYOUT_NEG | LAYOUT_SWAP);
	/* Behind the type of _rebuild_tensor_v3. */
	spec = item_spec_make(DTYPE_BC32, 2, shape);
	spec.conj = true;
	check_spec(&spec, LAYOUT_CONJ);
}

/* A pickle around the tensor's own: @before, the call, @after. */
static void check_wrapped(const char *before, size_t before_size,
			  const char *after, size_t after_size)
{
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);
	struct array pickle = { .data = NULL }, item = { .data = NULL };

	put_proto(&pickle, 2);
	put_bytes(&pickle, before, before_size);
	item_out_call(&pickle, &spec);
	put_bytes(&pickle, after, after_size);
	item_out_archive(&item, &pickle, &spec);
	check_item(&item, &spec, 0);
	array_finish(&pickle);
	array_finish(&item);
}
#define CHECK_WRAPPED(before, after) \
	check_wrapped(before, sizeof(before) - 1, after, sizeof(after) - 1)

static void parameters(void **state)
{
	(void)state;
	CHECK_WRAPPED("ctorch._utils\n_rebuild_parameter\n(",
		      "\x88" "ccollections\nOrderedDict\n)RtR.");
	CHECK_WRAPPED("ctorch._utils\n_rebuild_parameter_with_state\n(",
		      "\x88" "ccollections\nOrderedDict\n)R}tR.");
}

/* _rebuild_from_type_v2(_rebuild_tensor_v2, type, args, state): the call's
 * REDUCE is undone by taking its function and arguments apart. */
static void subclasses(void **state)
{
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);
	struct array call = { .data = NULL }, pickle = { .data = NULL };
	struct array item = { .data = NULL };
	const char function[] = "ctorch._utils\n_rebuild_tensor_v2\n";
	size_t skip = sizeof(function) - 1;

	(void)state;
	item_out_call(&call, &spec);
	assert_memory_equal(call.data, function, skip);
	put_proto(&pickle, 2);
	PUT(&pickle, "ctorch._tensor\n_rebuild_from_type_v2\n(");
	PUT(&pickle, "ctorch._utils\n_rebuild_tensor_v2\n");
	PUT(&pickle, "cmy.module\nMyTensor\n");
	put_bytes(&pickle, call.data + skip, call.size - skip - 1);
	PUT(&pickle, "}tR.");
	item_out_archive(&item, &pickle, &spec);
	check_item(&item, &spec, 0);
	array_finish(&call);
	array_finish(&pickle);
	array_finish(&item);
}

static void quantized_tensors(void **state)
{
	struct item_spec spec = item_spec_make(DTYPE_QI8, 2, shape);
	struct array pickle = { .data = NULL }, item = { .data = NULL };

	(void)state;
	put_proto(&pickle, 2);
	PUT(&pickle, "ctorch._utils\n_rebuild_qtensor\n(");
	item_out_storage(&pickle, "QInt8Storage", "0", 12);
	PUT(&pickle, "K\0K\3K\4\x86K\4K\1\x86(");
	PUT(&pickle, "ctorch\nper_tensor_affine\nG\x3f\xf0\0\0\0\0\0\0K\0t");
	PUT(&pickle, "\x89" "ccollections\nOrderedDict\n)RtR.");
	spec.storage = "0123456789ab";
	item_out_archive(&item, &pickle, &spec);
	check_item(&item, &spec, 0);
	array_finish(&pickle);
	array_finish(&item);
}

/* data.pkl larger than the head that is read at once, and an item whose head
 * and tail are far apart. */
static void large_items(void **state)
{
	static const uint64_t large[2] = { 1000, 1000 };
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, large);
	struct array pickle = { .data = NULL }, item = { .data = NULL };
	unsigned i;

	(void)state;
	check_spec(&spec, 0);
	put_proto(&pickle, 2);
	for (i = 0; i < 5000; i++)
		PUT(&pickle, "K\1""0");
	item_out_call(&pickle, &spec);
	PUT(&pickle, ".");
	item_out_archive(&item, &pickle, &spec);
	check_item(&item, &spec, 0);
	array_finish(&pickle);
	array_finish(&item);
}

static void pickle_of_an_object(void **state)
{
	struct item_spec spec = { .storage_size = 0 };
	struct array pickle = { .data = NULL }, item = { .data = NULL };
	struct pickle parsed;
	struct input input;
	struct fault fault;
	int64_t number;
	void *data;

	(void)state;
	PUT(&pickle, "\x80\2K\x2a.");
	item_out_archive(&item, &pickle, &spec);
	input = input_memory(item.data, item.size);
	assert_int_equal(
		torch_archive_pickle(&input, 5, &data, &parsed, &fault), 0);
	assert_true(pickle_int(&parsed, parsed.root, &number));
	assert_int_equal(number, 42);
	pickle_finish(&parsed);
	free(data);
	assert_int_equal(torch_archive_pickle(&input, 4, &data, &parsed,
					      &fault),
			 -E2BIG);
	array_finish(&pickle);
	array_finish(&item);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type),
		cmocka_unit_test(scalar_and_empty),
		cmocka_unit_test(any_strides_inside_of_the_storage),
		cmocka_unit_test(byte_orders),
		cmocka_unit_test(conjugate_and_negative_bits),
		cmocka_unit_test(parameters),
		cmocka_unit_test(subclasses),
		cmocka_unit_test(quantized_tensors),
		cmocka_unit_test(large_items),
		cmocka_unit_test(pickle_of_an_object),
	};

	return cmocka_run_group_tests_name("item", tests, NULL, NULL);
}
