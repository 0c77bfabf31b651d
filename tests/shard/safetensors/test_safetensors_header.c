/* SPDX-License-Identifier: Apache-2.0 */
/* The header of a safetensors file that is written, read back by json-c. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/header_in.h"

#include "shard/safetensors/safetensors_header.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One tensor, and the header of a file of it. */
struct made {
	struct catalog *catalog;
	struct array text;
	struct header_in header;
};

struct tensor {
	const char *name;
	size_t name_size;	/* 0: up to its NUL */
	enum dtype dtype;
	unsigned ndim;
	uint64_t shape[4];	/* as the catalog has it */
	uint64_t written[4];	/* if the first is not 0: it is packed */
};

static struct catalog *make_catalog(const struct tensor *tensors,
				    unsigned count)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct catalog_item item = { .size = 1 };
	struct fault fault;
	unsigned i;

	assert_int_equal(catalog_builder_file(builder, "f", 1, &item.file), 0);
	for (i = 0; i < count; i++) {
		const struct tensor *t = &tensors[i];
		const uint64_t zeros[4] = { 0 };
		const struct catalog_tensor tensor = {
			.name = t->name,
			.name_size = t->name_size ? t->name_size :
						    strlen(t->name),
			.dtype = t->dtype,
			.shape = catalog_out_box(t->ndim, zeros, t->shape),
			.written = t->written[0] ? t->written : NULL,
		};

		assert_int_equal(catalog_builder_begin(builder, &tensor,
						       &fault), 0);
		assert_int_equal(catalog_builder_shard(builder, &tensor.shape,
						       &item, &fault), 0);
		catalog_out_end(builder);
	}
	return catalog_out_finish(builder);
}

static void parse_made(struct made *made)
{
	assert_int_equal(made->text.size % 4096, 0);
	header_in_parse(&made->header, made->text.data, made->text.size);
	assert_int_equal(made->header.size, made->text.size);
	assert_string_equal(header_in_metadata(&made->header, "format"), "pt");
}

static void free_made(struct made *made)
{
	header_in_free(&made->header);
	array_finish(&made->text);
	catalog_put(made->catalog);
}

/* A file of the whole of one tensor. */
static void make_whole(struct made *made, const struct tensor *tensor)
{
	struct safetensors_header header = { .catalog = NULL };
	const struct safetensors_header_tensor whole = {
		.dtype = tensor->dtype, .key = tensor->name,
		.key_size = strlen(tensor->name),
	};

	*made = (struct made){ .catalog = make_catalog(tensor, 1) };
	header.catalog = made->catalog;
	assert_true(safetensors_header_fits(made->catalog, &whole));
	assert_int_equal(safetensors_header_add(&header, &whole), 0);
	assert_int_equal(safetensors_header_finish(&header, &made->text), 0);
	safetensors_header_clear(&header);
	parse_made(made);
	assert_int_equal(made->header.count, 1);
	assert_string_equal(made->header.tensors[0].name, tensor->name);
}

/* A file of a part of it, in the catalog's numbers. */
static void make_part(struct made *made, const struct tensor *tensor,
		      const struct box *part)
{
	*made = (struct made){ .catalog = make_catalog(tensor, 1) };
	assert_int_equal(safetensors_header_slice(made->catalog, 0,
						  tensor->dtype, part,
						  &made->text), 0);
	parse_made(made);
	assert_int_equal(made->header.count, 1);
	assert_string_equal(made->header.tensors[0].name, tensor->name);
}

static void check_shape(const struct made *made, const char *dtype,
			unsigned ndim, const uint64_t *shape, uint64_t size)
{
	const struct header_tensor *tensor = &made->header.tensors[0];

	assert_string_equal(tensor->dtype, dtype);
	assert_int_equal(tensor->ndim, ndim);
	assert_memory_equal(tensor->shape, shape, ndim * sizeof(*shape));
	assert_int_equal(made->header.data_size, size);
}

#define SHAPE(...) sizeof((uint64_t[]){ __VA_ARGS__ }) / 8, \
	(uint64_t[]){ __VA_ARGS__ }

/* ---- shapes -------------------------------------------------------------- */

static void shapes_as_they_are(void **state)
{
	static const struct tensor scalar = { "s", 0, DTYPE_BF16, 0, { 0 },
					      { 0 } };
	static const struct tensor cube = { "c", 0, DTYPE_C64, 3, { 2, 3, 4 },
					    { 0 } };
	static const struct tensor empty = { "e", 0, DTYPE_I64, 2, { 0, 7 },
					     { 0 } };
	struct made made;

	(void)state;
	make_whole(&made, &scalar);
	check_shape(&made, "BF16", 0, NULL, 2);
	free_made(&made);
	make_whole(&made, &cube);
	check_shape(&made, "C64", SHAPE(2, 3, 4), 192);
	free_made(&made);
	make_whole(&made, &empty);
	check_shape(&made, "I64", SHAPE(0, 7), 0);
	free_made(&made);
}

