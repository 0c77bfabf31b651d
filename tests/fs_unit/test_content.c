/* SPDX-License-Identifier: Apache-2.0 */
/* All bytes of each kind of file, and what the reports say of reading them. */
#include "support/test.h"
#include "support/header_in.h"
#include "support/mounts.h"
#include "support/paths.h"
#include "support/sample.h"
#include "support/variety.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VIEWS ".ckptfs/views/run/step/"

enum { FIRST = 1 };

static int start(void **state)
{
	const struct mounts_options options = { .count = 1 };
	struct test_folder step;

	(void)state;
	mounts_prepare(1);
	step = mounts_folder(0, "run/step");
	variety_write(&step, FIRST);
	close(step.fd);
	mounts_write(0, "run/step", "config.json", "{\"a\": 1}");
	mounts_write(0, "run", "file", "some text");
	mounts_write(0, "run", "empty", "");
	mounts_start(&options);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

/* Bytes of a tensor from @begin on. */
static void check_bytes(const unsigned char *bytes, size_t size,
			uint64_t begin)
{
	size_t i;

	for (i = 0; i < size; i++)
		if (bytes[i] != variety_byte(FIRST, begin + i))
			fail_msg("byte %zu", i);
}

static void stored_files_are_as_in_the_store(void **state)
{
	static const char *const paths[] = {
		"run/file", "run/empty", "run/step/config.json",
		"run/step/.metadata", "run/step/__0_0.distcp",
	};
	size_t i, size;

	(void)state;
	for (i = 0; i < COUNT_OF(paths); i++) {
		int fd = openat(mounts_stores[0].fd, paths[i],
				O_RDONLY | O_CLOEXEC);
		unsigned char *bytes = paths_read(paths[i], &size), *expected;

		assert_true(fd >= 0);
		expected = malloc(size + 1);
		assert_non_null(expected);
		assert_int_equal(read(fd, expected, size + 1), size);
		assert_memory_equal(bytes, expected, size);
		close(fd);
		free(expected);
		free(bytes);
	}
}

static void tensors_are_their_bytes(void **state)
{
	static const unsigned whole[] = { VARIETY_W, VARIETY_B, VARIETY_EXP,
					  VARIETY_STEP, VARIETY_NAME };
	unsigned char *bytes;
	char path[128];
	size_t i, size;

	(void)state;
	for (i = 0; i < COUNT_OF(whole); i++) {
		const struct variety_tensor *tensor =
			&variety_tensors[whole[i]];

		snprintf(path, sizeof(path), VIEWS "tensors/%s", tensor->file);
		bytes = paths_read(path, &size);
		assert_int_equal(size, tensor->size);
		assert_int_equal(paths_entry(path).attr.size, size);
		check_bytes(bytes, size, 0);
		free(bytes);
		snprintf(path, sizeof(path), VIEWS "npy/%s.npy", tensor->file);
		bytes = paths_read(path, &size);
		assert_int_equal(paths_entry(path).attr.size, size);
		assert_memory_equal(bytes, "\x93NUMPY\1\0", 8);
		assert_true(size > tensor->size);
		assert_int_equal((size - tensor->size) % 64, 0);
		check_bytes(bytes + size - tensor->size, tensor->size, 0);
		free(bytes);
	}
}

static void slices_are_their_bytes(void **state)
{
	unsigned char *bytes;
	size_t size, i;

	(void)state;
	/* The tensor is in two files that meet at row 320. */
	bytes = paths_read(VIEWS "tensors/model.w[319:322]", &size);
	assert_int_equal(size, 3 * VARIETY_ROW_SIZE);
	check_bytes(bytes, size, 319 * VARIETY_ROW_SIZE);
	free(bytes);
	bytes = paths_read(VIEWS "tensors/model.w[:,3:5]", &size);
	assert_int_equal(size, VARIETY_ROWS * 8);
	for (i = 0; i < VARIETY_ROWS; i++)
		check_bytes(bytes + 8 * i, 8, i * VARIETY_ROW_SIZE + 12);
	free(bytes);
	bytes = paths_read(VIEWS "tensors/model.w[5:5]", &size);
	assert_int_equal(size, 0);
	free(bytes);
}

/* The upper half of a float32 is that bfloat16. */
static void floats_are_widened(void **state)
{
	unsigned char *bytes, *data;
	size_t size, i;

	(void)state;
	bytes = paths_read(VIEWS "f32/model.b.npy", &size);
	assert_int_equal(paths_entry(VIEWS "f32/model.b.npy").attr.size, size);
	data = bytes + size - 32;
	for (i = 0; i < 8; i++) {
		assert_memory_equal(data + 4 * i, "\0\0", 2);
		check_bytes(data + 4 * i + 2, 2, 2 * i);
	}
	free(bytes);
}

static const struct header_tensor *find_tensor(const struct header_in *header,
					       const char *name)
{
	uint64_t i;

	for (i = 0; i < header->count; i++)
		if (strcmp(header->tensors[i].name, name) == 0)
			return &header->tensors[i];
	fail_msg("%s is not there", name);
	return NULL;
}

/* A group's file: @count tensors, of which @key is @tensor. */
static void check_group(const char *path, unsigned count, const char *key,
			const struct variety_tensor *tensor)
{
	const struct header_tensor *found;
	struct header_in header;
	unsigned char *bytes;
	size_t size;

	bytes = paths_read(path, &size);
	assert_int_equal(paths_entry(path).attr.size, size);
	header_in_parse(&header, bytes, size);
	assert_int_equal(header.size % 4096, 0);
	assert_int_equal(header.size + header.data_size, size);
	assert_int_equal(header.count, count);
	found = find_tensor(&header, key);
	assert_string_equal(found->dtype, tensor->dtype);
	assert_int_equal(found->end - found->begin, tensor->size);
	check_bytes(bytes + header.size + found->begin, tensor->size, 0);
	header_in_free(&header);
	free(bytes);
}

static void groups_hold_their_tensors(void **state)
{
	(void)state;
	check_group(VIEWS "safetensors/model.safetensors", 2, "w",
		    &variety_tensors[VARIETY_W]);
	check_group(VIEWS "hf/model.safetensors", 2, "b",
		    &variety_tensors[VARIETY_B]);
	check_group(VIEWS "safetensors/optim.safetensors", 1, "exp.w",
		    &variety_tensors[VARIETY_EXP]);
	check_group(VIEWS "safetensors/optim.exp.safetensors", 1, "w",
		    &variety_tensors[VARIETY_EXP]);
	/* What cannot be read is left out. */
	check_group(VIEWS "safetensors/_flat.safetensors", 2, "step",
		    &variety_tensors[VARIETY_STEP]);
	check_group(VIEWS "safetensors/model.w.safetensors", 1, "model.w",
		    &variety_tensors[VARIETY_W]);
}

/* How often @part is in @text. */
static unsigned count_parts(const char *text, const char *part)
{
	unsigned count = 0;

	for (text = strstr(text, part); text; text = strstr(text + 1, part))
		count++;
	return count;
}

static void texts_are_as_long_as_they_say(void **state)
{
	static const char *const paths[] = {
		VIEWS "tensors.json", VIEWS "objects/args.json",
		VIEWS "objects/packed.json", VIEWS "objects/args.pt",
		VIEWS "objects/packed.pt", VIEWS "objects/code.pt",
	};
	unsigned char *bytes[COUNT_OF(paths)];
	size_t size[COUNT_OF(paths)], i;

	(void)state;
	for (i = 0; i < COUNT_OF(paths); i++) {
		bytes[i] = paths_read(paths[i], &size[i]);
		assert_int_equal(paths_entry(paths[i]).attr.size, size[i]);
	}
	assert_int_equal(count_parts((char *)bytes[0], "\"name\":"),
			 VARIETY_TENSORS);
	assert_int_equal(count_parts((char *)bytes[0], "\"lost.distcp\""),
			 2000);
	assert_string_equal((char *)bytes[1], variety_args);
	assert_string_equal((char *)bytes[2], variety_args);
	/* Archives; one of them was unpacked. */
	assert_memory_equal(bytes[3], "PK\3\4", 4);
	assert_int_equal(size[3], size[4]);
	assert_memory_equal(bytes[3], bytes[4], size[3]);
	assert_memory_equal(bytes[5], "PK\3\4", 4);
	for (i = 0; i < COUNT_OF(paths); i++)
		free(bytes[i]);
}

/* A report is made when it is opened, and says what there is. */
static void reports_are_of_now(void **state)
{
	unsigned char *bytes;

	(void)state;
	bytes = paths_read(".ckptfs/metrics", NULL);
	assert_int_equal(paths_metric((char *)bytes, "ckptfs_catalogs"), 0);
	free(bytes);
	paths_find("run/step/tensors");
	bytes = paths_read(".ckptfs/metrics", NULL);
	assert_int_equal(paths_metric((char *)bytes, "ckptfs_catalogs"), 1);
	free(bytes);
	bytes = paths_read(".ckptfs/status.json", NULL);
	assert_non_null(strstr((char *)bytes, "\"path\": \"run/step\""));
	assert_non_null(strstr((char *)bytes, "\"state\": \"serving\""));
	free(bytes);
}

/* How much more there is of @what in one report than in another. */
static uint64_t grown(const unsigned char *before, const unsigned char *after,
		      const char *what)
{
	char line[128];

	snprintf(line, sizeof(line), "ckptfs_%s{source=\"local\"}", what);
	return paths_metric((const char *)after, line) -
	       paths_metric((const char *)before, line);
}

static void reads_are_counted(void **state)
{
	uint64_t node = paths_find(VIEWS "tensors/holes");
	struct kernel *kernel = mounts_kernel(0);
	struct fuse_open_out open = paths_open(node);
	unsigned char *before, *after;
	size_t own, size, got;
	char bytes[8192];

	(void)state;
	/* Reading the report counts, after it was made. */
	before = paths_read(".ckptfs/metrics", &own);
	assert_int_equal(kernel_read(kernel, node, open.fh, 0, 8192, bytes,
				     &got), 0);
	assert_int_equal(kernel_read(kernel, node, open.fh, 8192, 4096, bytes,
				     &got), -EIO);
	kernel_release(kernel, node, open.fh);
	free(paths_read("run/file", &size));
	after = paths_read(".ckptfs/metrics", NULL);
	assert_int_equal(grown(before, after, "reads_total"), 4);
	assert_int_equal(grown(before, after, "read_seconds_count"), 4);
	assert_int_equal(grown(before, after, "read_bytes_total"),
			 own + 8192 + size);
	assert_int_equal(grown(before, after, "read_errors_total"), 1);
	free(before);
	free(after);
}

/* ---- other models -------------------------------------------------------- */

/* Which dict hf/ shows is who mounts' to say. */
static void the_root_of_the_model_may_be_chosen(void **state)
{
	const struct mounts_options options = {
		.count = 1, .hf_root = "optim.exp",
	};
	struct test_folder step;

	(void)state;
	mounts_prepare(1);
	step = mounts_folder(0, "run/step");
	variety_write(&step, FIRST);
	close(step.fd);
	mounts_start(&options);
	check_group(VIEWS "hf/model.safetensors", 1, "w",
		    &variety_tensors[VARIETY_EXP]);
	check_group(VIEWS "safetensors/model.safetensors", 2, "w",
		    &variety_tensors[VARIETY_W]);
}

/* What loads a model without some of it goes on with random weights. */
static void a_model_is_whole_or_not_there(void **state)
{
	const struct mounts_options options = { .count = 1 };
	struct test_folder step;
	size_t size;

	(void)state;
	mounts_prepare(1);
	step = mounts_folder(0, "run/step");
	sample_write(&step, false, FIRST);
	assert_int_equal(unlinkat(step.fd, "__1_0.distcp", 0), 0);
	close(step.fd);
	mounts_start(&options);
	assert_int_equal(paths_error(VIEWS "hf/model.safetensors"), -EIO);
	/* What is left of it can be had elsewhere. */
	free(paths_read(VIEWS "safetensors/model.safetensors", &size));
	assert_int_equal(size % 4096, 4);
	free(paths_read(VIEWS "tensors/s", &size));
	assert_int_equal(size, 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(stored_files_are_as_in_the_store),
		TEST(tensors_are_their_bytes),
		TEST(slices_are_their_bytes),
		TEST(floats_are_widened),
		TEST(groups_hold_their_tensors),
		TEST(texts_are_as_long_as_they_say),
		TEST(reports_are_of_now),
		TEST(reads_are_counted),
		cmocka_unit_test_teardown(the_root_of_the_model_may_be_chosen,
					  stop),
		cmocka_unit_test_teardown(a_model_is_whole_or_not_there, stop),
	};

	return cmocka_run_group_tests_name("content", tests, NULL, NULL);
}
