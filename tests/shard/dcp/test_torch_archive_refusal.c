/* SPDX-License-Identifier: Apache-2.0 */
/* Stored items that contradict the metadata, are damaged, or are of a form
 * that is not read. */
#include "support/test.h"
#include "support/dice.h"
#include "support/item_out.h"

#include "shard/dcp/torch_archive.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t shape[2] = { 3, 4 };
static const struct box shard = { 2, { 10, 20 }, { 3, 4 } };

/* @item read as float32, with what is to be said. */
static void check(const struct array *item, int error, const char *reason)
{
	struct input input = input_memory(item->data, item->size);
	struct fault fault = { .reason = NULL };
	struct layout layout;
	int found = torch_archive_layout(&input, DTYPE_F32, &shard, &layout,
					 &fault);

	if (found != error || fault.error != error || !fault.reason ||
	    !strstr(fault.reason, reason))
		fail_msg("%d, %s; expected %d, %s", found,
			 fault.reason ? fault.reason : "no reason", error,
			 reason);
	assert_true(fault.offset <= item->size);
}

static void check_spec(const struct item_spec *spec, int error,
		       const char *reason)
{
	struct array item = { .data = NULL };

	item_out(&item, spec);
	check(&item, error, reason);
	array_finish(&item);
}

/* An item of a float32 tensor whose data.pkl is @pickle. */
static void check_pickle(const void *pickle, size_t size, int error,
			 const char *reason)
{
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);
	struct array data = { .data = NULL }, item = { .data = NULL };

	put_bytes(&data, pickle, size);
	item_out_archive(&item, &data, &spec);
	check(&item, error, reason);
	array_finish(&data);
	array_finish(&item);
}
#define CHECK_PICKLE(pickle, error, reason) \
	check_pickle(pickle, sizeof(pickle) - 1, error, reason)

static void other_shape(void **state)
{
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);
	static const uint64_t turned[2] = { 4, 3 }, cube[3] = { 3, 4, 1 };

	(void)state;
	spec.size[0] = 2;
	check_spec(&spec, -EIO, "differ in shape");
	spec = item_spec_make(DTYPE_F32, 2, turned);
	check_spec(&spec, -EIO, "differ in shape");
	spec = item_spec_make(DTYPE_F32, 3, cube);
	check_spec(&spec, -EIO, "differ in shape");
	spec = item_spec_make(DTYPE_F32, 0, NULL);
	check_spec(&spec, -EIO, "differ in shape");
}

static void other_type(void **state)
{
	struct item_spec spec = item_spec_make(DTYPE_I32, 2, shape);

	(void)state;
	check_spec(&spec, -EIO, "differ in type");
	spec = item_spec_make(DTYPE_U32, 2, shape);
	check_spec(&spec, -EIO, "differ in type");
}

static void beyond_the_storage(void **state)
{
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);

	(void)state;
	spec.first = 1;
	check_spec(&spec, -EIO, "beyond its storage");
	spec.first = INT64_MAX;
	check_spec(&spec, -EIO, "beyond its storage");
	spec.first = 0;
	spec.stride[0] = 5;
	check_spec(&spec, -EIO, "beyond its storage");
	spec.stride[0] = INT64_MAX;
	check_spec(&spec, -EIO, "beyond its storage");
	spec.stride[0] = (UINT64_C(1) << 62) + 2;
	check_spec(&spec, -EIO, "beyond its storage");
	spec = item_spec_make(DTYPE_F32, 2, shape);
	spec.storage_size -= 4;
	check_spec(&spec, -EIO, "beyond its storage");
}

static void negative_numbers(void **state)
{
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);

	(void)state;
	spec.stride[1] = (uint64_t)-1;
	check_spec(&spec, -EIO, "bad size or stride");
	spec = item_spec_make(DTYPE_F32, 2, shape);
	spec.first = (uint64_t)-1;
	check_spec(&spec, -EIO, "bad offset");
}

static void unknown_byte_order(void **state)
{
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);

	(void)state;
	spec.byte_order = "middle";
	check_spec(&spec, -EIO, "unknown byte order");
	spec.byte_order = "BIG";
	check_spec(&spec, -EIO, "unknown byte order");
	spec.byte_order = "";
	check_spec(&spec, -EIO, "unknown byte order");
	spec.byte_order = "little\n";
	check_spec(&spec, -EIO, "unknown byte order");
}

static void pickles_that_make_no_tensor(void **state)
{
	(void)state;
	CHECK_PICKLE("\x80\2N.", -EIO, "holds no tensor");
	CHECK_PICKLE("\x80\2].", -EIO, "holds no tensor");
	CHECK_PICKLE("\x80\2" "ca\nb\n)\x81.", -EIO, "holds no tensor");
	CHECK_PICKLE("\x80\2N", -EBADMSG, "without STOP");
	CHECK_PICKLE("", -EBADMSG, "without STOP");
	CHECK_PICKLE("\x80\2I1\n.", -EBADMSG, "no checkpoint needs");
}

