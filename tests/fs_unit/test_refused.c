/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that the kernel does not take, since it has forgotten about the
 * request: what they told of or opened is as if nobody had asked. */
#include "support/test.h"
#include "support/mounts.h"
#include "support/paths.h"
#include "support/stall.h"
#include "support/variety.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define VIEWS ".ckptfs/views/step/"

static struct kernel *kernel;

static int start(void **state)
{
	const struct mounts_options options = { .count = 1 };
	struct test_folder step;

	(void)state;
	mounts_prepare(1);
	step = mounts_folder(0, "step");
	variety_write(&step, 1);
	close(step.fd);
	mounts_write(0, "step", "config.json", "{}");
	mounts_write(0, "plain", "file", "text");
	close(mounts_folder(0, "plain/folder").fd);
	mounts_start(&options);
	kernel = mounts_kernel(0);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

/* The next request is one whose answer the kernel will refuse. */
static void drop_next(void)
{
	kernel_drop(kernel, kernel_next(kernel));
}

/* Until that has happened, and has been undone. */
static void await_undone(uint64_t unique)
{
	kernel_await_refused(kernel, unique);
	kernel_settle(kernel);
	stall_settle(0);
}

static void refused_lookups_are_undone(void **state)
{
	static const struct {
		const char *parent, *name;
	} names[] = {
		{ "plain", "file" },
		{ "plain", "folder" },
		{ "step", "config.json" },
		{ ".ckptfs", "views" },
		{ VIEWS "tensors", "model.w[1:2]" },
		{ VIEWS "safetensors", "model.safetensors" },
	};
	struct fuse_entry_out entry;
	uint64_t parent, unique;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(names); i++) {
		parent = paths_find(names[i].parent);
		assert_int_equal(kernel_lookup(kernel, parent, names[i].name,
					       &entry), 0);
		drop_next();
		unique = kernel_ask_lookup(kernel, parent, names[i].name);
		await_undone(unique);
		assert_true(paths_is_known(entry.nodeid));
		kernel_forget(kernel, entry.nodeid, 1);
		paths_check_gone(entry.nodeid);
	}
}

static void refuse_open(uint64_t node, bool folder)
{
	uint64_t unique;

	drop_next();
	unique = folder ? kernel_ask_opendir(kernel, node) :
			  kernel_ask_open(kernel, node);
	await_undone(unique);
}

static void refused_opens_are_undone(void **state)
{
	uint64_t file = paths_find("plain/file");
	unsigned descriptors = folder_count_descriptors();

	(void)state;
	refuse_open(file, false);
	assert_int_equal(folder_count_descriptors(), descriptors);
}

static void refuse_listing(uint64_t node)
{
	struct fuse_read_in in = { .size = 4096 };
	struct fuse_open_out open;
	uint64_t unique;

	assert_int_equal(kernel_opendir(kernel, node, &open), 0);
	in.fh = open.fh;
	drop_next();
	unique = kernel_ask(kernel, FUSE_READDIRPLUS, node, &in, sizeof(in),
			    NULL);
	await_undone(unique);
	kernel_releasedir(kernel, node, open.fh);
}

/* A checkpoint that is gone is open as long as anything of it is known or
 * open: nothing is. */
static void refused_views_are_undone(void **state)
{
	unsigned descriptors = folder_count_descriptors();
	struct fuse_entry_out step, view, file;
	uint64_t mirror, unique;

	(void)state;
	paths_find("step");
	mirror = paths_find(".ckptfs/views");
	assert_int_equal(kernel_lookup(kernel, mirror, "step", &step), 0);
	assert_int_equal(kernel_lookup(kernel, step.nodeid, "tensors", &view),
			 0);
	assert_int_equal(kernel_lookup(kernel, view.nodeid, "step", &file), 0);
	drop_next();
	unique = kernel_ask_lookup(kernel, view.nodeid, "step");
	await_undone(unique);
	refuse_open(view.nodeid, true);
	refuse_open(file.nodeid, false);
	refuse_listing(view.nodeid);
	assert_int_equal(unlinkat(mounts_stores[0].fd, "step/.metadata", 0),
			 0);
	mounts_later(1000);
	assert_int_equal(paths_error("step/tensors"), -ENOENT);
	kernel_forget(kernel, file.nodeid, 1);
	kernel_settle(kernel);
	stall_settle(0);
	assert_true(folder_count_descriptors() > descriptors);
	kernel_forget(kernel, view.nodeid, 1);
	kernel_settle(kernel);
	assert_int_equal(folder_count_descriptors(), descriptors);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(refused_lookups_are_undone),
		TEST(refused_opens_are_undone),
		TEST(refused_views_are_undone),
	};

	return cmocka_run_group_tests_name("refused", tests, NULL, NULL);
}
