/* SPDX-License-Identifier: Apache-2.0 */
/* A checkpoint that is not there any more, as long as the kernel knows of it:
 * what it is told, and when the last of it ends. */
#include "support/test.h"
#include "support/mounts.h"
#include "support/paths.h"
#include "support/sample.h"
#include "support/stall.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define VIEWS ".ckptfs/views/step/"

static void put_sample(const char *path, unsigned char first)
{
	struct test_folder folder = mounts_folder(0, path);

	sample_write(&folder, false, first);
	close(folder.fd);
}

static int start(void **state)
{
	const struct mounts_options options = { .count = 1 };

	(void)state;
	mounts_prepare(1);
	put_sample("step", 1);
	put_sample("spare", 2);
	mounts_start(&options);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

/* Other bytes in one of its files. */
static void write_over(void)
{
	struct test_folder step = mounts_folder(0, "step");

	folder_poke(&step, "__0_0.distcp", 0, 'x');
	close(step.fd);
}

/* Nobody finds it any more: somebody has looked. */
static void retire(void)
{
	assert_int_equal(unlinkat(mounts_stores[0].fd, "step/.metadata", 0),
			 0);
	mounts_later(1000);
	assert_int_equal(paths_error("step/tensors"), -ENOENT);
}

/* The kernel has been told to drop the pages of these, of each once, and of
 * nothing else. */
static void check_dropped(const uint64_t *nodes, unsigned count)
{
	struct kernel *kernel = mounts_kernel(0);
	bool *told = calloc(count, sizeof(*told));
	struct kernel_notice notice;
	unsigned i, j;

	assert_non_null(told);
	assert_int_equal(kernel_count_notices(kernel), count);
	for (i = 0; i < count; i++) {
		kernel_next_notice(kernel, &notice);
		assert_int_equal(notice.code, FUSE_NOTIFY_INVAL_INODE);
		for (j = 0; j < count && nodes[j] != notice.node; j++)
			;
		assert_true(j < count);
		assert_false(told[j]);
		told[j] = true;
	}
	free(told);
}

static void pages_of_open_files_are_dropped(void **state)
{
	enum { FILES = 5 };
	static const char *const paths[FILES] = {
		VIEWS "tensors/w", VIEWS "tensors/w[1:2]", VIEWS "npy/w.npy",
		VIEWS "tensors.json", VIEWS "safetensors/model.safetensors",
	};
	struct kernel *kernel = mounts_kernel(0);
	uint64_t node[FILES], handle[FILES], again, closed;
	unsigned i;

	(void)state;
	for (i = 0; i < FILES; i++) {
		node[i] = paths_find(paths[i]);
		handle[i] = paths_open(node[i]).fh;
	}
	again = paths_open(node[0]).fh;
	closed = paths_find(VIEWS "f32/w.npy");
	kernel_release(kernel, closed, paths_open(closed).fh);
	closed = paths_find(".ckptfs/views/spare/tensors/w");
	paths_open(closed);
	assert_int_equal(kernel_count_notices(kernel), 0);
	write_over();
	retire();
	check_dropped(node, FILES);
	kernel_release(kernel, node[0], again);
	for (i = 0; i < FILES; i++)
		kernel_release(kernel, node[i], handle[i]);
	assert_int_equal(kernel_count_notices(kernel), FILES);
}

static void pages_of_many_files_are_dropped(void **state)
{
	enum { FILES = 400 };
	uint64_t view = paths_find(VIEWS "tensors"), node[FILES];
	struct fuse_entry_out entry;
	char name[32];
	unsigned i;

	(void)state;
	for (i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "w[%u,%u]", i / 64, i % 64);
		assert_int_equal(kernel_lookup(mounts_kernel(0), view, name,
					       &entry), 0);
		node[i] = entry.nodeid;
		paths_open(node[i]);
		if (i % 3 == 0)
			paths_open(node[i]);
	}
	write_over();
	retire();
	check_dropped(node, FILES);
}

