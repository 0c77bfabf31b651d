/* SPDX-License-Identifier: Apache-2.0 */
/* What is in a folder, of each kind that there is, whatever the buffer that a
 * kernel reads it into, and however the folder changes meanwhile. */
#include "support/test.h"
#include "support/mounts.h"
#include "support/paths.h"
#include "support/stall.h"
#include "support/variety.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VIEWS ".ckptfs/views/run/step/"

enum { MAX = 64 };

/* One of each kind, and what is in it. */
static const struct folder_kind {
	const char *path, *names;
} kinds[] = {
	{ "", "run\n" },
	{ "run", "assets\nfile\nlink\nplain\nstep\n" },
	{ "run/plain", "" },
	{ "run/step", ".metadata\n__0_0.distcp\n__1_0.distcp\nconfig.json\n"
		      "f32\nhf\nlog\nnpy\nobjects\nsafetensors\ntensors\n"
		      "tensors.json\nweights.bin\n" },
	{ "run/step/log", "f32\nhf\ntrain.txt\n" },
	{ ".ckptfs", "metrics\nstatus.json\nviews\n" },
	{ ".ckptfs/views", "run\n" },
	{ ".ckptfs/views/run", "assets\nplain\nstep\n" },
	{ ".ckptfs/views/run/step", "f32\nhf\nlog\nnpy\nobjects\nsafetensors\n"
				    "tensors\ntensors.json\n" },
	{ ".ckptfs/views/run/plain", "" },
	{ VIEWS "tensors", "a%2Fb%5Bc]%25\nholes\nlost\nmodel.b\nmodel.w\n"
			   "optim.exp.w\nstep\n" },
	{ VIEWS "npy", "a%2Fb%5Bc]%25.npy\nholes.npy\nlost.npy\nmodel.b.npy\n"
		       "model.w.npy\noptim.exp.w.npy\nstep.npy\n" },
	/* What float32 cannot hold, and what is no float, is not there. */
	{ VIEWS "f32", "a%2Fb%5Bc]%25.npy\nholes.npy\nlost.npy\nmodel.b.npy\n"
		       "model.w.npy\n" },
	{ VIEWS "safetensors", "_flat.safetensors\nmodel.safetensors\n"
			       "optim.safetensors\n" },
	{ VIEWS "hf", "config.json\nlinked.py\nmodel.safetensors\n"
		      "vocab.txt\n" },
	/* What is not plain data has no JSON. */
	{ VIEWS "objects", "args.json\nargs.pt\ncode.pt\npacked.json\n"
			   "packed.pt\n" },
};

