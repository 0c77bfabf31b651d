/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is found by which name, for how long the kernel may rely on that, and
 * what is one inode or another. The mount is one daemon's:
 *
 *	run/step/	a checkpoint, with a configuration
 *	run/deep/er/	what is no checkpoint
 *	assets/		the folder of more files for hf/
 */
#include "support/test.h"
#include "support/mounts.h"
#include "support/paths.h"
#include "support/variety.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VIEWS ".ckptfs/views/run/step/"

enum { CONST_S = 86400, FOLDER_S = 1, WRITTEN_S = 0, ANY_S = -1 };

/* One of each kind. */
static const struct kind {
	const char *path;
	mode_t type;
	int timeout_s;
} kinds[] = {
	{ "run", S_IFDIR, FOLDER_S },
	{ "run/deep/er", S_IFDIR, FOLDER_S },
	{ "run/deep/er/file", S_IFREG, WRITTEN_S },
	{ "run/latest", S_IFLNK, ANY_S },
	{ "run/step", S_IFDIR, FOLDER_S },
	{ "run/step/config.json", S_IFREG, FOLDER_S },
	{ "run/step/.metadata", S_IFREG, FOLDER_S },
	{ "run/step/tensors", S_IFLNK, FOLDER_S },
	{ "run/step/tensors.json", S_IFLNK, FOLDER_S },
	{ ".ckptfs", S_IFDIR, FOLDER_S },
	{ ".ckptfs/status.json", S_IFREG, ANY_S },
	{ ".ckptfs/metrics", S_IFREG, ANY_S },
	{ ".ckptfs/views", S_IFDIR, FOLDER_S },
	{ ".ckptfs/views/run", S_IFDIR, FOLDER_S },
	{ ".ckptfs/views/run/step", S_IFDIR, FOLDER_S },
	{ VIEWS "tensors", S_IFDIR, FOLDER_S },
	{ VIEWS "npy", S_IFDIR, FOLDER_S },
	{ VIEWS "f32", S_IFDIR, FOLDER_S },
	{ VIEWS "safetensors", S_IFDIR, FOLDER_S },
	{ VIEWS "hf", S_IFDIR, FOLDER_S },
	{ VIEWS "objects", S_IFDIR, FOLDER_S },
	{ VIEWS "tensors.json", S_IFREG, FOLDER_S },
	{ VIEWS "tensors/model.w", S_IFREG, CONST_S },
	{ VIEWS "tensors/model.w[0:2,:]", S_IFREG, CONST_S },
	{ VIEWS "tensors/a%2Fb%5Bc]%25", S_IFREG, CONST_S },
	{ VIEWS "tensors/lost", S_IFREG, CONST_S },
	{ VIEWS "npy/model.b.npy", S_IFREG, CONST_S },
	{ VIEWS "npy/model.b[1:3].npy", S_IFREG, CONST_S },
	{ VIEWS "f32/model.b.npy", S_IFREG, CONST_S },
	{ VIEWS "f32/model.b[0].npy", S_IFREG, CONST_S },
	{ VIEWS "safetensors/model.safetensors", S_IFREG, CONST_S },
	{ VIEWS "safetensors/_flat.safetensors", S_IFREG, CONST_S },
	{ VIEWS "safetensors/optim.safetensors", S_IFREG, CONST_S },
	{ VIEWS "safetensors/optim.exp.safetensors", S_IFREG, CONST_S },
	{ VIEWS "safetensors/model.w.safetensors", S_IFREG, CONST_S },
	{ VIEWS "safetensors/model.w[3].safetensors", S_IFREG, CONST_S },
	{ VIEWS "hf/model.safetensors", S_IFREG, CONST_S },
	{ VIEWS "hf/vocab.txt", S_IFREG, FOLDER_S },
	{ VIEWS "hf/tokenizer.json", S_IFREG, WRITTEN_S },
	{ VIEWS "hf/linked.model", S_IFREG, WRITTEN_S },
	{ VIEWS "objects/args.pt", S_IFREG, CONST_S },
	{ VIEWS "objects/args.json", S_IFREG, CONST_S },
	{ VIEWS "objects/packed.pt", S_IFREG, CONST_S },
	{ VIEWS "objects/packed.json", S_IFREG, CONST_S },
	{ VIEWS "objects/code.pt", S_IFREG, CONST_S },
};

