/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint is opened, read and listed while the n-th call of a sort
 * fails, n going up until none does. Each time: the right errno, nothing
 * half made, no descriptor lost, and once the fault is over all works. What
 * is lost of memory the leak sanitizer says.
 */
#include "support/test.h"
#include "support/fail.h"
#include "support/opening.h"
#include "support/sample.h"

#include "shard/base/limits.h"
#include "shard/catalog/catalog_json.h"
#include "shard/dcp/object_json.h"
#include "shard/dcp/torch_archive.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct checkpoint_options plain_options = { .cache = NULL };

enum { FIRST = 42, TOO_MANY = 2000 };

static struct test_folder folder;

static int setup(void **state)
{
	(void)state;
	folder_make(&folder);
	sample_write(&folder, false, FIRST);
	return 0;
}

static int setup_local(void **state)
{
	(void)state;
	folder_make(&folder);
	sample_write(&folder, true, FIRST);
	return 0;
}

static int setup_sharded(void **state)
{
	(void)state;
	folder_make(&folder);
	sample_write_safetensors(&folder, SAMPLE_SHARDED, FIRST);
	return 0;
}

static int setup_indexed(void **state)
{
	(void)state;
	folder_make(&folder);
	sample_write_safetensors(&folder, SAMPLE_INDEXED, FIRST);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	folder_remove(&folder);
	return 0;
}

static struct checkpoint *open_now(void)
{
	struct checkpoint_report report;
	struct checkpoint *checkpoint = NULL;

	assert_int_equal(opening_checkpoint(folder.fd, &plain_options, &checkpoint, &report), 0);
	assert_int_equal(report.notes.count, 0);
	return checkpoint;
}

static void check_all(struct checkpoint *checkpoint)
{
	struct reply *reply = reply_create();

	assert_non_null(reply);
	assert_int_equal(sample_read(checkpoint, "w", reply), 0);
	sample_check(reply, FIRST);
	reply_destroy(reply);
}

static void check_error(int error, int expected, unsigned n)
{
	if (error != expected)
		fail_msg("call %u, %s: error %d, expected %d", n, fail_name(),
			 error, expected);
}

/* Opening fails with @expected and says so, or it succeeds and all is there:
 * no file is taken for missing because it could not be looked at. */
static void fail_opening(unsigned groups, int expected)
{
	unsigned descriptors = folder_count_descriptors(), n;
	bool hit = true;

	for (n = 1; hit; n++) {
		struct checkpoint_report report;
		struct checkpoint *checkpoint = NULL;
		int error;

		assert_true(n < TOO_MANY);
		fail_arm(groups, n);
		error = opening_checkpoint(folder.fd, &plain_options, &checkpoint, &report);
		hit = fail_disarm();
		if (error) {
			check_error(error, expected, n);
			assert_null(checkpoint);
			check_error(report.fault.error, expected, n);
			assert_non_null(report.fault.reason);
		} else {
			if (report.notes.count > 0)
				fail_msg("call %u, %s: %s", n, fail_name(),
					 report.notes.line[0]);
			check_all(checkpoint);
		}
		opening_close(checkpoint);
		checkpoint = open_now();
		check_all(checkpoint);
		opening_close(checkpoint);
		assert_int_equal(folder_count_descriptors(), descriptors);
	}
	print_message("%u calls\n", n - 2);
}

/*
 * A read fails with @expected, and the next one of the same checkpoint
 * succeeds, unless what failed says something about the file (@lasting).
 */
static void fail_reading(unsigned groups, int expected, bool gather,
			 bool lasting)
{
	unsigned n;
	bool hit = true;

	for (n = 1; hit; n++) {
		struct checkpoint *checkpoint = open_now();
		struct reply *reply;
		int error = -ENOMEM;

		assert_true(n < TOO_MANY);
		fail_arm(groups, n);
		reply = reply_create();
		if (reply)
			error = sample_read(checkpoint, gather ? "s" : "w",
					    reply);
		hit = fail_disarm();
		if (!error && !gather)
			sample_check(reply, FIRST);
		if (error)
			check_error(error, expected, n);
		reply_destroy(reply);
		if (!lasting)
			check_all(checkpoint);
		opening_close(checkpoint);
		checkpoint = open_now();
		check_all(checkpoint);
		opening_close(checkpoint);
	}
	print_message("%u calls\n", n - 2);
}

static int list_tensors(struct checkpoint *checkpoint, struct array *out)
{
	const struct owned_catalog owned = checkpoint_owned(checkpoint);
	uint64_t i;
	int error = 0;

	for (i = 0; i < checkpoint->catalog->tensor_count && !error; i++)
		error = catalog_json_tensor(&owned, i, MIB, out);
	return error;
}

static int object_text(void *context, const struct input *input)
{
	struct pickle pickle;
	struct fault fault;
	void *data;
	int error = torch_archive_pickle(input, LIMIT_OBJECT_PICKLE_SIZE, &data,
					 &pickle, &fault);

	if (error)
		return error;
	error = object_json(&pickle, context);
	pickle_finish(&pickle);
	free(data);
	return error;
}

