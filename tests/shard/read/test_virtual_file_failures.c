/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files made of tensors where something runs out: the room of a header, the
 * memory, the source. Each time the right errno, and what works afterwards is
 * the same as ever.
 */
#include "support/test.h"
#include "support/fail.h"
#include "support/gallery.h"
#include "support/header_in.h"
#include "support/reading.h"

#include "shard/read/virtual_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOO_MANY = 3000 };

static struct dice dice;

static void read_all(const struct virtual_file *content, struct source *source,
		     struct reply *reply, uint64_t offset, struct array *out)
{
	for (; offset < virtual_file_size(content); offset += LIMIT_READ_SIZE) {
		uint64_t size = virtual_file_size(content) - offset;

		if (size > LIMIT_READ_SIZE)
			size = LIMIT_READ_SIZE;
		assert_int_equal(reading_file(content, source, offset,
						   size, reply),
				 0);
		assert_int_equal(array_append(out, reply->data, reply->size),
				 0);
	}
}

/* All tensors of @gallery, whole; converted to @dtype when it is known. */
static struct virtual_file *make_image(const struct gallery *gallery,
				       enum dtype dtype)
{
	struct virtual_file_part *parts =
		calloc(gallery->count + 1, sizeof(*parts));
	struct virtual_file *content;
	uint64_t i;

	assert_non_null(parts);
	for (i = 0; i < gallery->count; i++)
		parts[i] = (struct virtual_file_part){ .entry = i,
						       .dtype = dtype };
	assert_int_equal(virtual_file_safetensors(gallery->catalog, parts,
						  gallery->count, &content),
			 0);
	free(parts);
	return content;
}

/* What follows the header when all tensors are of one type: their names must
 * ascend as they were added. */
static void expect_data(const struct gallery *gallery, enum dtype dtype,
			struct array *out)
{
	uint64_t i;

	for (i = 0; i < gallery->count; i++)
		assert_true(gallery_expect(gallery, i,
			&gallery->tensors[i].world->shape,
			dtype ? dtype : gallery->tensors[i].world->dtype,
			out));
}

static void check_data(struct gallery *gallery,
		       const struct virtual_file *content, enum dtype dtype)
{
	struct array expected = { .data = NULL }, found = { .data = NULL };
	struct reply *reply = reply_create();

	assert_non_null(reply);
	expect_data(gallery, dtype, &expected);
	read_all(content, gallery_source(gallery), reply,
		 virtual_file_header_size(content), &found);
	assert_int_equal(found.size, expected.size);
	assert_memory_equal(found.data, expected.data, expected.size);
	reply_destroy(reply);
	array_finish(&expected);
	array_finish(&found);
}

/* ---- many ---------------------------------------------------------------- */

/* More tensors in one read than a call has vectors. */
static void many_tiny_tensors(void **state)
{
	struct world four = { .dtype = DTYPE_F32, .part_count = 1 };
	struct world none = { .dtype = DTYPE_F32, .part_count = 1 };
	struct gallery gallery;
	struct virtual_file *content;
	char name[32];
	unsigned i;

	(void)state;
	four.shape = four.parts[0] = BOX1(0, 1);
	none.shape = none.parts[0] = BOX2(0, 0, 3, 0);
	gallery_init(&gallery, false);
	for (i = 0; i < 100000; i++) {
		snprintf(name, sizeof(name), "%06u", i);
		gallery_add(&gallery, name, i % 7 == 3 ? &none : &four, true,
			    &dice);
	}
	gallery_finish(&gallery);
	content = make_image(&gallery, DTYPE_UNKNOWN);
	check_data(&gallery, content, DTYPE_UNKNOWN);
	virtual_file_put(content);
	content = make_image(&gallery, DTYPE_BF16);
	check_data(&gallery, content, DTYPE_BF16);
	virtual_file_put(content);
	gallery_free(&gallery);
}

/* ---- limits -------------------------------------------------------------- */

/* 1700 names of 64 KiB are over 100 MB of header. */
static void header_beyond_the_limit(void **state)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct virtual_file_part *parts = calloc(1700, sizeof(*parts));
	char *name = malloc(LIMIT_NAME_SIZE);
	struct box shape = BOX1(0, 4);
	struct catalog *catalog;
	struct virtual_file *content = NULL;
	unsigned i;

	(void)state;
	assert_true(name && parts);
	memset(name, 'n', LIMIT_NAME_SIZE);
	name[LIMIT_NAME_SIZE - 1] = '\0';
	for (i = 0; i < 1700; i++) {
		snprintf(name, 10, "%08u", i);
		name[8] = '_';
		name[9] = '_';
		catalog_out_begin(builder, name, DTYPE_F32, &shape);
		catalog_out_shard(builder, shape, "file", 16 * i, 16);
		catalog_out_end(builder);
		parts[i].entry = i;
	}
	catalog = catalog_out_finish(builder);
	assert_int_equal(virtual_file_safetensors(catalog, parts, 1700,
						  &content),
			 -E2BIG);
	assert_null(content);
	assert_int_equal(
		virtual_file_safetensors(catalog, parts, 100, &content), 0);
	assert_int_equal(virtual_file_size(content),
			 virtual_file_header_size(content) + 100 * 16);
	assert_true(virtual_file_header_size(content) > 100 * LIMIT_NAME_SIZE);
	virtual_file_put(content);
	free(parts);
	free(name);
	catalog_put(catalog);
}