static int start(void **state)
{
	static struct test_folder assets;
	const struct mounts_options options = {
		.count = 1, .hf_assets = assets.path,
	};
	struct test_folder step;
	int store;

	(void)state;
	mounts_prepare(1);
	store = mounts_stores[0].fd;
	step = mounts_folder(0, "run/step");
	variety_write(&step, 1);
	close(step.fd);
	mounts_write(0, "run/step", "config.json", "{}");
	mounts_write(0, "run/step", "weights.bin", "w");
	mounts_write(0, "run/step/log", "train.txt", "x");
	mounts_write(0, "run/step/log", "f32", "a file");
	close(mounts_folder(0, "run/step/log/hf").fd);
	close(mounts_folder(0, "run/plain").fd);
	mounts_write(0, "run", "file", "text");
	assert_int_equal(symlinkat("step", store, "run/link"), 0);
	mounts_write(0, "run/assets", "config.json", "{\"a\": 1}");
	mounts_write(0, "run/assets", "vocab.txt", "a b");
	mounts_write(0, "run/assets", "model.bin", "not shown");
	assert_int_equal(symlinkat("../file", store, "run/assets/linked.py"),
			 0);
	assert_int_equal(symlinkat("nowhere", store, "run/assets/gone.py"), 0);
	assets = mounts_folder(0, "run/assets");
	close(assets.fd);
	mounts_start(&options);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

/* An open folder, and what was listed of it. */
struct opened {
	uint64_t node, handle;
	uint32_t flags;
	struct kernel_dirent entries[MAX];
	size_t count;
};

static void open_folder(struct opened *opened, const char *path)
{
	struct fuse_open_out open;

	opened->node = paths_find(path);
	assert_int_equal(kernel_opendir(mounts_kernel(0), opened->node, &open),
			 0);
	opened->handle = open.fh;
	opened->flags = open.open_flags;
}

static void read_folder(struct opened *opened, bool plus, size_t size)
{
	assert_int_equal(kernel_readdir(mounts_kernel(0), opened->node,
					opened->handle, plus, size,
					opened->entries, MAX, &opened->count),
			 0);
}

static void close_folder(struct opened *opened)
{
	kernel_releasedir(mounts_kernel(0), opened->node, opened->handle);
}

static void forget_entries(const struct opened *opened)
{
	size_t i;

	for (i = 0; i < opened->count; i++)
		if (opened->entries[i].entry.nodeid)
			kernel_forget(mounts_kernel(0),
				      opened->entries[i].entry.nodeid, 1);
}

static const struct kernel_dirent *find_entry(const struct opened *opened,
					      const char *name)
{
	const struct kernel_dirent *found = NULL;
	size_t i;

	for (i = 0; i < opened->count; i++)
		if (strcmp(opened->entries[i].name, name) == 0) {
			assert_null(found);
			found = &opened->entries[i];
		}
	return found;
}

/* ---- what is listed ------------------------------------------------------ */

static void each_kind_is_listed(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(kinds); i++)
		paths_check_names(kinds[i].path, kinds[i].names);
}

/* Entry by entry: what is listed can be looked up, and is that. */
static void check_entry(const struct opened *opened,
			const struct kernel_dirent *listed)
{
	struct kernel *kernel = mounts_kernel(0);
	struct fuse_entry_out entry;

	/* A zero is skipped by readers of folders. */
	assert_int_not_equal(listed->ino, 0);
	if (strcmp(listed->name, ".") == 0 || strcmp(listed->name, "..") == 0) {
		assert_int_equal(listed->type, DT_DIR);
		assert_int_equal(listed->entry.nodeid, 0);
		return;
	}
	assert_int_equal(kernel_lookup(kernel, opened->node, listed->name,
				       &entry), 0);
	assert_int_equal(listed->type, IFTODT(entry.attr.mode));
	if (!listed->entry.nodeid)
		return;
	assert_int_equal(listed->ino, entry.nodeid);
	assert_memory_equal(&listed->entry, &entry, sizeof(entry));
}

static void what_is_listed_is_what_is_found(void **state)
{
	struct opened opened;
	size_t i, j;
	int plus;

	(void)state;
	for (i = 0; i < COUNT_OF(kinds); i++)
		for (plus = 0; plus < 2; plus++) {
			open_folder(&opened, kinds[i].path);
			read_folder(&opened, plus, 4096);
			for (j = 0; j < opened.count; j++)
				check_entry(&opened, &opened.entries[j]);
			assert_non_null(find_entry(&opened, ".."));
			assert_int_equal(find_entry(&opened, ".")->ino,
					 opened.node);
			close_folder(&opened);
			forget_entries(&opened);
		}
}

/* Of views with many files, the kernel need not ask one by one. */
static void view_files_are_listed_with_their_status(void **state)
{
	static const char *const paths[] = {
		VIEWS "tensors", VIEWS "npy", VIEWS "f32", VIEWS "objects",
	};
	struct opened opened;
	size_t i, j;

	(void)state;
	for (i = 0; i < COUNT_OF(paths); i++) {
		open_folder(&opened, paths[i]);
		read_folder(&opened, true, 4096);
		for (j = 2; j < opened.count; j++)
			assert_int_not_equal(opened.entries[j].entry.nodeid,
					     0);
		close_folder(&opened);
		forget_entries(&opened);
	}
}

/* ---- buffers ------------------------------------------------------------- */