static void forms_that_are_not_read(void **state)
{
	(void)state;
	CHECK_PICKLE("ctorchao\nFloat8Tensor\n)R.", -EOPNOTSUPP,
		     "of a kind that is not read");
	CHECK_PICKLE("ctorch._utils\n_rebuild_sparse_tensor\nN\x85R.",
		     -EOPNOTSUPP, "of a kind that is not read");
	CHECK_PICKLE("ctorch._utils\n_rebuild_wrapper_subclass\nN\x85R.",
		     -EOPNOTSUPP, "of a kind that is not read");
	CHECK_PICKLE("K\1)R.", -EOPNOTSUPP, "of a kind that is not read");
	/* A parameter of nothing, or of something else. */
	CHECK_PICKLE("ctorch._utils\n_rebuild_parameter\n)R.", -EOPNOTSUPP,
		     "of a kind that is not read");
	CHECK_PICKLE("ctorch._utils\n_rebuild_parameter\nN\x85R.",
		     -EOPNOTSUPP, "of a kind that is not read");
	CHECK_PICKLE("ctorch._tensor\n_rebuild_from_type_v2\nNN\x86R.",
		     -EOPNOTSUPP, "of a kind that is not read");
}

static void name_of_the_unknown_form_is_said(void **state)
{
	static const char pickle[] = "ctorchao\nFloat8Tensor\n)R.";
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);
	struct array data = { .data = NULL }, item = { .data = NULL };
	struct layout layout;
	struct input input;
	struct fault fault;

	(void)state;
	PUT(&data, "\x80\2");
	put_bytes(&data, pickle, sizeof(pickle) - 1);
	item_out_archive(&item, &data, &spec);
	input = input_memory(item.data, item.size);
	assert_int_equal(torch_archive_layout(&input, DTYPE_F32, &shard,
					      &layout, &fault),
			 -EOPNOTSUPP);
	assert_string_equal(fault.detail, "Float8Tensor");
	assert_memory_equal(item.data + fault.offset, "ctorchao", 8);
	array_finish(&data);
	array_finish(&item);
}

/* A subclass whose arguments are its own, and 20 parameters one in the other:
 * what unwraps them comes to an end. */
static void endless_wrapping_ends(void **state)
{
	struct array pickle = { .data = NULL };
	unsigned i;

	(void)state;
	for (i = 0; i < 20; i++)
		PUT(&pickle, "ctorch._utils\n_rebuild_parameter\n");
	PUT(&pickle, "ca\nb\n)R");
	for (i = 0; i < 20; i++)
		PUT(&pickle, "\x85R");
	PUT(&pickle, ".");
	check_pickle(pickle.data, pickle.size, -EOPNOTSUPP, "not read");
	array_finish(&pickle);
	CHECK_PICKLE("ctorch._tensor\n_rebuild_from_type_v2\nq\0(h\0N(h\0N(h\0"
		     "N(h\0N(h\0N(h\0N(h\0N(h\0N(h\0NNtttttttttR.",
		     -EOPNOTSUPP, "not read");
}

#define V2 "ctorch._utils\n_rebuild_tensor_v2\n("
#define STORAGE(type, key) "(\x8c\7storagectorch\n" type "\n" key \
			   "\x8c\3cpuK\x0ctQ"
#define REST "K\0K\3K\4\x86K\4K\1\x86\x89NtR."

static void bad_storages(void **state)
{
	(void)state;
	CHECK_PICKLE(V2 "N" REST, -EIO, "bad storage");
	CHECK_PICKLE(V2 "NQ" REST, -EIO, "bad storage");
	CHECK_PICKLE(V2 ")Q" REST, -EIO, "bad storage");
	CHECK_PICKLE(V2 STORAGE("FloatStorage", "\x8c\1" "0") "tR.", -EIO,
		     "bad storage");
	CHECK_PICKLE(V2 STORAGE("FloatStorage", "K\0") REST, -EIO,
		     "bad storage");
	CHECK_PICKLE(V2 STORAGE("OddStorage", "\x8c\1" "0") REST, -EOPNOTSUPP,
		     "unknown type");
	CHECK_PICKLE(V2 STORAGE("FloatStorage", "\x8c\1" "1") REST, -EIO,
		     "no record with the elements");
	CHECK_PICKLE(V2 STORAGE("FloatStorage", "\x8c\0") REST, -EIO,
		     "no record with the elements");
	CHECK_PICKLE(V2 STORAGE("FloatStorage",
		     "\x8c\x4eKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK"
		     "KKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK") REST, -EIO,
		     "long name");
}