/* Each tensor is as large as may be; together they are too large. */
static void data_beyond_the_limit(void **state)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct box shape = BOX1(0, LIMIT_TENSOR_SIZE / 16);
	struct virtual_file_part parts[20];
	struct catalog *catalog;
	struct virtual_file *content = NULL;
	char name[4];
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(parts); i++) {
		parts[i] = (struct virtual_file_part){ .entry = i };
		snprintf(name, sizeof(name), "%u", i);
		catalog_out_begin(builder, name, DTYPE_U8, &shape);
		catalog_out_shard(builder, shape, "file", 0, 1);
		catalog_out_end(builder);
	}
	catalog = catalog_out_finish(builder);
	assert_int_equal(virtual_file_safetensors(catalog, parts, 20, &content),
			 -E2BIG);
	assert_null(content);
	assert_int_equal(virtual_file_safetensors(catalog, parts, 16, &content),
			 0);
	assert_int_equal(virtual_file_size(content) -
				 virtual_file_header_size(content),
			 LIMIT_TENSOR_SIZE / 16 * 16);
	virtual_file_put(content);
	catalog_put(catalog);
}

static void types_that_cannot_be_served(void **state)
{
	static const struct {
		enum dtype stored, wanted;
	} cases[] = {
		{ DTYPE_QU4X2, DTYPE_UNKNOWN }, { DTYPE_UNKNOWN, DTYPE_UNKNOWN },
		{ DTYPE_I32, DTYPE_F32 }, { DTYPE_C64, DTYPE_F32 },
		{ DTYPE_F32, DTYPE_I32 }, { DTYPE_F32, DTYPE_F8_E4M3 },
		{ DTYPE_BOOL, DTYPE_F32 }, { DTYPE_F4, DTYPE_F32 },
	};
	struct virtual_file *content = NULL;
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(cases); i++) {
		struct notes notes;
		struct catalog_builder *builder = catalog_out_create(&notes);
		struct virtual_file_origin origin = { .dtype =
							      cases[i].wanted };
		struct virtual_file_part part = { .dtype = cases[i].wanted };
		struct catalog *catalog;
		struct header_in header;
		struct reply *reply = reply_create();

		origin.selection = BOX1(0, 8);
		catalog_out_begin(builder, "odd", cases[i].stored,
				  &origin.selection);
		catalog_out_shard(builder, origin.selection, "file", 0, 1);
		catalog_out_end(builder);
		origin.catalog = catalog = catalog_out_finish(builder);
		assert_int_equal(virtual_file_raw(&origin, &content),
				 -EOPNOTSUPP);
		assert_int_equal(virtual_file_npy(&origin, &content),
				 -EOPNOTSUPP);
		assert_int_equal(virtual_file_safetensors_slice(&origin,
								&content),
				 -EOPNOTSUPP);
		assert_null(content);
		assert_int_equal(virtual_file_safetensors(catalog, &part, 1,
							  &content),
				 0);
		assert_int_equal(reading_file(content, NULL, 0,
						   virtual_file_size(content),
						   reply),
				 0);
		header_in_parse(&header, reply->data, reply->size);
		assert_int_equal(header.count, 0);
		assert_string_equal(header_in_metadata(&header,
						       "ckptfs.left_out"),
				    "[\"odd\"]");
		header_in_free(&header);
		reply_destroy(reply);
		virtual_file_put(content);
		content = NULL;
		catalog_put(catalog);
	}
}

/* ---- faults -------------------------------------------------------------- */

static struct world mixed[5];

/* Tensors of one type, cut in different ways. */
static void make_mixed(struct gallery *gallery, bool stored)
{
	const struct world_limits limits = { .ndim = 3, .volume = 3000 };
	char name[8];
	unsigned i;

	gallery_init(gallery, stored);
	for (i = 0; i < COUNT_OF(mixed); i++) {
		world_make(&mixed[i], &limits, &dice);
		mixed[i].dtype = DTYPE_F16;
		snprintf(name, sizeof(name), "t%u", i);
		gallery_add(gallery, name, &mixed[i], true, &dice);
	}
	gallery_finish(gallery);
}