/* Only names have gone: who has it mapped reads on. */
static void pages_stay_as_long_as_the_bytes(void **state)
{
	uint64_t node = paths_find(VIEWS "tensors/w");
	struct kernel *kernel = mounts_kernel(0);

	(void)state;
	paths_open(node);
	assert_int_equal(unlinkat(mounts_stores[0].fd, "step/__0_0.distcp", 0),
			 0);
	retire();
	stall_settle(0);
	assert_int_equal(kernel_count_notices(kernel), 0);
}

/* Look @names up one below the other, each once. */
static void look_up(const char *const *names, uint64_t *nodes, unsigned count)
{
	struct fuse_entry_out entry = { .nodeid = FUSE_ROOT_ID };
	unsigned i;

	for (i = 0; i < count; i++) {
		assert_int_equal(kernel_lookup(mounts_kernel(0), entry.nodeid,
					       names[i], &entry), 0);
		nodes[i] = entry.nodeid;
	}
}

/* A checkpoint is open as long as the kernel knows anything of it, or has
 * anything open, and not longer. */
static void nothing_is_left_of_what_is_forgotten(void **state)
{
	static const char *const names[] = { ".ckptfs", "views", "step",
					     "tensors", "w" };
	enum { COUNT = COUNT_OF(names), VIEW = 3, FILE = 4 };
	struct kernel *kernel = mounts_kernel(0);
	struct fuse_entry_out slice;
	unsigned descriptors, i;
	uint64_t nodes[COUNT], handle;
	unsigned char byte;

	(void)state;
	descriptors = folder_count_descriptors();
	look_up(names, nodes, COUNT);
	assert_int_equal(kernel_lookup(kernel, nodes[VIEW], "w[0]", &slice),
			 0);
	handle = paths_open(nodes[FILE]).fh;
	assert_int_equal(kernel_read(kernel, nodes[FILE], handle, 0, 1, &byte,
				     NULL), 0);
	retire();
	for (i = 0; i < COUNT; i++)
		kernel_forget(kernel, nodes[i], 1);
	kernel_settle(kernel);
	stall_settle(0);
	assert_true(folder_count_descriptors() > descriptors);
	kernel_release(kernel, nodes[FILE], handle);
	assert_true(folder_count_descriptors() > descriptors);
	kernel_forget(kernel, slice.nodeid, 1);
	kernel_settle(kernel);
	assert_int_equal(folder_count_descriptors(), descriptors);
}

/* The same, when an open file is the last of it. */
static void an_open_file_is_the_last_of_it(void **state)
{
	static const char *const names[] = { ".ckptfs", "views", "step",
					     "npy", "w.npy" };
	enum { COUNT = COUNT_OF(names), FILE = 4 };
	unsigned descriptors = folder_count_descriptors(), i;
	struct kernel *kernel = mounts_kernel(0);
	uint64_t nodes[COUNT], handle;
	unsigned char byte;

	(void)state;
	look_up(names, nodes, COUNT);
	handle = paths_open(nodes[FILE]).fh;
	retire();
	for (i = 0; i < COUNT; i++)
		kernel_forget(kernel, nodes[i], 1);
	kernel_settle(kernel);
	stall_settle(0);
	assert_true(folder_count_descriptors() > descriptors);
	assert_int_equal(kernel_read(kernel, nodes[FILE], handle, 0, 1, &byte,
				     NULL), 0);
	kernel_release(kernel, nodes[FILE], handle);
	kernel_settle(kernel);
	stall_settle(0);
	assert_int_equal(folder_count_descriptors(), descriptors);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pages_of_open_files_are_dropped),
		TEST(pages_of_many_files_are_dropped),
		TEST(pages_stay_as_long_as_the_bytes),
		TEST(nothing_is_left_of_what_is_forgotten),
		TEST(an_open_file_is_the_last_of_it),
	};

	return cmocka_run_group_tests_name("retired", tests, NULL, NULL);
}
