/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel counts how often it was told of an inode, and says when it has
 * forgotten about that. Until then the inode is what it was; then it is gone,
 * and its number is nobody else's. Of slices, of which there can be very many,
 * it is asked to forget the oldest.
 */
#include "support/test.h"
#include "support/mounts.h"
#include "support/paths.h"
#include "support/sample.h"
#include "support/stall.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VIEWS ".ckptfs/views/step/"

static int start(void **state)
{
	const struct mounts_options options = { .count = 1 };
	struct test_folder step;

	(void)state;
	mounts_prepare(1);
	step = mounts_folder(0, "step");
	sample_write(&step, false, 1);
	close(step.fd);
	mounts_write(0, "step", "config.json", "{}");
	mounts_write(0, "plain/folder", "file", "text");
	assert_int_equal(symlinkat("file", mounts_stores[0].fd,
				   "plain/folder/link"), 0);
	mounts_start(&options);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

static uint64_t look_up(uint64_t parent, const char *name)
{
	struct fuse_entry_out entry;

	assert_int_equal(kernel_lookup(mounts_kernel(0), parent, name, &entry),
			 0);
	return entry.nodeid;
}

/* Names that are counted one by one, and what they are in: folders that others
 * are in, the others, and one more name of one of them. */
static const struct counted {
	const char *parent, *name;
} counted[] = {
	{ "", "plain" },
	{ "plain", "folder" },
	{ ".ckptfs", "views" },
	{ "plain/folder", "file" },
	{ "plain/folder", "link" },
	{ "step", "config.json" },
	{ "step", ".metadata" },
	{ ".ckptfs", "metrics" },
	{ ".ckptfs/views", "plain" },
	{ VIEWS "tensors", "w[0]" },
	{ VIEWS "npy", "w[1:2].npy" },
	{ VIEWS "safetensors", "model.safetensors" },
	{ VIEWS "hf", "model.safetensors" },
	{ VIEWS "hf", "config.json" },
};

enum { FOLDERS = 3, OTHERS = 10, COUNTED = FOLDERS + OTHERS + 1 };

_Static_assert(COUNT_OF(counted) == COUNTED, "each is of one kind");

static const struct counted *const others = counted + FOLDERS;

/* ---- counts -------------------------------------------------------------- */

static void an_inode_is_known_until_all_is_forgotten(void **state)
{
	struct kernel *kernel = mounts_kernel(0);
	uint64_t parent, node, again;
	unsigned i;

	(void)state;
	for (i = 0; i < COUNTED; i++) {
		parent = paths_find(counted[i].parent);
		node = look_up(parent, counted[i].name);
		assert_int_equal(look_up(parent, counted[i].name), node);
		assert_int_equal(look_up(parent, counted[i].name), node);
		kernel_forget(kernel, node, 2);
		assert_true(paths_is_known(node));
		kernel_forget(kernel, node, 0);
		assert_true(paths_is_known(node));
		assert_int_equal(look_up(parent, counted[i].name), node);
		kernel_forget(kernel, node, 2);
		paths_check_gone(node);
		again = look_up(parent, counted[i].name);
		assert_int_not_equal(again, node);
		assert_true(paths_is_known(again));
		paths_check_gone(node);
		kernel_forget(kernel, again, 1);
		paths_check_gone(again);
	}
}

/* What the daemon shows without being asked is always there. */
static void the_top_is_never_forgotten(void **state)
{
	uint64_t own = paths_find(".ckptfs");

	(void)state;
	kernel_forget(mounts_kernel(0), FUSE_ROOT_ID, 1);
	assert_true(paths_is_known(FUSE_ROOT_ID));
	kernel_forget(mounts_kernel(0), own, 1);
	assert_int_equal(paths_error(".ckptfs/views"), 0);
	paths_check_names("", "plain\nstep\n");
}

static void many_are_forgotten_in_one_request(void **state)
{
	struct fuse_forget_one forgets[OTHERS + 2];
	uint64_t parent;
	unsigned i;

	(void)state;
	for (i = 0; i < OTHERS; i++) {
		parent = paths_find(others[i].parent);
		forgets[i] = (struct fuse_forget_one){
			.nodeid = look_up(parent, others[i].name),
			.nlookup = i % 2 + 1,
		};
		look_up(parent, others[i].name);
	}
	kernel_forget_multi(mounts_kernel(0), forgets, OTHERS);
	for (i = 0; i < OTHERS; i++)
		if (i % 2)
			paths_check_gone(forgets[i].nodeid);
		else
			assert_true(paths_is_known(forgets[i].nodeid));
	/* What is not known is nobody's. */
	forgets[OTHERS] = (struct fuse_forget_one){ UINT64_MAX, 1 };
	forgets[OTHERS + 1] = (struct fuse_forget_one){ 0, 1 };
	kernel_forget_multi(mounts_kernel(0), forgets, OTHERS + 2);
	for (i = 0; i < OTHERS; i++)
		paths_check_gone(forgets[i].nodeid);
	kernel_forget_multi(mounts_kernel(0), forgets, 0);
	assert_true(paths_is_known(FUSE_ROOT_ID));
}

/* ---- what is open -------------------------------------------------------- */

/* All of an open file, before and after it is forgotten. */
static void check_forgotten(const struct counted *file)
{
	uint64_t node = look_up(paths_find(file->parent), file->name);
	uint64_t handle = paths_open(node).fh;
	struct kernel *kernel = mounts_kernel(0);
	unsigned char *before, *after;
	size_t size, size_after;

	before = paths_read_open(node, handle, &size);
	kernel_forget(kernel, node, 1);
	paths_check_gone(node);
	after = paths_read_open(node, handle, &size_after);
	assert_int_equal(size, size_after);
	assert_memory_equal(before, after, size);
	free(before);
	free(after);
	kernel_release(kernel, node, handle);
}

static void open_files_outlive_their_inode(void **state)
{
	static const struct counted files[] = {
		{ "plain/folder", "file" },
		{ VIEWS "tensors", "w[0]" },
		{ VIEWS "safetensors", "model.safetensors" },
		{ VIEWS "hf", "config.json" },
	};
	unsigned descriptors = 0;
	size_t i;

	(void)state;
	for (i = 0; i < 3 * COUNT_OF(files); i++) {
		/* By then the files of the checkpoint are open for good. */
		if (i == COUNT_OF(files))
			descriptors = folder_count_descriptors();
		check_forgotten(&files[i % COUNT_OF(files)]);
		stall_settle(0);
	}
	assert_int_equal(folder_count_descriptors(), descriptors);
}

static void open_folders_outlive_their_inode(void **state)
{
	struct kernel *kernel = mounts_kernel(0);
	struct kernel_dirent entries[8];
	struct fuse_open_out open;
	uint64_t parent, node;
	size_t count;

	(void)state;
	parent = paths_find("plain");
	node = look_up(parent, "folder");
	assert_int_equal(kernel_opendir(kernel, node, &open), 0);
	kernel_forget(kernel, node, 1);
	paths_check_gone(node);
	assert_int_equal(kernel_readdir(kernel, node, open.fh, true, 4096,
					entries, COUNT_OF(entries), &count),
			 0);
	assert_int_equal(count, 2 + 2);
	kernel_releasedir(kernel, node, open.fh);
}

/* What is below a folder that was forgotten is known by itself. */
static void what_is_below_outlives_its_folder(void **state)
{
	struct kernel *kernel = mounts_kernel(0);
	uint64_t plain = look_up(FUSE_ROOT_ID, "plain");
	uint64_t folder = look_up(plain, "folder");
	uint64_t file = look_up(folder, "file");

	(void)state;
	kernel_forget(kernel, plain, 1);
	kernel_forget(kernel, folder, 1);
	paths_check_gone(folder);
	assert_true(paths_is_known(file));
	kernel_release(kernel, file, paths_open(file).fh);
	assert_int_equal(paths_find("plain/folder/file"), file);
	kernel_forget(kernel, file, 2);
	paths_check_gone(file);
}

/* ---- many slices --------------------------------------------------------- */

/* As many as the kernel may know before it is asked to forget some, half of
 * them; and as many as there are in this test. */
enum { NAMED_MAX = 8192, SLICES = NAMED_MAX + 2000 };

static void slice_name(unsigned index, char name[32])
{
	unsigned column = index % 60, end = 62 + index / 60 % 3;

	snprintf(name, 32, "w[%u,%u:%u]", index / 180, column, end);
}

static uint64_t look_up_slice(uint64_t view, unsigned index)
{
	char name[32];

	slice_name(index, name);
	return look_up(view, name);
}

static void check_notice(uint64_t view, unsigned index)
{
	struct kernel_notice notice;
	char name[32];

	slice_name(index, name);
	kernel_next_notice(mounts_kernel(0), &notice);
	assert_int_equal(notice.code, FUSE_NOTIFY_INVAL_ENTRY);
	assert_int_equal(notice.node, view);
	assert_string_equal(notice.name, name);
}

static void the_oldest_slices_are_to_be_forgotten(void **state)
{
	static uint64_t nodes[SLICES];
	struct kernel *kernel = mounts_kernel(0);
	uint64_t view = paths_find(VIEWS "tensors");
	unsigned i, asked;

	(void)state;
	for (i = 0; i < NAMED_MAX; i++)
		nodes[i] = look_up_slice(view, i);
	assert_int_equal(kernel_count_notices(kernel), 0);
	nodes[i] = look_up_slice(view, i);
	asked = kernel_count_notices(kernel);
	/* About half of them go, and a few thousand stay. */
	assert_in_range(asked, NAMED_MAX / 4, NAMED_MAX * 3 / 4);
	for (i = 0; i < asked; i++)
		check_notice(view, i);
	/* Most of them are open, and the kernel keeps them: it is not asked
	 * for that again and again, though there are too many. */
	for (i = 0; i < asked; i += 16)
		kernel_forget(kernel, nodes[i], 1);
	for (i = NAMED_MAX + 1; i < SLICES; i++)
		nodes[i] = look_up_slice(view, i);
	assert_int_equal(kernel_count_notices(kernel), asked);
	for (i = 0; i < SLICES; i++)
		assert_int_equal(paths_is_known(nodes[i]),
				 i >= asked || i % 16);
	/* What is known is nothing new. */
	for (i = asked; i < SLICES; i++)
		assert_int_equal(look_up_slice(view, i), nodes[i]);
	assert_int_equal(kernel_count_notices(kernel), asked);
}

/* Who keeps to it is asked again when there are too many again. */
static void slices_that_are_forgotten_make_room(void **state)
{
	static uint64_t nodes[SLICES];
	struct kernel *kernel = mounts_kernel(0);
	uint64_t view = paths_find(VIEWS "tensors");
	unsigned i;

	(void)state;
	for (i = 0; i < SLICES; i++) {
		nodes[i] = look_up_slice(view, i);
		if (i >= 1000)
			kernel_forget(kernel, nodes[i - 1000], 1);
	}
	assert_int_equal(kernel_count_notices(kernel), 0);
	for (i = 0; i < SLICES; i += 97)
		assert_int_equal(paths_is_known(nodes[i]), i + 1000 >= SLICES);
}

/* ---- several at once ----------------------------------------------------- */

/* Each looks the same things up and forgets them. */
static void *come_and_go(void *context)
{
	const uint64_t *parents = context;
	unsigned i;

	for (i = 0; i < 20 * OTHERS; i++) {
		uint64_t node = look_up(parents[i % OTHERS],
					others[i % OTHERS].name);

		assert_true(paths_is_known(node));
		kernel_forget(mounts_kernel(0), node, 1);
	}
	return NULL;
}

static void many_come_and_go_at_once(void **state)
{
	uint64_t parents[OTHERS], node;
	pthread_t threads[4];
	unsigned i;

	(void)state;
	for (i = 0; i < OTHERS; i++)
		parents[i] = paths_find(others[i].parent);
	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go,
						parents), 0);
	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	/* All counts are what they were. */
	for (i = 0; i < OTHERS; i++) {
		node = look_up(parents[i], others[i].name);
		kernel_forget(mounts_kernel(0), node, 1);
		paths_check_gone(node);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_inode_is_known_until_all_is_forgotten),
		TEST(the_top_is_never_forgotten),
		TEST(many_are_forgotten_in_one_request),
		TEST(open_files_outlive_their_inode),
		TEST(open_folders_outlive_their_inode),
		TEST(what_is_below_outlives_its_folder),
		TEST(the_oldest_slices_are_to_be_forgotten),
		TEST(slices_that_are_forgotten_make_room),
		TEST(many_come_and_go_at_once),
	};

	return cmocka_run_group_tests_name("forget", tests, NULL, NULL);
}