static int list_object(struct checkpoint *checkpoint, struct array *out)
{
	int64_t index = catalog_find_object(checkpoint->catalog, "o", 1);

	return checkpoint_item(checkpoint,
		catalog_shard(checkpoint->catalog,
			catalog_entry(checkpoint->catalog, (uint64_t)index),
			0), object_text, out);
}

/* The text is the same as without a fault, or there is none. */
static void fail_listing(int (*list)(struct checkpoint *, struct array *),
			 unsigned groups, int expected)
{
	struct array text = { .data = NULL };
	struct checkpoint *checkpoint = open_now();
	unsigned n;
	bool hit = true;

	assert_int_equal(list(checkpoint, &text), 0);
	opening_close(checkpoint);
	for (n = 1; hit; n++) {
		struct array out = { .data = NULL };
		int error;

		assert_true(n < TOO_MANY);
		checkpoint = open_now();
		fail_arm(groups, n);
		error = list(checkpoint, &out);
		hit = fail_disarm();
		if (error) {
			check_error(error, expected, n);
			array_finish(&out);
			assert_int_equal(list(checkpoint, &out), 0);
		}
		assert_int_equal(out.size, text.size);
		assert_memory_equal(out.data, text.data, text.size);
		array_finish(&out);
		opening_close(checkpoint);
	}
	array_finish(&text);
	print_message("%u calls\n", n - 2);
}

static void memory_while_opening(void **state)
{
	(void)state;
	fail_opening(FAIL_MEMORY | FAIL_JSON, -ENOMEM);
}

static void descriptors_while_opening(void **state)
{
	(void)state;
	fail_opening(FAIL_OPEN, -EMFILE);
}

static void reads_while_opening(void **state)
{
	(void)state;
	fail_opening(FAIL_READ, -EIO);
}

static void status_while_opening(void **state)
{
	(void)state;
	fail_opening(FAIL_STATUS, -EIO);
}

static void memory_while_reading(void **state)
{
	(void)state;
	fail_reading(FAIL_MEMORY, -ENOMEM, false, false);
	fail_reading(FAIL_MEMORY, -ENOMEM, true, false);
}

static void descriptors_while_reading(void **state)
{
	(void)state;
	fail_reading(FAIL_OPEN, -EMFILE, false, false);
	fail_reading(FAIL_OPEN, -EMFILE, true, false);
}

static void reads_while_reading(void **state)
{
	(void)state;
	fail_reading(FAIL_READ, -EIO, false, true);
	fail_reading(FAIL_READ, -EIO, true, true);
}

/* Mappings are a shortcut: without one the bytes are the same. */
static void mappings_while_reading(void **state)
{
	(void)state;
}

static void memory_while_listing(void **state)
{
	(void)state;
	fail_listing(list_tensors, FAIL_MEMORY | FAIL_JSON, -ENOMEM);
	fail_listing(list_object, FAIL_MEMORY | FAIL_JSON, -ENOMEM);
}

static void descriptors_while_listing(void **state)
{
	(void)state;
	fail_listing(list_object, FAIL_OPEN, -EMFILE);
}

static void reads_while_listing(void **state)
{
	(void)state;
	fail_listing(list_object, FAIL_READ, -EIO);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define LOCAL(name) cmocka_unit_test_setup_teardown(name, setup_local, teardown)
#define SHARDED(name) \
	cmocka_unit_test_setup_teardown(name, setup_sharded, teardown)
#define INDEXED(name) \
	cmocka_unit_test_setup_teardown(name, setup_indexed, teardown)
	const struct CMUnitTest tests[] = {
		TEST(memory_while_opening),
		LOCAL(memory_while_opening),
		SHARDED(memory_while_opening),
		INDEXED(memory_while_opening),
		TEST(descriptors_while_opening),
		LOCAL(descriptors_while_opening),
		SHARDED(descriptors_while_opening),
		INDEXED(descriptors_while_opening),
		TEST(reads_while_opening),
		LOCAL(reads_while_opening),
		SHARDED(reads_while_opening),
		INDEXED(reads_while_opening),
		TEST(status_while_opening),
		SHARDED(status_while_opening),
		INDEXED(status_while_opening),
		LOCAL(status_while_opening),
		TEST(memory_while_reading),
		SHARDED(memory_while_reading),
		TEST(descriptors_while_reading),
		SHARDED(descriptors_while_reading),
		TEST(reads_while_reading),
		SHARDED(reads_while_reading),
		TEST(mappings_while_reading),
		SHARDED(mappings_while_reading),
		TEST(memory_while_listing),
		TEST(descriptors_while_listing),
		TEST(reads_while_listing),
	};

	return cmocka_run_group_tests_name("failures", tests, NULL, NULL);
}
