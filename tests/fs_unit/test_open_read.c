/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and reading of files: any part of them, by anybody, of what changes
 * meanwhile; and what the kernel may keep. */
#include "support/test.h"
#include "support/mounts.h"
#include "support/paths.h"
#include "support/variety.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VIEWS ".ckptfs/views/run/step/"

enum { FIRST = 1, READ_MAX = 1 << 20 };

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

/* ---- parts of files ------------------------------------------------------ */

/* All reads of a file give parts of the same bytes. */
static void check_reads(const char *path)
{
	static const size_t sizes[] = { 0, 1, 3, 511, 4096, 65536, READ_MAX };
	struct kernel *kernel = mounts_kernel(0);
	unsigned char *part = malloc(READ_MAX), *whole;
	uint64_t node = paths_find(path), offset;
	struct fuse_open_out open = paths_open(node);
	size_t size, i, j, expected, got;

	assert_non_null(part);
	whole = paths_read_open(node, open.fh, &size);
	for (i = 0; i < COUNT_OF(sizes); i++) {
		const uint64_t offsets[] = {
			0, 1, 63, 64, 4095, 4097, size / 2 - 1, size / 2 + 1,
			size - 1, size, size + 1, size + READ_MAX,
			(uint64_t)INT64_MAX - READ_MAX,
		};

		for (j = 0; j < COUNT_OF(offsets); j++) {
			offset = offsets[j];
			expected = offset >= size ? 0 :
				   size - offset < sizes[i] ? size - offset :
							      sizes[i];
			assert_int_equal(kernel_read(kernel, node, open.fh,
						     offset, sizes[i], part,
						     &got), 0);
			assert_int_equal(got, expected);
			assert_memory_equal(part, whole + (got ? offset : 0),
					    got);
		}
	}
	kernel_release(kernel, node, open.fh);
	free(whole);
	free(part);
}

static void any_part_can_be_read(void **state)
{
	static const char *const paths[] = {
		"run/file", "run/step/config.json", "run/step/__1_0.distcp",
		VIEWS "tensors/model.w", VIEWS "tensors/model.w[1:639,1:511]",
		VIEWS "tensors/step", VIEWS "npy/model.w.npy",
		VIEWS "f32/model.b.npy", VIEWS "safetensors/model.safetensors",
		VIEWS "safetensors/_flat.safetensors",
		VIEWS "safetensors/model.b[1:3].safetensors",
		VIEWS "hf/model.safetensors", VIEWS "hf/config.json",
		VIEWS "tensors.json", VIEWS "objects/args.pt",
		VIEWS "objects/packed.pt", VIEWS "objects/args.json",
		".ckptfs/status.json",
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(paths); i++)
		check_reads(paths[i]);
}

static int read_at(const char *path, uint64_t offset, size_t size)
{
	struct kernel *kernel = mounts_kernel(0);
	uint64_t node = paths_find(path);
	struct fuse_open_out open = paths_open(node);
	char bytes[16384];
	int error = kernel_read(kernel, node, open.fh, offset, size, bytes,
				NULL);

	kernel_release(kernel, node, open.fh);
	return error;
}

static void what_is_not_there_cannot_be_read(void **state)
{
	(void)state;
	assert_int_equal(read_at(VIEWS "tensors/holes", 0, 8192), 0);
	assert_int_equal(read_at(VIEWS "tensors/holes", 8191, 1), 0);
	assert_int_equal(read_at(VIEWS "tensors/holes", 8192, 1), -EIO);
	assert_int_equal(read_at(VIEWS "tensors/holes", 8191, 2), -EIO);
	assert_int_equal(read_at(VIEWS "tensors/holes", 16383, 100), -EIO);
	assert_int_equal(read_at(VIEWS "tensors/holes", 16384, 1), 0);
	assert_int_equal(read_at(VIEWS "tensors/holes[0:2]", 0, 8192), 0);
	assert_int_equal(read_at(VIEWS "tensors/holes[1:3]", 4096, 1), -EIO);
	assert_int_equal(read_at(VIEWS "npy/holes.npy", 0, 128 + 8192), 0);
	assert_int_equal(read_at(VIEWS "npy/holes.npy", 0, 16384), -EIO);
	assert_int_equal(read_at(VIEWS "tensors/lost", 0, 1), -EIO);
	assert_int_equal(read_at(VIEWS "tensors/lost", 8000, 1), 0);
	/* What comes after it can. */
	assert_int_equal(read_at(VIEWS "tensors/step", 0, 8), 0);
}

/* ---- the kernel's cache -------------------------------------------------- */