static void put_link(const char *path, const char *target)
{
	assert_int_equal(symlinkat(target, mounts_stores[0].fd, path), 0);
}

static int start(void **state)
{
	static struct test_folder assets;
	const struct mounts_options options = {
		.count = 1, .hf_assets = assets.path,
	};
	struct test_folder step;

	(void)state;
	mounts_prepare(1);
	step = mounts_folder(0, "run/step");
	variety_write(&step, 1);
	close(step.fd);
	mounts_write(0, "run/step", "config.json", "{}");
	mounts_write(0, "run/step", "vocab.txt", "a b");
	mounts_write(0, "run/step", "weights.bin", "w");
	put_link("run/step/linked.json", "config.json");
	put_link("run/latest", "step");
	mounts_write(0, "run/deep/er", "file", "text");
	mounts_write(0, "elsewhere", "m", "model");
	mounts_write(0, "assets", "tokenizer.json", "{}");
	put_link("assets/linked.model", "../elsewhere/m");
	assets = mounts_folder(0, "assets");
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

/* ---- what is found ------------------------------------------------------- */

static void each_kind_is_found(void **state)
{
	struct fuse_attr_out attr;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(kinds); i++) {
		const struct kind *kind = &kinds[i];
		struct fuse_entry_out entry = paths_entry(kind->path);

		assert_int_equal(entry.attr.mode & S_IFMT, kind->type);
		assert_int_equal(entry.attr.ino, entry.nodeid);
		assert_int_equal(entry.entry_valid, entry.attr_valid);
		if (kind->timeout_s != ANY_S)
			assert_int_equal(entry.attr_valid, kind->timeout_s);
		assert_int_equal(entry.attr_valid_nsec, 0);
		assert_int_equal(kernel_getattr(mounts_kernel(0), entry.nodeid,
						&attr), 0);
		assert_memory_equal(&attr.attr, &entry.attr,
				    sizeof(attr.attr));
		assert_int_equal(attr.attr_valid, entry.attr_valid);
	}
}

static void each_thing_is_one_inode(void **state)
{
	uint64_t nodes[COUNT_OF(kinds)];
	size_t i, j;

	(void)state;
	for (i = 0; i < COUNT_OF(kinds); i++) {
		nodes[i] = paths_find(kinds[i].path);
		for (j = 0; j < i; j++)
			assert_int_not_equal(nodes[i], nodes[j]);
	}
	for (i = 0; i < COUNT_OF(kinds); i++)
		assert_int_equal(paths_find(kinds[i].path), nodes[i]);
	/* What hf/ shows of the checkpoint is the stored file. */
	assert_int_equal(paths_find(VIEWS "hf/vocab.txt"),
			 paths_find("run/step/vocab.txt"));
}

static void nothing_else_is_found(void **state)
{
	static const char *const paths[] = {
		"nothing", "run/nothing", "run/deep/er/nothing",
		"run/deep/tensors", "tensors", "run/.ckptfs",
		".ckptfs/nothing", ".ckptfs/tensors", ".ckptfs/views/nothing",
		".ckptfs/views/run/latest", ".ckptfs/views/run/deep/er/file",
		".ckptfs/views/tensors", VIEWS ".metadata", VIEWS "nothing",
		VIEWS "tensors/nothing", VIEWS "tensors/args",
		VIEWS "tensors/model.w.npy", VIEWS "tensors/a",
		VIEWS "npy/model.w", VIEWS "npy/.npy", VIEWS "f32/step.npy",
		VIEWS "safetensors/nothing.safetensors",
		VIEWS "safetensors/model", VIEWS "safetensors/mod.safetensors",
		VIEWS "safetensors/model.safetensors[0]",
		VIEWS "safetensors/model[0].safetensors",
		VIEWS "hf/nothing.json", VIEWS "hf/weights.bin",
		VIEWS "hf/linked.json", VIEWS "hf/tensors.json",
		VIEWS "hf/_flat.safetensors", VIEWS "hf/.metadata",
		VIEWS "objects/args", VIEWS "objects/code.json",
		VIEWS "objects/model.w.pt", VIEWS "objects/args.pt.json",
	};
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(paths); i++)
		if (paths_error(paths[i]) != -ENOENT)
			fail_msg("%s", paths[i]);
	/* It is there, but not all of its values are numbers of float32. */
	assert_int_equal(paths_error(VIEWS "f32/optim.exp.w.npy"),
			 -EOPNOTSUPP);
}

