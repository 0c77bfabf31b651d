/* SPDX-License-Identifier: Apache-2.0 */
/* What is said of an inode besides its name: its status, where a link leads,
 * extended attributes, and the store that all of it is in. */
#include "support/test.h"
#include "support/mounts.h"
#include "support/paths.h"
#include "support/variety.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define VIEWS ".ckptfs/views/run/step/"

static const char *const view_folders[] = {
	"tensors", "npy", "f32", "safetensors", "hf", "objects",
};

static int start(void **state)
{
	const struct mounts_options options = { .count = 1 };
	const struct timespec times[2] = { { 5, 6 }, { 1000000, 7 } };
	struct test_folder step;

	(void)state;
	mounts_prepare(1);
	step = mounts_folder(0, "run/step");
	variety_write(&step, 1);
	mounts_write(0, "run/step", "config.json", "{}");
	mounts_write(0, "run", "file", "some text");
	assert_int_equal(fchmodat(step.fd, ".metadata", 0440, 0), 0);
	assert_int_equal(utimensat(step.fd, ".metadata", times, 0), 0);
	assert_int_equal(fchmodat(mounts_stores[0].fd, "run/file", 0604, 0),
			 0);
	assert_int_equal(utimensat(mounts_stores[0].fd, "run/file", times, 0),
			 0);
	assert_int_equal(symlinkat("../run", mounts_stores[0].fd, "run/link"),
			 0);
	assert_int_equal(linkat(mounts_stores[0].fd, "run/file",
				mounts_stores[0].fd, "run/twin", 0), 0);
	close(step.fd);
	mounts_start(&options);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

/* ---- status -------------------------------------------------------------- */

static void stored_things_are_as_in_the_store(void **state)
{
	static const char *const paths[] = {
		"run", "run/file", "run/link", "run/twin", "run/step",
		"run/step/config.json", "run/step/.metadata",
	};
	struct stat status;
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(paths); i++) {
		struct fuse_attr attr = paths_entry(paths[i]).attr;

		assert_int_equal(fstatat(mounts_stores[0].fd, paths[i],
					 &status, AT_SYMLINK_NOFOLLOW), 0);
		assert_int_equal(attr.mode, status.st_mode);
		assert_int_equal(attr.size, status.st_size);
		assert_int_equal(attr.blocks, status.st_blocks);
		assert_int_equal(attr.nlink, status.st_nlink);
		assert_int_equal(attr.uid, status.st_uid);
		assert_int_equal(attr.gid, status.st_gid);
		assert_int_equal(attr.mtime, status.st_mtim.tv_sec);
		assert_int_equal(attr.mtimensec, status.st_mtim.tv_nsec);
		assert_int_equal(attr.ctime, status.st_ctim.tv_sec);
		assert_int_equal(attr.ctimensec, status.st_ctim.tv_nsec);
	}
}

static void check_marker(const char *path, uint32_t mode)
{
	struct fuse_attr attr = paths_entry(path).attr;
	struct stat status;

	assert_int_equal(fstatat(mounts_stores[0].fd, "run/step/.metadata",
				 &status, 0), 0);
	assert_int_equal(attr.mode, mode);
	assert_int_equal(attr.nlink, (mode & S_IFMT) == S_IFDIR ? 2 : 1);
	assert_int_equal(attr.uid, status.st_uid);
	assert_int_equal(attr.gid, status.st_gid);
	assert_int_equal(attr.mtime, 1000000);
	assert_int_equal(attr.mtimensec, 7);
	assert_int_equal(attr.ctime, status.st_ctim.tv_sec);
	assert_int_equal(attr.ctimensec, status.st_ctim.tv_nsec);
	if ((mode & S_IFMT) == S_IFREG)
		assert_int_equal(attr.blocks, (attr.size + 511) / 512);
}