static void check_flags(const char *path, uint32_t expected)
{
	uint64_t node = paths_find(path);
	struct fuse_open_out open = paths_open(node);

	if ((open.open_flags & (FOPEN_KEEP_CACHE | FOPEN_DIRECT_IO)) !=
	    expected)
		fail_msg("%s: %x", path, open.open_flags);
	kernel_release(mounts_kernel(0), node, open.fh);
}

static void pages_are_kept_of_what_stays(void **state)
{
	static const char *const kept[] = {
		"run/step/config.json", "run/step/__0_0.distcp",
		VIEWS "tensors/model.w", VIEWS "tensors/model.w[0]",
		VIEWS "tensors/lost", VIEWS "npy/step.npy",
		VIEWS "f32/model.w.npy", VIEWS "safetensors/model.safetensors",
		VIEWS "safetensors/_flat.safetensors",
		VIEWS "hf/model.safetensors", VIEWS "hf/config.json",
		VIEWS "objects/args.pt", VIEWS "objects/args.json",
		VIEWS "objects/packed.pt", VIEWS "tensors.json",
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(kept); i++)
		check_flags(kept[i], FOPEN_KEEP_CACHE);
	check_flags("run/file", 0);
	/* Reading ahead would meet the hole. */
	check_flags(VIEWS "tensors/holes", FOPEN_DIRECT_IO);
	check_flags(VIEWS "tensors/holes[0]", FOPEN_DIRECT_IO);
	check_flags(VIEWS "npy/holes.npy", FOPEN_DIRECT_IO);
	/* Their size is not known before. */
	check_flags(".ckptfs/status.json", FOPEN_DIRECT_IO);
	check_flags(".ckptfs/metrics", FOPEN_DIRECT_IO);
}

/* ---- what cannot be opened ----------------------------------------------- */

static void folders_are_not_opened_as_files(void **state)
{
	static const char *const paths[] = {
		"", "run", "run/step", ".ckptfs", ".ckptfs/views",
		".ckptfs/views/run/step", VIEWS "tensors", VIEWS "hf",
	};
	struct fuse_open_out open;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(paths); i++)
		assert_int_equal(kernel_open(mounts_kernel(0),
					     paths_find(paths[i]), &open),
				 -EISDIR);
}

static void what_is_gone_is_not_opened(void **state)
{
	struct kernel *kernel = mounts_kernel(0);
	uint64_t file = paths_find("run/file"), empty = paths_find("run/empty");
	unsigned descriptors = folder_count_descriptors();
	struct fuse_open_out open;

	(void)state;
	/* It stays under another name, so that its number is not used again. */
	assert_int_equal(renameat(mounts_stores[0].fd, "run/file",
				  mounts_stores[0].fd, "run/moved"), 0);
	assert_int_equal(kernel_open(kernel, file, &open), -ESTALE);
	mounts_write(0, "run", "file", "another");
	assert_int_equal(kernel_open(kernel, file, &open), -ESTALE);
	/* Nobody waits for who writes into a pipe. */
	assert_int_equal(unlinkat(mounts_stores[0].fd, "run/empty", 0), 0);
	assert_int_equal(mkfifoat(mounts_stores[0].fd, "run/empty", 0644), 0);
	assert_int_not_equal(kernel_open(kernel, empty, &open), 0);
	assert_int_equal(folder_count_descriptors(), descriptors);
}

/* ---- files that change --------------------------------------------------- */

static void check_text(uint64_t node, uint64_t handle, const char *expected)
{
	unsigned char *bytes = paths_read_open(node, handle, NULL);

	assert_string_equal((char *)bytes, expected);
	free(bytes);
}

static void stored_files_may_change_while_open(void **state)
{
	uint64_t node = paths_find("run/file");
	struct fuse_open_out open = paths_open(node);

	(void)state;
	check_text(node, open.fh, "some text");
	mounts_write(0, "run", "file", "so");
	check_text(node, open.fh, "so");
	mounts_write(0, "run", "file", "something longer");
	check_text(node, open.fh, "something longer");
	/* Who has it open has the old one. */
	mounts_write(0, "run", "new", "new");
	assert_int_equal(renameat(mounts_stores[0].fd, "run/new",
				  mounts_stores[0].fd, "run/file"), 0);
	check_text(node, open.fh, "something longer");
	kernel_release(mounts_kernel(0), node, open.fh);
	node = paths_find("run/file");
	open = paths_open(node);
	check_text(node, open.fh, "new");
	assert_int_equal(unlinkat(mounts_stores[0].fd, "run/file", 0), 0);
	check_text(node, open.fh, "new");
	kernel_release(mounts_kernel(0), node, open.fh);
}

