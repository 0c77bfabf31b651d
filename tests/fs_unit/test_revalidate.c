/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints that appear, change and go while they are mounted: what is found
 * then, and what becomes of what the kernel knows and has open. The clock is
 * the test's: the store is looked at again when it says so.
 */
#include "support/test.h"
#include "support/mounts.h"
#include "support/paths.h"
#include "support/sample.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VIEWS ".ckptfs/views/step/"
#define W VIEWS "tensors/w"

static int start(void **state)
{
	const struct mounts_options options = { .count = 1 };

	(void)state;
	mounts_prepare(1);
	close(mounts_folder(0, "step").fd);
	close(mounts_folder(0, "spare").fd);
	mounts_start(&options);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

static void put_sample(const char *path, unsigned char first)
{
	struct test_folder folder = mounts_folder(0, path);

	sample_write(&folder, false, first);
	close(folder.fd);
}

static void move(const char *from, const char *to)
{
	assert_int_equal(renameat(mounts_stores[0].fd, from,
				  mounts_stores[0].fd, to), 0);
}

static void delete(const char *path)
{
	assert_int_equal(unlinkat(mounts_stores[0].fd, path, 0), 0);
}

/* Times of the store's files are coarse: a file that was written twice within
 * a tick would look the same. */
static void touch(const char *path)
{
	static int64_t seconds = 1000;
	struct timespec times[2] = { { 0, UTIME_OMIT }, { ++seconds, 0 } };

	assert_int_equal(utimensat(mounts_stores[0].fd, path, times, 0), 0);
}

/* An open file whose inode is known by its lookup alone. */
struct opened {
	uint64_t node, handle;
};

static struct opened open_w(void)
{
	struct opened opened = { .node = paths_find(W) };

	opened.handle = paths_open(opened.node).fh;
	return opened;
}

static int read_w(const struct opened *opened, unsigned char *ret_first)
{
	return kernel_read(mounts_kernel(0), opened->node, opened->handle, 0,
			   1, ret_first, NULL);
}

/* The tensor that is found now starts with @first. */
static void check_first(unsigned char first)
{
	struct opened opened = open_w();
	unsigned char byte;

	assert_int_equal(read_w(&opened, &byte), 0);
	assert_int_equal(byte, first);
	kernel_release(mounts_kernel(0), opened.node, opened.handle);
}

static void check_no_views(void)
{
	assert_int_equal(paths_error("step/tensors"), -ENOENT);
	assert_int_equal(paths_error(VIEWS "tensors"), -ENOENT);
	assert_int_equal(paths_error("step"), 0);
}

/* ---- coming, changing, going --------------------------------------------- */

static void a_checkpoint_appears(void **state)
{
	(void)state;
	check_no_views();
	put_sample("step", 1);
	/* Somebody has just looked. */
	check_no_views();
	mounts_later(999);
	check_no_views();
	mounts_later(1);
	assert_int_equal(paths_error("step/tensors"), 0);
	check_first(1);
}

/* A listing looks as well. */
static void a_listing_sees_it(void **state)
{
	(void)state;
	/* While the kernel knows the folder, it is known when it was looked
	 * at. */
	paths_find("step");
	paths_check_names("step", "");
	put_sample("step", 1);
	paths_check_names("step", ".metadata\n__0_0.distcp\n__1_0.distcp\n");
	mounts_later(1000);
	paths_check_names("step", ".metadata\n__0_0.distcp\n__1_0.distcp\n"
			  "f32\nhf\nnpy\nobjects\nsafetensors\ntensors\n"
			  "tensors.json\n");
	delete("step/.metadata");
	mounts_later(1000);
	paths_check_names("step", "__0_0.distcp\n__1_0.distcp\n");
	paths_check_names(".ckptfs/views/step", "");
}

/* A folder that nobody has asked for is looked at when somebody does. */
static void a_new_folder_is_looked_at_once(void **state)
{
	(void)state;
	put_sample("late", 5);
	assert_int_equal(paths_error("late/tensors"), 0);
	assert_int_equal(paths_error(".ckptfs/views/late/tensors/w"), 0);
}

static void a_checkpoint_goes(void **state)
{
	struct opened opened;
	unsigned char byte;

	(void)state;
	put_sample("step", 1);
	opened = open_w();
	delete("step/.metadata");
	/* Nobody has looked since. */
	assert_int_equal(paths_find(W), opened.node);
	mounts_later(1000);
	check_no_views();
	/* What is open outlives its name. */
	assert_int_equal(read_w(&opened, &byte), 0);
	assert_int_equal(byte, 1);
	kernel_release(mounts_kernel(0), opened.node, opened.handle);
}

/* What the kernel knows of the one that was there, which began with 1, is of no
 * use but for what is open, unless its bytes are others. */
static void check_old(const struct opened *old, uint64_t view, bool same_bytes)
{
	struct kernel *kernel = mounts_kernel(0);
	struct fuse_entry_out entry;
	struct fuse_open_out open;
	unsigned char byte = 1;

	assert_int_equal(read_w(old, &byte), same_bytes ? 0 : -ESTALE);
	assert_int_equal(byte, 1);
	assert_int_equal(kernel_open(kernel, old->node, &open), -ESTALE);
	assert_int_equal(kernel_opendir(kernel, view, &open), -ESTALE);
	assert_int_equal(kernel_lookup(kernel, view, "w", &entry), -ESTALE);
	assert_int_equal(kernel_lookup(kernel, view, "w[0]", &entry), -ESTALE);
	assert_int_not_equal(paths_find(VIEWS "tensors"), view);
	assert_int_not_equal(paths_find(W), old->node);
	kernel_release(kernel, old->node, old->handle);
}

static void a_checkpoint_is_replaced(void **state)
{
	struct opened opened;
	uint64_t view, link;

	(void)state;
	put_sample("step", 1);
	opened = open_w();
	view = paths_find(VIEWS "tensors");
	link = paths_find("step/tensors");
	put_sample("spare", 7);
	move("spare/__0_0.distcp", "step/__0_0.distcp");
	move("spare/__1_0.distcp", "step/__1_0.distcp");
	move("spare/.metadata", "step/.metadata");
	mounts_later(1000);
	check_first(7);
	check_old(&opened, view, true);
	assert_int_not_equal(paths_find("step/tensors"), link);
}

static void a_checkpoint_is_written_over(void **state)
{
	struct opened opened;
	uint64_t view;

	(void)state;
	put_sample("step", 1);
	opened = open_w();
	view = paths_find(VIEWS "tensors");
	put_sample("step", 7);
	touch("step/.metadata");
	mounts_later(1000);
	check_first(7);
	check_old(&opened, view, false);
}

/* Only its data: a checkpoint is what all of its files are. */
static void data_is_written_over(void **state)
{
	struct opened opened;
	uint64_t view;

	(void)state;
	put_sample("step", 1);
	opened = open_w();
	view = paths_find(VIEWS "tensors");
	put_sample("spare", 7);
	move("spare/__0_0.distcp", "step/__0_0.distcp");
	mounts_later(1000);
	check_first(7);
	check_old(&opened, view, true);
}

static void safetensors_are_written_over(void **state)
{
	struct test_folder step = mounts_folder(0, "step");
	struct test_folder spare = mounts_folder(0, "spare");
	struct opened opened;
	uint64_t view;

	(void)state;
	sample_write_safetensors(&step, SAMPLE_INDEXED, 1);
	sample_write_safetensors(&spare, SAMPLE_INDEXED, 7);
	close(step.fd);
	close(spare.fd);
	opened = open_w();
	view = paths_find(VIEWS "tensors");
	move("spare/a.safetensors", "step/a.safetensors");
	mounts_later(1000);
	check_first(7);
	check_old(&opened, view, true);
	delete("step/a.safetensors");
	delete("step/b.safetensors");
	mounts_later(1000);
	check_no_views();
}

/* Who reads sees it first, and then nobody waits for the second to end. */
static void a_read_that_notices_makes_the_next_lookup_look(void **state)
{
	struct opened opened;
	unsigned char byte;
	uint64_t view;

	(void)state;
	put_sample("step", 1);
	opened = open_w();
	view = paths_find(VIEWS "tensors");
	put_sample("step", 7);
	touch("step/__0_0.distcp");
	assert_int_equal(read_w(&opened, &byte), -ESTALE);
	check_first(7);
	check_old(&opened, view, false);
}

/* ---- refusal ------------------------------------------------------------- */

static void a_damaged_one_is_refused_until_it_is_mended(void **state)
{
	struct opened opened;
	unsigned char byte;

	(void)state;
	put_sample("step", 1);
	opened = open_w();
	mounts_write(0, "step", ".metadata", "no pickle");
	mounts_later(1000);
	check_no_views();
	/* It is not what the tensor's bytes are in. */
	assert_int_equal(read_w(&opened, &byte), 0);
	assert_int_equal(byte, 1);
	kernel_release(mounts_kernel(0), opened.node, opened.handle);
	/* Its files are there as before. */
	paths_check_names("step", ".metadata\n__0_0.distcp\n__1_0.distcp\n");
	mounts_later(1000);
	check_no_views();
	mounts_write(0, "step", ".metadata", "\x80\2}.");
	mounts_later(1000);
	check_no_views();
	put_sample("step", 3);
	check_no_views();
	mounts_later(1000);
	check_first(3);
}

/* The stored files of a checkpoint do not change, those of any other folder
 * may: what the kernel may keep depends on it. */
static void stored_files_become_those_of_a_checkpoint(void **state)
{
	struct fuse_entry_out entry;

	(void)state;
	mounts_write(0, "step", "config.json", "{}");
	assert_int_equal(paths_entry("step/config.json").attr_valid, 0);
	put_sample("step", 1);
	mounts_later(1000);
	entry = paths_entry("step/config.json");
	assert_int_equal(paths_entry(VIEWS "hf/config.json").nodeid,
			 entry.nodeid);
	delete("step/.metadata");
	mounts_later(1000);
	check_no_views();
	mounts_write(0, "step", "config.json", "{\"a\": 1}");
	assert_int_equal(paths_entry("step/config.json").attr_valid, 0);
	assert_int_equal(paths_entry("step/config.json").attr.size, 8);
}

/* ---- folders ------------------------------------------------------------- */

static void a_folder_is_renamed(void **state)
{
	struct kernel *kernel = mounts_kernel(0);
	struct fuse_entry_out entry;
	struct fuse_attr_out attr;
	struct opened opened;
	unsigned char byte;
	uint64_t step, mirror;

	(void)state;
	put_sample("step", 1);
	opened = open_w();
	step = paths_find("step");
	mirror = paths_find(".ckptfs/views/step");
	move("step", "other");
	mounts_later(1000);
	assert_int_equal(paths_error("step"), -ENOENT);
	assert_int_equal(paths_error(".ckptfs/views/step"), -ENOENT);
	assert_int_equal(kernel_getattr(kernel, step, &attr), -ESTALE);
	assert_int_equal(kernel_lookup(kernel, step, "tensors", &entry),
			 -ENOENT);
	assert_int_equal(kernel_lookup(kernel, mirror, "tensors", &entry),
			 -ENOENT);
	assert_int_equal(read_w(&opened, &byte), 0);
	assert_int_not_equal(paths_find("other"), step);
	assert_int_equal(paths_error(".ckptfs/views/other/tensors/w"), 0);
	kernel_release(kernel, opened.node, opened.handle);
}

/* Who has the folder open stays in it, whatever has its name then. */
static void an_open_folder_is_renamed(void **state)
{
	struct kernel *kernel = mounts_kernel(0);
	struct fuse_entry_out entry;
	struct fuse_open_out open, again;
	struct fuse_attr_out attr;
	struct kernel_dirent entries[16];
	uint64_t step, mirror;
	size_t count;

	(void)state;
	put_sample("step", 1);
	step = paths_find("step");
	mirror = paths_find(".ckptfs/views/step");
	assert_int_equal(kernel_opendir(kernel, step, &open), 0);
	move("step", "other");
	put_sample("step", 7);
	mounts_later(1000);
	check_first(7);
	assert_int_not_equal(paths_find("step"), step);
	assert_int_equal(kernel_getattr(kernel, step, &attr), 0);
	assert_int_equal(kernel_lookup(kernel, step, ".metadata", &entry), 0);
	assert_int_not_equal(entry.nodeid, paths_find("step/.metadata"));
	assert_int_equal(kernel_lookup(kernel, step, "tensors", &entry), 0);
	assert_int_equal(kernel_lookup(kernel, mirror, "tensors", &entry), 0);
	assert_int_equal(kernel_opendir(kernel, step, &again), 0);
	assert_int_equal(kernel_readdir(kernel, step, again.fh, false, 4096,
					entries, COUNT_OF(entries), &count),
			 0);
	assert_int_equal(count, 2 + 3 + 7);
	kernel_releasedir(kernel, step, again.fh);
	kernel_releasedir(kernel, step, open.fh);
	kernel_settle(kernel);
	/* Nobody has it open: it is what its name says, which is another one's. */
	assert_int_equal(kernel_lookup(kernel, step, "nothing", &entry),
			 -ENOENT);
}

/* Another folder has its name. */
static void a_folder_is_exchanged(void **state)
{
	struct opened opened;
	uint64_t view;

	(void)state;
	put_sample("step", 1);
	put_sample("spare", 7);
	opened = open_w();
	view = paths_find(VIEWS "tensors");
	move("step", "old");
	move("spare", "step");
	mounts_later(1000);
	check_first(7);
	check_old(&opened, view, true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_checkpoint_appears),
		TEST(a_listing_sees_it),
		TEST(a_new_folder_is_looked_at_once),
		TEST(a_checkpoint_goes),
		TEST(a_checkpoint_is_replaced),
		TEST(a_checkpoint_is_written_over),
		TEST(data_is_written_over),
		TEST(safetensors_are_written_over),
		TEST(a_read_that_notices_makes_the_next_lookup_look),
		TEST(a_damaged_one_is_refused_until_it_is_mended),
		TEST(stored_files_become_those_of_a_checkpoint),
		TEST(a_folder_is_renamed),
		TEST(an_open_folder_is_renamed),
		TEST(a_folder_is_exchanged),
	};

	return cmocka_run_group_tests_name("revalidate", tests, NULL, NULL);
}