/* Whose a view is, who may read it and how old it is, the marker says. */
static void views_are_as_their_marker(void **state)
{
	static const char *const files[] = {
		"tensors.json", "tensors/model.w", "tensors/model.w[0:1]",
		"npy/step.npy", "f32/model.b.npy", "hf/model.safetensors",
		"safetensors/optim.safetensors", "objects/args.pt",
		"objects/args.json", "objects/packed.pt",
	};
	char path[128];
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(view_folders); i++) {
		snprintf(path, sizeof(path), VIEWS "%s", view_folders[i]);
		check_marker(path, S_IFDIR | 0750);
		snprintf(path, sizeof(path), "run/step/%s", view_folders[i]);
		check_marker(path, S_IFLNK | 0777);
	}
	check_marker("run/step/tensors.json", S_IFLNK | 0777);
	for (i = 0; i < COUNT_OF(files); i++) {
		snprintf(path, sizeof(path), VIEWS "%s", files[i]);
		check_marker(path, S_IFREG | 0440);
	}
}

static void own_folders_are_as_the_top(void **state)
{
	static const char *const paths[] = {
		".ckptfs", ".ckptfs/views", ".ckptfs/views/run",
		".ckptfs/views/run/step",
	};
	struct stat status;
	size_t i;

	(void)state;
	assert_int_equal(fchmod(mounts_stores[0].fd, 0751), 0);
	assert_int_equal(fstat(mounts_stores[0].fd, &status), 0);
	for (i = 0; i < COUNT_OF(paths); i++) {
		struct fuse_attr attr = paths_entry(paths[i]).attr;

		/* Nobody writes there. */
		assert_int_equal(attr.mode, S_IFDIR | 0551);
		assert_int_equal(attr.uid, status.st_uid);
		assert_int_equal(attr.gid, status.st_gid);
		assert_int_equal(attr.mtime, status.st_mtim.tv_sec);
	}
	assert_int_equal(paths_entry(".ckptfs/metrics").attr.mode,
			 S_IFREG | 0440);
}

static void a_gone_file_has_no_status(void **state)
{
	struct fuse_attr_out attr;
	uint64_t file = paths_find("run/file"), folder;

	(void)state;
	close(mounts_folder(0, "run/empty").fd);
	folder = paths_find("run/empty");
	assert_int_equal(kernel_getattr(mounts_kernel(0), file, &attr), 0);
	assert_int_equal(unlinkat(mounts_stores[0].fd, "run/file", 0), 0);
	assert_int_equal(unlinkat(mounts_stores[0].fd, "run/empty",
				  AT_REMOVEDIR), 0);
	assert_int_equal(kernel_getattr(mounts_kernel(0), file, &attr),
			 -ESTALE);
	assert_int_equal(kernel_getattr(mounts_kernel(0), folder, &attr),
			 -ESTALE);
	/* What is a file now is not that folder. */
	mounts_write(0, "run", "empty", "");
	assert_int_equal(kernel_getattr(mounts_kernel(0), folder, &attr),
			 -ESTALE);
}

/* ---- links --------------------------------------------------------------- */

static void check_link(const char *path, const char *expected)
{
	struct fuse_entry_out entry = paths_entry(path);
	char target[4096];

	assert_int_equal(kernel_readlink(mounts_kernel(0), entry.nodeid,
					 target), 0);
	assert_string_equal(target, expected);
	assert_int_equal(entry.attr.size, strlen(expected));
}

static void links_lead_somewhere(void **state)
{
	char path[64], expected[64], target[4096];
	struct test_folder top;
	size_t i;

	(void)state;
	check_link("run/link", "../run");
	check_link("run/step/tensors.json",
		   "../../.ckptfs/views/run/step/tensors.json");
	for (i = 0; i < COUNT_OF(view_folders); i++) {
		snprintf(path, sizeof(path), "run/step/%s", view_folders[i]);
		snprintf(expected, sizeof(expected),
			 "../../.ckptfs/views/run/step/%s", view_folders[i]);
		check_link(path, expected);
	}
	/* The store may itself be a checkpoint. */
	top = mounts_folder(0, "");
	variety_write(&top, 2);
	close(top.fd);
	mounts_later(1000);
	check_link("tensors", ".ckptfs/views/tensors");
	assert_int_equal(paths_error(".ckptfs/views/tensors/model.w"), 0);
	assert_int_equal(kernel_readlink(mounts_kernel(0),
					 paths_find("run/file"), target),
			 -EINVAL);
	assert_int_equal(kernel_readlink(mounts_kernel(0),
					 paths_find(VIEWS "tensors"), target),
			 -EINVAL);
}