static void only_folders_have_names(void **state)
{
	struct fuse_entry_out entry;
	uint64_t node;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(kinds); i++) {
		if (kinds[i].type == S_IFDIR)
			continue;
		node = paths_find(kinds[i].path);
		assert_int_equal(kernel_lookup(mounts_kernel(0), node, "file",
					       &entry), -ENOTDIR);
	}
}

/* ---- names --------------------------------------------------------------- */

static void slices_are_found_by_their_spelling(void **state)
{
	static const char *const good[] = {
		"model.w[0]", "model.w[639]", "model.w[:]", "model.w[1:]",
		"model.w[:1]", "model.w[0:640,0:512]", "model.w[3:3]",
		"model.w[640:640]", "model.w[0,0]", "holes[2:4]", "lost[0]",
		"a%2Fb%5Bc]%25[0:1]",
	};
	static const char *const bad[] = {
		"model.w[", "model.w[]", "model.w]", "model.w[0", "model.w[0]x",
		"model.w[640]", "model.w[0:641]", "model.w[2:1]",
		"model.w[-1]", "model.w[+1]", "model.w[00]", "model.w[01:2]",
		"model.w[0:4:2]", "model.w[ 0]", "model.w[0, 1]",
		"model.w[0][0]", "model.w[0,]", "model.w[,0]",
		"model.w[0,0,0]", "model.w[...]", "model.w[0x1]",
		"model.w[18446744073709551616]", "step[0]", "step[]", "[0]",
		"nothing[0]", "args[0]", "a/b", "model.w[0].npy",
	};
	uint64_t view;
	struct fuse_entry_out entry;
	size_t i;

	(void)state;
	view = paths_find(VIEWS "tensors");
	for (i = 0; i < COUNT_OF(good); i++)
		if (kernel_lookup(mounts_kernel(0), view, good[i], &entry))
			fail_msg("%s", good[i]);
	for (i = 0; i < COUNT_OF(bad); i++)
		if (kernel_lookup(mounts_kernel(0), view, bad[i], &entry) !=
		    -ENOENT)
			fail_msg("%s", bad[i]);
}

static void slices_have_the_size_of_their_part(void **state)
{
	(void)state;
	assert_int_equal(paths_entry(VIEWS "tensors/model.w[2:5]").attr.size,
			 3 * VARIETY_ROW_SIZE);
	assert_int_equal(paths_entry(VIEWS "tensors/model.w[2,7]").attr.size,
			 4);
	assert_int_equal(paths_entry(VIEWS "tensors/model.w[3:3]").attr.size,
			 0);
	/* The same part by another name is another file. */
	assert_int_not_equal(paths_find(VIEWS "tensors/model.w[2]"),
			     paths_find(VIEWS "tensors/model.w[2:3]"));
}

/* Where all folders above the last are looked up, the kernel could send each of
 * these. */
static void names_may_be_anything(void **state)
{
	static const char *const folders[] = {
		"", "run", "run/step", ".ckptfs", ".ckptfs/views",
		".ckptfs/views/run/step", VIEWS "tensors", VIEWS "npy",
		VIEWS "safetensors", VIEWS "hf", VIEWS "objects",
	};
	char names[][256] = {
		"...", "..file", "%2e%2e", "%2E", "%", "%~", "%0", "*", "\\",
		"\1\x7f\n", "\xff\xfe", "\xc3", "~", "[", "]", "[]", ":",
		" ", "%s%n", "", "",
	};
	struct fuse_entry_out entry;
	uint64_t node;
	size_t i, j;

	(void)state;
	memset(names[COUNT_OF(names) - 2], 'x', 255);
	memset(names[COUNT_OF(names) - 1], '[', 255);
	for (i = 0; i < COUNT_OF(folders); i++) {
		node = paths_find(folders[i]);
		for (j = 0; j < COUNT_OF(names); j++)
			if (kernel_lookup(mounts_kernel(0), node, names[j],
					  &entry) != -ENOENT)
				fail_msg("%s/%s", folders[i], names[j]);
	}
	/* In the store they are names like others. */
	mounts_write(0, "run/deep", "[]%", "x");
	mounts_write(0, "run/deep", names[COUNT_OF(names) - 2], "x");
	assert_int_equal(paths_error("run/deep/[]%"), 0);
	node = paths_find("run/deep");
	assert_int_equal(kernel_lookup(mounts_kernel(0), node,
				       names[COUNT_OF(names) - 2], &entry), 0);
}