static void check_same(const struct opened *a, const struct opened *b)
{
	size_t i;

	assert_int_equal(a->count, b->count);
	for (i = 0; i < a->count; i++) {
		assert_string_equal(a->entries[i].name, b->entries[i].name);
		assert_int_equal(a->entries[i].type, b->entries[i].type);
		assert_int_equal(a->entries[i].ino, b->entries[i].ino);
	}
}

/* From one entry at a time to all at once. */
static void any_buffer_gives_the_same(void **state)
{
	static const size_t sizes[] = { 64, 72, 96, 128, 200, 256, 512, 1024,
					65536 };
	enum { PLUS_HEAD = FUSE_NAME_OFFSET_DIRENTPLUS - FUSE_NAME_OFFSET };
	struct opened whole, parts;
	size_t i, j;

	(void)state;
	for (i = 0; i < COUNT_OF(kinds); i++) {
		open_folder(&whole, kinds[i].path);
		read_folder(&whole, false, 4096);
		parts = whole;
		for (j = 0; j < COUNT_OF(sizes); j++) {
			read_folder(&parts, false, sizes[j]);
			check_same(&whole, &parts);
			read_folder(&parts, true, sizes[j] + PLUS_HEAD);
			check_same(&whole, &parts);
			forget_entries(&parts);
		}
		close_folder(&whole);
	}
}

/* The answer to one request at a position. */
static size_t ask_once(const struct opened *opened, uint64_t position,
		       void *buffer, size_t size)
{
	const struct fuse_read_in in = {
		.fh = opened->handle, .offset = position,
		.size = (uint32_t)size,
	};
	uint64_t unique = kernel_ask(mounts_kernel(0), FUSE_READDIR,
				     opened->node, &in, sizeof(in), NULL);
	size_t got;

	assert_int_equal(kernel_answer(mounts_kernel(0), unique, buffer, size,
				       &got), 0);
	return got;
}

/* Positions may be gone back to, and mean the same when a view is opened
 * again. */
static void positions_stay_good(void **state)
{
	uint64_t buffer[16], again[16];
	struct fuse_dirent first;
	struct opened a, b;
	size_t got;

	(void)state;
	open_folder(&a, VIEWS "tensors");
	assert_true(ask_once(&a, 0, buffer, sizeof(buffer)) > 0);
	memcpy(&first, buffer, sizeof(first));
	got = ask_once(&a, first.off, buffer, sizeof(buffer));
	assert_true(got > 0);
	assert_int_equal(ask_once(&a, UINT32_MAX, again, sizeof(again)), 0);
	assert_int_equal(ask_once(&a, first.off, again, sizeof(again)), got);
	assert_memory_equal(buffer, again, got);
	open_folder(&b, VIEWS "tensors");
	assert_int_equal(ask_once(&b, first.off, again, sizeof(again)), got);
	assert_memory_equal(buffer, again, got);
	close_folder(&a);
	close_folder(&b);
}

/* ---- lookups ------------------------------------------------------------- */

static void remove_stored(const char *path)
{
	assert_int_equal(unlinkat(mounts_stores[0].fd, path, 0), 0);
	mounts_later(1000);
}

/* A checkpoint that has gone lives on as long as the kernel knows something of
 * it: its folder is open as long. */
static void listed_entries_are_looked_up(void **state)
{
	unsigned descriptors = folder_count_descriptors();
	struct kernel *kernel = mounts_kernel(0);
	struct opened opened;

	(void)state;
	paths_find("run/step");
	open_folder(&opened, VIEWS "tensors");
	read_folder(&opened, true, 512);
	assert_true(folder_count_descriptors() > descriptors);
	remove_stored("run/step/.metadata");
	assert_int_equal(paths_error(VIEWS "tensors"), -ENOENT);
	close_folder(&opened);
	kernel_forget(kernel, opened.node, 1);
	kernel_settle(kernel);
	stall_settle(0);
	assert_true(folder_count_descriptors() > descriptors);
	forget_entries(&opened);
	kernel_settle(kernel);
	assert_int_equal(folder_count_descriptors(), descriptors);
}

/* ---- changes ------------------------------------------------------------- */