/* ---- extended attributes ------------------------------------------------- */

static void check_value(uint64_t node, const char *name, const char *expected)
{
	struct kernel *kernel = mounts_kernel(0);
	size_t size = strlen(expected), got;
	char value[1024];

	assert_true(size < sizeof(value));
	assert_int_equal(kernel_getxattr(kernel, node, name, value,
					 sizeof(value), &got), 0);
	assert_int_equal(got, size);
	assert_memory_equal(value, expected, size);
	assert_int_equal(kernel_getxattr(kernel, node, name, NULL, 0, &got),
			 0);
	assert_int_equal(got, size);
	assert_int_equal(kernel_getxattr(kernel, node, name, value, size,
					 &got), 0);
	assert_int_equal(kernel_getxattr(kernel, node, name, value, size - 1,
					 &got), -ERANGE);
}

static void print_shape(const struct variety_tensor *tensor, char text[64])
{
	unsigned i, end = 1;

	strcpy(text, "[");
	for (i = 0; i < tensor->ndim; i++)
		end += (unsigned)sprintf(text + end, "%s%u", i ? "," : "",
					 (unsigned)tensor->shape[i]);
	strcpy(text + end, "]");
}

static void tensors_have_attributes(void **state)
{
	char path[128], shape[64];
	uint64_t node;
	size_t i;

	(void)state;
	for (i = 0; i < VARIETY_TENSORS; i++) {
		const struct variety_tensor *tensor = &variety_tensors[i];

		snprintf(path, sizeof(path), VIEWS "tensors/%s", tensor->file);
		node = paths_find(path);
		print_shape(tensor, shape);
		check_value(node, "user.ckptfs.name", tensor->name);
		check_value(node, "user.ckptfs.dtype", tensor->dtype);
		check_value(node, "user.ckptfs.torch_dtype", tensor->torch);
		check_value(node, "user.ckptfs.shape", shape);
	}
	/* Of all views, and of what is chosen only. */
	check_value(paths_find(VIEWS "npy/model.w.npy"), "user.ckptfs.name",
		    "model.w");
	check_value(paths_find(VIEWS "f32/model.b.npy"), "user.ckptfs.dtype",
		    "BF16");
	check_value(paths_find(VIEWS "safetensors/model.b.safetensors"),
		    "user.ckptfs.shape", "[8]");
	node = paths_find(VIEWS "tensors/model.w[2:5,7]");
	check_value(node, "user.ckptfs.shape", "[3,1]");
	check_value(node, "user.ckptfs.name", "model.w");
	check_value(paths_find(VIEWS "objects/args.json"), "user.ckptfs.name",
		    "args");
}

static void shards_are_told_as_far_as_they_fit(void **state)
{
	char value[65536];
	uint64_t node;
	size_t got;

	(void)state;
	node = paths_find(VIEWS "tensors/model.w[1:2]");
	assert_int_equal(kernel_getxattr(mounts_kernel(0), node,
					 "user.ckptfs.shards", value,
					 sizeof(value) - 1, &got), 0);
	value[got] = '\0';
	assert_non_null(strstr(value, "\"file\":\"__0_0.distcp\""));
	assert_null(strstr(value, "\"file\":\"__1_0.distcp\""));
	node = paths_find(VIEWS "tensors/model.w");
	assert_int_equal(kernel_getxattr(mounts_kernel(0), node,
					 "user.ckptfs.shards", value,
					 sizeof(value) - 1, &got), 0);
	value[got] = '\0';
	assert_non_null(strstr(value, "\"file\":\"__1_0.distcp\""));
	node = paths_find(VIEWS "tensors/lost");
	assert_int_equal(kernel_getxattr(mounts_kernel(0), node,
					 "user.ckptfs.shards", value,
					 sizeof(value), &got), -E2BIG);
	assert_int_equal(kernel_getxattr(mounts_kernel(0), node,
					 "user.ckptfs.shards", NULL, 0, &got),
			 -E2BIG);
}