static void nth_read_of_a_source_fails(void **state)
{
	static const int errors[] = { -EIO, -ESTALE, -ENOMEM, -EAGAIN };
	unsigned round, n;

	(void)state;
	for (round = 0; round < 40; round++) {
		enum dtype dtype = round % 2 ? DTYPE_F32 : DTYPE_UNKNOWN;
		struct reply *reply = reply_create();
		struct gallery gallery;
		struct virtual_file *content;
		int error = -1;

		assert_non_null(reply);
		make_mixed(&gallery, false);
		content = make_image(&gallery, dtype);
		gallery.shelf.error = errors[round / 2 % COUNT_OF(errors)];
		for (n = 1; error; n++) {
			assert_true(n < TOO_MANY);
			gallery.shelf.countdown = n;
			gallery.shelf.calls = 0;
			error = reading_file(content, &gallery.shelf.base,
						  0, virtual_file_size(content),
						  reply);
			if (!error)
				break;
			assert_int_equal(error, gallery.shelf.error);
			/* It stops there. */
			assert_int_equal(gallery.shelf.calls, n);
		}
		reply_destroy(reply);
		gallery.shelf.countdown = 0;
		check_data(&gallery, content, dtype);
		virtual_file_put(content);
		gallery_free(&gallery);
	}
}

/* Making a file and reading it, once. */
static int make_and_read(struct gallery *gallery, enum dtype dtype,
			 struct array *out)
{
	struct virtual_file_part parts[COUNT_OF(mixed)];
	struct reply *reply = reply_create();
	struct virtual_file *content = NULL;
	unsigned i;
	int error;

	for (i = 0; i < COUNT_OF(mixed); i++)
		parts[i] = (struct virtual_file_part){ .entry = i,
						       .dtype = dtype };
	error = reply ? virtual_file_safetensors(gallery->catalog, parts,
						 COUNT_OF(mixed), &content) :
			-ENOMEM;
	if (!error)
		error = reading_file(content, gallery_source(gallery), 0,
					  virtual_file_size(content), reply);
	fail_disarm();
	if (!error)
		assert_int_equal(array_append(out, reply->data, reply->size),
				 0);
	reply_destroy(reply);
	virtual_file_put(content);
	return error;
}

static void append_header(const struct virtual_file *content, struct array *out)
{
	struct reply *reply = reply_create();

	assert_non_null(reply);
	assert_int_equal(reading_file(content, NULL, 0,
					   virtual_file_header_size(content),
					   reply),
			 0);
	assert_int_equal(array_append(out, reply->data, reply->size), 0);
	reply_destroy(reply);
}

/* Likewise for a part of one, in each kind of file. */
static int make_single(struct gallery *gallery, enum dtype dtype,
		       struct array *out)
{
	struct virtual_file_origin origin = { .catalog = gallery->catalog,
					      .dtype = dtype,
					      .selection = mixed[0].shape };
	struct virtual_file *content = NULL;
	int error;

	if (origin.selection.ndim > 0)
		origin.selection.size[0] /= 2;
	error = virtual_file_npy(&origin, &content);
	virtual_file_put(content);
	content = NULL;
	if (!error)
		error = virtual_file_safetensors_slice(&origin, &content);
	fail_disarm();
	if (!error)
		append_header(content, out);
	virtual_file_put(content);
	return error;
}

static void sweep(int (*try)(struct gallery *, enum dtype, struct array *),
		  bool stored, enum dtype dtype)
{
	struct array expected = { .data = NULL };
	struct gallery gallery;
	int error = -ENOMEM;
	unsigned n;

	make_mixed(&gallery, stored);
	assert_int_equal(try(&gallery, dtype, &expected), 0);
	for (n = 1; error; n++) {
		struct array found = { .data = NULL };

		assert_true(n < TOO_MANY);
		fail_arm(FAIL_MEMORY | FAIL_JSON, n);
		error = try(&gallery, dtype, &found);
		if (error) {
			if (error != -ENOMEM)
				fail_msg("call %u, %s: %d", n, fail_name(),
					 error);
			assert_int_equal(try(&gallery, dtype, &found), 0);
		}
		assert_int_equal(found.size, expected.size);
		assert_memory_equal(found.data, expected.data, expected.size);
		array_finish(&found);
	}
	assert_true(n > 5);
	array_finish(&expected);
	gallery_free(&gallery);
}

static void nth_allocation_fails(void **state)
{
	(void)state;
	sweep(make_and_read, false, DTYPE_UNKNOWN);
	sweep(make_and_read, false, DTYPE_F32);
	sweep(make_and_read, true, DTYPE_UNKNOWN);
	sweep(make_and_read, true, DTYPE_F32);
	sweep(make_single, false, DTYPE_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_tiny_tensors),
		cmocka_unit_test(header_beyond_the_limit),
		cmocka_unit_test(data_beyond_the_limit),
		cmocka_unit_test(types_that_cannot_be_served),
		cmocka_unit_test(nth_read_of_a_source_fails),
		cmocka_unit_test(nth_allocation_fails),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("image_failures", tests, NULL,
					   NULL);
}