/* A byte of torch's F4 is two elements of the header. */
static void float4_of_torch_is_doubled(void **state)
{
	static const struct tensor tensor = {
		"f4", 0, DTYPE_F4, 2, { 5, 3 }, { 0 },
	};
	struct box part = BOX2(1, 1, 4, 2);
	struct made made;

	(void)state;
	make_whole(&made, &tensor);
	check_shape(&made, "F4", SHAPE(5, 6), 15);
	free_made(&made);
	make_part(&made, &tensor, &part);
	check_shape(&made, "F4", SHAPE(4, 4), 8);
	assert_string_equal(header_in_metadata(&made.header,
					       "DCP_SHARDING_INFO"),
			    "{\"f4\":{\"saved_offsets\":[1,1],"
			    "\"global_shape\":[5,3]}}");
	free_made(&made);
}

/* A scalar has no axis to double. */
static void float4_without_an_axis_does_not_fit(void **state)
{
	static const struct tensor tensor = { "f4", 0, DTYPE_F4, 0, { 0 },
					      { 0 } };
	const struct safetensors_header_tensor whole = {
		.dtype = DTYPE_F4, .key = "f4", .key_size = 2,
	};
	struct catalog *catalog = make_catalog(&tensor, 1);

	(void)state;
	assert_false(safetensors_header_fits(catalog, &whole));
	catalog_put(catalog);
}

/* What came from safetensors goes back as it was. */
static void packed_types_keep_their_shape(void **state)
{
	static const struct {
		struct tensor tensor;
		uint64_t size;
	} cases[] = {
		{ { "f6", 0, DTYPE_F6_E2M3, 2, { 4, 6 }, { 4, 8 } }, 24 },
		{ { "f6", 0, DTYPE_F6_E3M2, 3, { 5, 1, 3 }, { 5, 2, 2 } },
		  15 },
		{ { "f4", 0, DTYPE_F4, 2, { 5, 3 }, { 5, 6 } }, 15 },
		{ { "f4", 0, DTYPE_F4, 2, { 1, 3 }, { 2, 3 } }, 3 },
	};
	struct made made;
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(cases); i++) {
		const struct tensor *tensor = &cases[i].tensor;

		make_whole(&made, tensor);
		check_shape(&made, dtype_info(tensor->dtype)->name,
			    tensor->ndim, tensor->written, cases[i].size);
		free_made(&made);
	}
}

static void parts_of_packed_types(void **state)
{
	static const struct tensor f6 = {
		"f6", 0, DTYPE_F6_E2M3, 2, { 4, 6 }, { 4, 8 },
	};
	static const struct tensor rows = {
		"r", 0, DTYPE_F6_E3M2, 3, { 5, 1, 3 }, { 5, 2, 2 },
	};
	struct box part = BOX2(1, 3, 2, 3);
	struct made made;

	(void)state;
	make_part(&made, &f6, &part);
	check_shape(&made, "F6_E2M3", SHAPE(2, 4), 6);
	free_made(&made);
	part = catalog_out_box(3, (uint64_t[]){ 2, 0, 0 },
			       (uint64_t[]){ 3, 1, 3 });
	make_part(&made, &rows, &part);
	check_shape(&made, "F6_E3M2", SHAPE(3, 2, 2), 9);
	free_made(&made);
}

/* ---- slices -------------------------------------------------------------- */

static void slices_say_where_they_lie(void **state)
{
	static const struct tensor tensor = {
		"a.\"b\"\n", 0, DTYPE_F32, 2, { 40, 30 }, { 0 },
	};
	struct box part = BOX2(8, 0, 4, 30), whole = BOX2(0, 0, 40, 30);
	struct made made;

	(void)state;
	make_part(&made, &tensor, &part);
	check_shape(&made, "F32", SHAPE(4, 30), 480);
	assert_string_equal(header_in_metadata(&made.header, "DCP_VERSION"),
			    "1.0");
	assert_string_equal(header_in_metadata(&made.header,
					       "DCP_SHARDING_INFO"),
			    "{\"a.\\\"b\\\"\\n\":{\"saved_offsets\":[8,0],"
			    "\"global_shape\":[40,30]}}");
	free_made(&made);
	/* The whole is no piece of anything. */
	make_part(&made, &tensor, &whole);
	check_shape(&made, "F32", SHAPE(40, 30), 4800);
	assert_null(header_in_metadata(&made.header, "DCP_SHARDING_INFO"));
	assert_null(header_in_metadata(&made.header, "DCP_VERSION"));
	free_made(&made);
}

static void slices_of_what_does_not_fit(void **state)
{
	static const struct tensor tensors[] = {
		{ "c", 0, DTYPE_C128, 1, { 4 }, { 0 } },
		{ "q", 0, DTYPE_QI8, 1, { 4 }, { 0 } },
		{ "__metadata__", 0, DTYPE_F32, 1, { 4 }, { 0 } },
		{ "\xff", 0, DTYPE_F32, 1, { 4 }, { 0 } },
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(tensors); i++) {
		struct catalog *catalog = make_catalog(&tensors[i], 1);
		struct box whole = BOX1(0, 4);
		struct array text = { .data = NULL };

		assert_int_equal(safetensors_header_slice(catalog, 0,
			tensors[i].dtype, &whole, &text), -EOPNOTSUPP);
		array_finish(&text);
		catalog_put(catalog);
	}
}