static void check_listed(const char *path, const char *expected, size_t size)
{
	struct kernel *kernel = mounts_kernel(0);
	uint64_t node = paths_find(path);
	char names[1024];
	size_t got;

	assert_int_equal(kernel_listxattr(kernel, node, NULL, 0, &got), 0);
	assert_int_equal(got, size);
	assert_int_equal(kernel_listxattr(kernel, node, names, sizeof(names),
					  &got), 0);
	assert_int_equal(got, size);
	assert_memory_equal(names, expected, size);
	if (size > 1)
		assert_int_equal(kernel_listxattr(kernel, node, names,
						  size - 1, &got), -ERANGE);
}

#define CHECK_LISTED(path, names) check_listed(path, names, sizeof(names) - 1)

static void attributes_are_listed(void **state)
{
	static const char all[] =
		"user.ckptfs.name\0user.ckptfs.dtype\0user.ckptfs.torch_dtype\0"
		"user.ckptfs.shape\0user.ckptfs.shards\0";
	static const char *const none[] = {
		"", "run", "run/file", "run/link", "run/step/config.json",
		"run/step/tensors", ".ckptfs", ".ckptfs/metrics",
		".ckptfs/views/run/step", VIEWS "tensors",
		VIEWS "tensors.json", VIEWS "hf/model.safetensors",
		VIEWS "hf/config.json", VIEWS "safetensors/model.safetensors",
	};
	char value[64];
	size_t i, got;

	(void)state;
	CHECK_LISTED(VIEWS "tensors/model.w", all);
	CHECK_LISTED(VIEWS "tensors/model.w[0]", all);
	CHECK_LISTED(VIEWS "f32/holes.npy", all);
	CHECK_LISTED(VIEWS "objects/args.pt", "user.ckptfs.name\0");
	for (i = 0; i < COUNT_OF(none); i++) {
		check_listed(none[i], "", 0);
		assert_int_equal(kernel_getxattr(mounts_kernel(0),
						 paths_find(none[i]),
						 "user.ckptfs.name", value,
						 sizeof(value), &got),
				 -ENODATA);
	}
}

static void other_attributes_are_not_there(void **state)
{
	static const char *const names[] = {
		"security.capability", "system.posix_acl_access", "user.name",
		"user.ckptfs.", "user.ckptfs.names", "user.ckptfs.nam",
		"user.ckptfs", "", "trusted.ckptfs.name",
	};
	uint64_t tensor = paths_find(VIEWS "tensors/model.w");
	uint64_t object = paths_find(VIEWS "objects/args.pt");
	char value[64];
	size_t i, got;

	(void)state;
	for (i = 0; i < COUNT_OF(names); i++)
		assert_int_equal(kernel_getxattr(mounts_kernel(0), tensor,
						 names[i], value,
						 sizeof(value), &got),
				 -ENODATA);
	assert_int_equal(kernel_getxattr(mounts_kernel(0), object,
					 "user.ckptfs.shape", value,
					 sizeof(value), &got), -ENODATA);
}

/* ---- the whole ----------------------------------------------------------- */

static void the_store_says_how_full_it_is(void **state)
{
	struct fuse_statfs_out status;
	struct statvfs expected;

	(void)state;
	assert_int_equal(kernel_statfs(mounts_kernel(0), FUSE_ROOT_ID,
				       &status), 0);
	assert_int_equal(fstatvfs(mounts_stores[0].fd, &expected), 0);
	assert_int_equal(status.st.bsize, expected.f_bsize);
	assert_int_equal(status.st.frsize, expected.f_frsize);
	assert_int_equal(status.st.blocks, expected.f_blocks);
	assert_int_equal(status.st.files, expected.f_files);
	assert_int_equal(status.st.namelen, expected.f_namemax);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(stored_things_are_as_in_the_store),
		TEST(views_are_as_their_marker),
		TEST(own_folders_are_as_the_top),
		TEST(a_gone_file_has_no_status),
		TEST(links_lead_somewhere),
		TEST(tensors_have_attributes),
		TEST(shards_are_told_as_far_as_they_fit),
		TEST(attributes_are_listed),
		TEST(other_attributes_are_not_there),
		TEST(the_store_says_how_full_it_is),
	};

	return cmocka_run_group_tests_name("attributes", tests, NULL, NULL);
}