static void open_folders_stay_as_they_were(void **state)
{
	struct opened opened, later;

	(void)state;
	open_folder(&opened, "run");
	mounts_write(0, "run", "new", "");
	remove_stored("run/file");
	assert_int_equal(renameat(mounts_stores[0].fd, "run/plain",
				  mounts_stores[0].fd, "run/moved"), 0);
	read_folder(&opened, false, 64);
	assert_int_equal(opened.count, 2 + 5);
	assert_non_null(find_entry(&opened, "file"));
	assert_non_null(find_entry(&opened, "plain"));
	assert_null(find_entry(&opened, "new"));
	close_folder(&opened);
	open_folder(&later, "run");
	read_folder(&later, false, 64);
	assert_int_equal(later.count, 2 + 5);
	assert_null(find_entry(&later, "file"));
	assert_non_null(find_entry(&later, "moved"));
	assert_non_null(find_entry(&later, "new"));
	close_folder(&later);
}

static void open_views_outlive_their_checkpoint(void **state)
{
	struct fuse_open_out open;
	struct opened opened;

	(void)state;
	open_folder(&opened, VIEWS "npy");
	remove_stored("run/step/.metadata");
	assert_int_equal(paths_error(VIEWS "npy"), -ENOENT);
	read_folder(&opened, true, 256);
	assert_int_equal(opened.count, 2 + VARIETY_TENSORS);
	/* But nobody opens them any more. */
	assert_int_equal(kernel_opendir(mounts_kernel(0), opened.node, &open),
			 -ESTALE);
	close_folder(&opened);
	forget_entries(&opened);
}

static void what_is_gone_cannot_be_opened(void **state)
{
	uint64_t plain = paths_find("run/plain"), file = paths_find("run/file");
	uint64_t mirror = paths_find(".ckptfs/views/run/plain");
	struct kernel *kernel = mounts_kernel(0);
	struct fuse_open_out open;

	(void)state;
	assert_int_equal(unlinkat(mounts_stores[0].fd, "run/plain",
				  AT_REMOVEDIR), 0);
	assert_int_equal(kernel_opendir(kernel, plain, &open), -ESTALE);
	assert_int_equal(kernel_opendir(kernel, mirror, &open), -ESTALE);
	assert_int_equal(kernel_opendir(kernel, file, &open), -ENOTDIR);
	assert_int_equal(kernel_opendir(kernel, paths_find("run/link"), &open),
			 -ENOTDIR);
	assert_int_equal(kernel_opendir(kernel, paths_find("run/step/npy"),
					&open), -ENOTDIR);
	assert_int_equal(kernel_opendir(kernel,
					paths_find(VIEWS "tensors.json"),
					&open), -ENOTDIR);
	assert_int_equal(kernel_opendir(kernel,
					paths_find(VIEWS "tensors/step"),
					&open), -ENOTDIR);
}

/* The kernel may keep a listing of what never changes, and of nothing else. */
static void listings_of_views_are_kept(void **state)
{
	struct opened opened;

	(void)state;
	open_folder(&opened, VIEWS "tensors");
	assert_int_equal(opened.flags & (FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE),
			 FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE);
	close_folder(&opened);
	open_folder(&opened, "run");
	assert_int_equal(opened.flags & (FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE),
			 0);
	close_folder(&opened);
	open_folder(&opened, ".ckptfs/views/run/step");
	assert_int_equal(opened.flags & (FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE),
			 0);
	close_folder(&opened);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_kind_is_listed),
		TEST(what_is_listed_is_what_is_found),
		TEST(view_files_are_listed_with_their_status),
		TEST(any_buffer_gives_the_same),
		TEST(positions_stay_good),
		TEST(listed_entries_are_looked_up),
		TEST(open_folders_stay_as_they_were),
		TEST(open_views_outlive_their_checkpoint),
		TEST(what_is_gone_cannot_be_opened),
		TEST(listings_of_views_are_kept),
	};

	return cmocka_run_group_tests_name("listing", tests, NULL, NULL);
}