/* The kernel keeps pages of these: old and new ones must not mix. */
static void files_of_a_checkpoint_may_not(void **state)
{
	static const char *const texts[] = { "{}", "{\"a\": 2}", "[1, 2, 3]" };
	struct kernel *kernel = mounts_kernel(0);
	struct fuse_open_out open;
	char bytes[64];
	uint64_t node;
	size_t i, got;

	(void)state;
	for (i = 0; i < COUNT_OF(texts); i++) {
		node = paths_find("run/step/config.json");
		open = paths_open(node);
		mounts_write(0, "run/step", "config.json", texts[i]);
		assert_int_equal(kernel_read(kernel, node, open.fh, 0,
					     sizeof(bytes), bytes, &got),
				 -ESTALE);
		kernel_release(kernel, node, open.fh);
		assert_int_equal(kernel_open(kernel, node, &open), -ESTALE);
		node = paths_find("run/step/config.json");
		open = paths_open(node);
		check_text(node, open.fh, texts[i]);
		kernel_release(kernel, node, open.fh);
	}
}

/* The file is mapped: who reads must not die of it. */
static void data_may_be_cut_off(void **state)
{
	uint64_t node = paths_find(VIEWS "tensors/model.w");
	struct fuse_open_out open = paths_open(node);
	struct kernel *kernel = mounts_kernel(0);
	static char bytes[READ_MAX];

	(void)state;
	assert_int_equal(kernel_read(kernel, node, open.fh, 0, READ_MAX, bytes,
				     NULL), 0);
	mounts_write(0, "run/step", "__0_0.distcp", "");
	assert_int_equal(kernel_read(kernel, node, open.fh, 0, READ_MAX, bytes,
				     NULL), -ESTALE);
	kernel_release(kernel, node, open.fh);
}

/* ---- several at once ----------------------------------------------------- */

static const char *const shared_paths[] = {
	VIEWS "tensors/model.w", VIEWS "tensors/model.w[:,1:500]",
	VIEWS "npy/model.w.npy", VIEWS "safetensors/model.safetensors",
	VIEWS "objects/packed.pt", "run/step/__1_0.distcp", "run/file",
};

/* Open a file, read it, and close it, again and again. */
static void *read_often(void *context)
{
	unsigned first = *(const unsigned *)context, i;
	unsigned char *bytes, *expected;
	size_t size, expected_size;
	const char *path;

	for (i = 0; i < 3 * COUNT_OF(shared_paths); i++) {
		path = shared_paths[(first + i) % COUNT_OF(shared_paths)];
		bytes = paths_read(path, &size);
		expected = paths_read(path, &expected_size);
		assert_int_equal(size, expected_size);
		assert_memory_equal(bytes, expected, size);
		free(expected);
		free(bytes);
	}
	return NULL;
}

static void many_read_at_once(void **state)
{
	unsigned first[4] = { 0, 0, 1, 5 }, i;
	pthread_t threads[4];

	(void)state;
	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_often,
						&first[i]), 0);
	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* As the kernel reads ahead: many parts of one open file are under way. */
static void many_parts_are_read_at_once(void **state)
{
	enum { PART = 16384, PARTS = VARIETY_ROWS * VARIETY_ROW_SIZE / PART };
	uint64_t node = paths_find(VIEWS "tensors/model.w"), unique[PARTS];
	struct fuse_open_out open = paths_open(node);
	struct kernel *kernel = mounts_kernel(0);
	unsigned char bytes[PART];
	size_t i, j, got;

	(void)state;
	for (i = 0; i < PARTS; i++)
		unique[i] = kernel_ask_read(kernel, node, open.fh, i * PART,
					    PART);
	for (i = PARTS; i-- > 0;) {
		assert_int_equal(kernel_answer(kernel, unique[i], bytes, PART,
					       &got), 0);
		assert_int_equal(got, PART);
		for (j = 0; j < PART; j++)
			assert_int_equal(bytes[j],
					 variety_byte(FIRST, i * PART + j));
	}
	kernel_release(kernel, node, open.fh);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(any_part_can_be_read),
		TEST(what_is_not_there_cannot_be_read),
		TEST(pages_are_kept_of_what_stays),
		TEST(folders_are_not_opened_as_files),
		TEST(what_is_gone_is_not_opened),
		TEST(stored_files_may_change_while_open),
		TEST(files_of_a_checkpoint_may_not),
		TEST(data_may_be_cut_off),
		TEST(many_read_at_once),
		TEST(many_parts_are_read_at_once),
	};

	return cmocka_run_group_tests_name("open_read", tests, NULL, NULL);
}