/* ---- names --------------------------------------------------------------- */

static void which_names_fit(void **state)
{
	static const struct {
		const char *name;
		size_t size;
		bool fits;
	} cases[] = {
		{ "", 0, true }, { "a.b", 3, true }, { "\0\1", 2, true },
		{ "\xc3\xa9", 2, true }, { "\xf0\x9f\x98\x80", 4, true },
		{ "\"\\/", 3, true }, { "__metadata__", 12, false },
		{ "__metadata__x", 13, true }, { "__metadata_", 11, true },
		{ "\xc3", 1, false }, { "a\xff", 2, false },
		{ "\xed\xa0\x80", 3, false }, { "\xc0\x80", 2, false },
		{ "\xf4\x90\x80\x80", 4, false },
	};
	static const struct tensor tensor = { "n", 0, DTYPE_F32, 1, { 4 },
					      { 0 } };
	struct catalog *catalog = make_catalog(&tensor, 1);
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(cases); i++) {
		const struct safetensors_header_tensor whole = {
			.dtype = DTYPE_F32, .key = cases[i].name,
			.key_size = cases[i].size,
		};

		if (safetensors_header_fits(catalog, &whole) != cases[i].fits)
			fail_msg("case %u", i);
	}
	catalog_put(catalog);
}

/* Those that stay out are named, as far as JSON can. */
static void names_left_out(void **state)
{
	static const struct tensor tensor = { "n", 0, DTYPE_F32, 1, { 4 },
					      { 0 } };
	const struct safetensors_header_tensor in = {
		.dtype = DTYPE_F32, .key = "in", .key_size = 2,
	};
	struct made made = { .catalog = make_catalog(&tensor, 1) };
	struct safetensors_header header = { .catalog = made.catalog };

	(void)state;
	assert_int_equal(safetensors_header_leave_out(&header, "a\"b", 3), 0);
	assert_int_equal(safetensors_header_add(&header, &in), 0);
	assert_int_equal(safetensors_header_leave_out(&header, "\xff.c", 3),
			 0);
	assert_int_equal(safetensors_header_finish(&header, &made.text), 0);
	safetensors_header_clear(&header);
	parse_made(&made);
	assert_int_equal(made.header.count, 1);
	assert_string_equal(header_in_metadata(&made.header,
					       "ckptfs.left_out"),
			    "[\"a\\\"b\",\"\xef\xbf\xbd.c\"]");
	free_made(&made);
}

static void a_file_of_nothing(void **state)
{
	struct made made = { .catalog = make_catalog(NULL, 0) };
	struct safetensors_header header = { .catalog = made.catalog };

	(void)state;
	assert_int_equal(safetensors_header_finish(&header, &made.text), 0);
	safetensors_header_clear(&header);
	parse_made(&made);
	assert_int_equal(made.text.size, 4096);
	assert_int_equal(made.header.count, 0);
	free_made(&made);
}

/* Of any length: the text ends anywhere in its last page. */
static void padding(void **state)
{
	static const struct tensor tensor = { "n", 0, DTYPE_U8, 1, { 4 },
					      { 0 } };
	char name[4200];
	unsigned size;

	(void)state;
	memset(name, 'n', sizeof(name));
	for (size = 3900; size < 4100; size++) {
		struct made made = { .catalog = make_catalog(&tensor, 1) };
		struct safetensors_header header = {
			.catalog = made.catalog,
		};
		const struct safetensors_header_tensor whole = {
			.dtype = DTYPE_U8, .key = name, .key_size = size,
		};

		assert_int_equal(safetensors_header_add(&header, &whole), 0);
		assert_int_equal(safetensors_header_finish(&header,
							   &made.text), 0);
		safetensors_header_clear(&header);
		parse_made(&made);
		assert_true(made.text.size >= size &&
			    made.text.size <= size + 4096 + 200);
		assert_int_equal(made.header.tensors[0].name_size, size);
		free_made(&made);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shapes_as_they_are),
		cmocka_unit_test(float4_of_torch_is_doubled),
		cmocka_unit_test(float4_without_an_axis_does_not_fit),
		cmocka_unit_test(packed_types_keep_their_shape),
		cmocka_unit_test(parts_of_packed_types),
		cmocka_unit_test(slices_say_where_they_lie),
		cmocka_unit_test(slices_of_what_does_not_fit),
		cmocka_unit_test(which_names_fit),
		cmocka_unit_test(names_left_out),
		cmocka_unit_test(a_file_of_nothing),
		cmocka_unit_test(padding),
	};

	return cmocka_run_group_tests_name("safetensors_header", tests, NULL,
					   NULL);
}