static void storage_and_record_differ_in_size(void **state)
{
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);
	struct array pickle = { .data = NULL }, item = { .data = NULL };

	(void)state;
	put_proto(&pickle, 2);
	item_out_call(&pickle, &spec);
	PUT(&pickle, ".");
	spec.storage_size += 4;
	item_out_archive(&item, &pickle, &spec);
	check(&item, -EIO, "storage and its record differ");
	array_finish(&pickle);
	array_finish(&item);
}

static void not_an_archive(void **state)
{
	struct array item = { .data = NULL };
	unsigned i;

	(void)state;
	for (i = 0; i < 500; i++)
		PUT(&item, "x");
	check(&item, -EIO, "not an archive");
	item.size = 10;
	check(&item, -EIO, "too short");
	item.size = 0;
	check(&item, -EIO, "too short");
	/* The safetensors form of a checkpoint: formats.md, 2.10. */
	put_u64(&item, 300);
	for (i = 0; i < 100; i++)
		PUT(&item, "{\"a\": 1}");
	check(&item, -EOPNOTSUPP, "safetensors");
	array_finish(&item);
}

static void too_large_a_pickle(void **state)
{
	struct array pickle = { .data = NULL };
	unsigned i;

	(void)state;
	for (i = 0; i < 33000; i++)
		PUT(&pickle, "N0");
	PUT(&pickle, "N.");
	check_pickle(pickle.data, pickle.size, -E2BIG, "too large");
	array_finish(&pickle);
}

/* A flip in a stride makes another tensor of the same bytes; only the checksum
 * of data.pkl tells. */
static void pickle_that_does_not_match_its_checksum(void **state)
{
	static const uint64_t square[2] = { 4, 4 };
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, square);
	const struct box box = { 2, { 0 }, { 4, 4 } };
	struct array item = { .data = NULL };
	struct layout layout;
	struct input input;
	struct fault fault;
	char *strides;

	(void)state;
	spec.checked = true;
	item_out(&item, &spec);
	input = input_memory(item.data, item.size);
	assert_int_equal(torch_archive_layout(&input, DTYPE_F32, &box, &layout,
					      &fault),
			 0);
	strides = memmem(item.data, item.size, "(K\4K\1t", 6);
	assert_non_null(strides);
	strides[2] = 1;
	assert_int_equal(torch_archive_layout(&input, DTYPE_F32, &box, &layout,
					      &fault),
			 -EIO);
	assert_non_null(strstr(fault.reason, "checksum"));
	array_finish(&item);
}

/* Any damage: an error or not, but nothing else. */
static void random_damage(void **state)
{
	struct item_spec spec = item_spec_make(DTYPE_C64, 2, shape);
	struct box box = { 2, { 0 }, { 3, 4 } };
	struct dice dice = dice_make();
	struct array item = { .data = NULL };
	unsigned i, j;
	char *data;

	(void)state;
	spec.byte_order = "little";
	spec.conj = true;
	item_out(&item, &spec);
	data = malloc(item.size);
	assert_non_null(data);
	for (i = 0; i < 20000; i++) {
		struct fault fault = { .reason = NULL };
		struct layout layout;
		struct input input;
		int error;

		memcpy(data, item.data, item.size);
		for (j = 0; j < 2; j++)
			data[dice_below(&dice, item.size)] =
				(char)dice_any(&dice);
		input = input_memory(data, item.size);
		error = torch_archive_layout(&input, DTYPE_C64, &box, &layout,
					     &fault);
		if (error)
			assert_int_equal(fault.error, error);
		else
			assert_true(layout.offset + 96 <= item.size);
	}
	free(data);
	array_finish(&item);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(other_shape),
		cmocka_unit_test(other_type),
		cmocka_unit_test(beyond_the_storage),
		cmocka_unit_test(negative_numbers),
		cmocka_unit_test(unknown_byte_order),
		cmocka_unit_test(pickles_that_make_no_tensor),
		cmocka_unit_test(forms_that_are_not_read),
		cmocka_unit_test(name_of_the_unknown_form_is_said),
		cmocka_unit_test(endless_wrapping_ends),
		cmocka_unit_test(bad_storages),
		cmocka_unit_test(storage_and_record_differ_in_size),
		cmocka_unit_test(not_an_archive),
		cmocka_unit_test(too_large_a_pickle),
		cmocka_unit_test(pickle_that_does_not_match_its_checksum),
		cmocka_unit_test(random_damage),
	};

	return cmocka_run_group_tests_name("item_refusal", tests, NULL, NULL);
}