/* ---- what is in the way of what ------------------------------------------ */

static void stored_names_hide_views(void **state)
{
	(void)state;
	mounts_write(0, "run/step", "npy", "mine");
	assert_int_equal(mkdirat(mounts_stores[0].fd, "run/step/objects",
				 0755), 0);
	assert_int_equal(paths_entry("run/step/npy").attr.size, 4);
	assert_int_equal(paths_entry("run/step/npy").attr.mode & S_IFMT,
			 S_IFREG);
	assert_int_equal(paths_error(VIEWS "npy"), -ENOENT);
	assert_int_equal(paths_entry("run/step/objects").attr.mode & S_IFMT,
			 S_IFDIR);
	assert_int_equal(paths_error(VIEWS "objects/args.pt"), -ENOENT);
	/* And nothing else. */
	assert_int_equal(paths_error(VIEWS "tensors/model.w"), 0);
}

static void the_own_folder_hides_a_stored_one(void **state)
{
	(void)state;
	mounts_write(0, ".ckptfs", "mine", "x");
	mounts_write(0, "run/.ckptfs", "mine", "x");
	assert_int_equal(paths_error(".ckptfs/mine"), -ENOENT);
	assert_int_equal(paths_error(".ckptfs/views"), 0);
	/* Below the top it is a name like others. */
	assert_int_equal(paths_error("run/.ckptfs/mine"), 0);
}

/* ---- files that are replaced --------------------------------------------- */

static void replaced_files_are_other_inodes(void **state)
{
	static const char *const paths[] = {
		"run/deep/er/file", "run/step/config.json",
		"assets/tokenizer.json", VIEWS "hf/tokenizer.json",
	};
	static const char *const stored[] = {
		"run/deep/er/file", "run/step/config.json",
		"assets/tokenizer.json", "assets/tokenizer.json",
	};
	struct fuse_attr_out attr;
	uint64_t before, after;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(paths); i++) {
		before = paths_find(paths[i]);
		mounts_write(0, "", "new", "other");
		assert_int_equal(renameat(mounts_stores[0].fd, "new",
					  mounts_stores[0].fd, stored[i]), 0);
		/* The kernel may ask for what it knows. */
		assert_int_equal(kernel_getattr(mounts_kernel(0), before,
						&attr), -ESTALE);
		after = paths_find(paths[i]);
		assert_int_not_equal(before, after);
		assert_int_equal(paths_entry(paths[i]).attr.size, 5);
		assert_int_equal(kernel_getattr(mounts_kernel(0), before,
						&attr), -ESTALE);
	}
}

/* Outside of checkpoints, files may be written. Inside, one that was is not the
 * one whose pages the kernel has. */
static void written_files_are_the_same_inode_outside_only(void **state)
{
	struct test_folder er = mounts_folder(0, "run/deep/er");
	struct test_folder step = mounts_folder(0, "run/step");
	uint64_t outside = paths_find("run/deep/er/file");
	uint64_t inside = paths_find("run/step/vocab.txt");
	struct fuse_attr_out attr;

	(void)state;
	folder_poke(&er, "file", 4, '!');
	folder_poke(&step, "vocab.txt", 0, '!');
	close(er.fd);
	close(step.fd);
	assert_int_equal(paths_find("run/deep/er/file"), outside);
	assert_int_equal(paths_entry("run/deep/er/file").attr.size, 5);
	assert_int_equal(kernel_getattr(mounts_kernel(0), inside, &attr),
			 -ESTALE);
	assert_int_not_equal(paths_find("run/step/vocab.txt"), inside);
	assert_int_equal(paths_find(VIEWS "hf/vocab.txt"),
			 paths_find("run/step/vocab.txt"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_kind_is_found),
		TEST(each_thing_is_one_inode),
		TEST(nothing_else_is_found),
		TEST(only_folders_have_names),
		TEST(slices_are_found_by_their_spelling),
		TEST(slices_have_the_size_of_their_part),
		TEST(names_may_be_anything),
		TEST(stored_names_hide_views),
		TEST(the_own_folder_hides_a_stored_one),
		TEST(replaced_files_are_other_inodes),
		TEST(written_files_are_the_same_inode_outside_only),
	};

	return cmocka_run_group_tests_name("lookup", tests, NULL, NULL);
}
