/* SPDX-License-Identifier: Apache-2.0 */
/* What the store that is one folder never leaves, and its longest names. */
#include "support/test.h"
#include "support/lone.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- links --------------------------------------------------------------- */

static void check_link(const char *path, const char *target)
{
	struct array got = { .data = NULL };

	assert_int_equal(lone->link(lone, lone_at(path), &got), 0);
	assert_string_equal((char *)got.data, target);
	array_finish(&got);
}

static void links_inside(void **state)
{
	struct array got = { .data = NULL };
	struct store_folder *folder;

	(void)state;
	lone_folder("a");
	lone_write("a/file", "text");
	lone_link("a/file", "to-file");
	lone_link("a", "to-a");
	lone_link("../to-file", "a/back");
	lone_link("nothing", "dangling");
	lone_check_type(lone_at("to-file"), S_IFLNK);
	check_link("to-file", "a/file");
	check_link("a/back", "../to-file");
	check_link("dangling", "nothing");
	storing_check(lone, lone_at("to-file"), "text");
	storing_check(lone, lone_at("to-a/file"), "text");
	lone_check_type(lone_at("to-a/file"), S_IFREG);
	storing_check_error(lone, lone_at("dangling"), -ENOENT);
	assert_int_equal(lone->link(lone, lone_at("a/file"), &got), -EINVAL);
	assert_int_equal(lone->link(lone, lone_at("none"), &got), -ENOENT);
	assert_int_equal(got.size, 0);
	/* A checkpoint's, up to its own folder. */
	folder = storing_folder(lone, "");
	lone_check_in(folder, "a/back", "text");
	store_folder_put(folder);
	folder = storing_folder(lone, "to-a");
	storing_check_names(folder, "back\nfile\n");
	lone_check_in_error(folder, "back", -EXDEV);
	store_folder_put(folder);
}

static void check_refused(const char *path, int error)
{
	struct store_folder *folder = storing_folder(lone, ""), *none;
	char below[64];

	lone_check_type(lone_at(path), S_IFLNK);
	storing_check_error(lone, lone_at(path), error);
	lone_check_in_error(folder, path, error);
	assert_int_equal(lone->open_folder(lone, lone_at(path), &none), error);
	snprintf(below, sizeof(below), "%s/x", path);
	lone_check_no(lone_at(below), error);
	store_folder_put(folder);
}

/* They are seen, and lead nowhere. */
static void links_that_leave(void **state)
{
	(void)state;
	lone_folder("a");
	lone_link("../outside", "up");
	lone_link("/", "root");
	lone_link("/etc/passwd", "passwd");
	lone_link("a/../..", "around");
	/* Also back into it. */
	lone_link("../store/a", "out-and-in");
	check_refused("up", -EXDEV);
	check_refused("root", -EXDEV);
	check_refused("passwd", -EXDEV);
	check_refused("around", -EXDEV);
	check_refused("out-and-in", -EXDEV);
	check_link("passwd", "/etc/passwd");
}

static void links_in_circles(void **state)
{
	(void)state;
	lone_link("self", "self");
	lone_link("b", "a");
	lone_link("a", "b");
	lone_link(".", "here");
	lone_write("file", "text");
	check_refused("self", -ELOOP);
	check_refused("a", -ELOOP);
	check_link("a", "b");
	storing_check(lone, lone_at("here/here/here/file"), "text");
}

/* Hugging Face's cache: its snapshots are folders of links. */
static void links_to_blobs(void **state)
{
	struct store_folder *folder;

	(void)state;
	lone_folder("blobs");
	lone_folder("snapshots");
	lone_folder("snapshots/1");
	lone_write("blobs/0af", "blob");
	lone_write("blobs/name", "blob");
	lone_link("../../blobs/0af", "snapshots/1/model");
	lone_link("../../blobs/name", "snapshots/1/other");
	folder = storing_folder(lone, "snapshots/1");
	lone_check_in(folder, "model", "blob");
	lone_check_in_error(folder, "other", -EXDEV);
	store_folder_put(folder);
}

/* ---- limits -------------------------------------------------------------- */

static void long_names(void **state)
{
	char name[257], list[257];
	struct store_folder *folder, *deep;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[255] = '\0';
	lone_write(name, "text");
	storing_check(lone, lone_at(name), "text");
	lone_check_type(lone_at(name), S_IFREG);
	folder = storing_folder(lone, "");
	memcpy(list, name, 255);
	strcpy(list + 255, "\n");
	storing_check_names(folder, list);
	store_folder_put(folder);
	name[255] = 'n';
	name[256] = '\0';
	lone_check_no(lone_at(name), -ENAMETOOLONG);
	storing_check_error(lone, lone_at(name), -ENAMETOOLONG);
	assert_int_equal(lone->open_folder(lone, lone_at(name), &deep),
			 -ENAMETOOLONG);
}

/* Folders one in the other, of names of 255 bytes. */
enum { DEEP = LIMIT_PATH_SIZE / 256 };

static void make_deep(int fds[DEEP], const char *name)
{
	int parent = lone_in.fd, i;

	for (i = 0; i < DEEP; i++) {
		assert_int_equal(mkdirat(parent, name, 0755), 0);
		fds[i] = openat(parent, name, O_RDONLY | O_DIRECTORY |
				O_CLOEXEC);
		assert_true(fds[i] >= 0);
		parent = fds[i];
	}
}

static void remove_deep(const int fds[DEEP], const char *name)
{
	int i;

	for (i = DEEP - 1; i >= 0; i--) {
		close(fds[i]);
		assert_int_equal(unlinkat(i > 0 ? fds[i - 1] : lone_in.fd, name,
					  AT_REMOVEDIR), 0);
	}
}

/* A path of 4095 bytes that starts at a folder can be opened, one of 4096
 * cannot. */
static void long_paths_below(int parent, const char *above)
{
	char name[254], path[LIMIT_PATH_SIZE + 2];
	struct store_folder *folder;
	struct test_folder last;

	memset(name, 'e', 253);
	name[253] = '\0';
	assert_int_equal(mkdirat(parent, name, 0755), 0);
	last.fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(last.fd >= 0);
	folder_write(&last, "x", "text", 4);
	folder_write(&last, "xx", "text", 4);
	snprintf(path, sizeof(path), "%.3840s%s", above, name);
	folder = storing_folder(lone, path);
	storing_check(lone, store_path_in(folder, "x"), "text");
	lone_check_in(folder, "x", "text");
	storing_check_error(lone, store_path_in(folder, "xx"),
			    -ENAMETOOLONG);
	store_folder_put(folder);
	assert_int_equal(unlinkat(last.fd, "x", 0), 0);
	assert_int_equal(unlinkat(last.fd, "xx", 0), 0);
	close(last.fd);
	assert_int_equal(unlinkat(parent, name, AT_REMOVEDIR), 0);
}

/* 15 names and slashes are 3840 bytes: 255 more are the longest path. */
static void long_paths(void **state)
{
	char name[256], path[LIMIT_PATH_SIZE + 2];
	struct store_folder *folder, *none;
	struct test_folder last;
	int fds[DEEP], i;

	(void)state;
	memset(name, 'd', 255);
	name[255] = '\0';
	make_deep(fds, name);
	last.fd = fds[DEEP - 2];
	for (i = 0; i < DEEP; i++) {
		memcpy(path + 256 * i, name, 255);
		path[256 * i + 255] = '/';
	}
	path[LIMIT_PATH_SIZE - 1] = '\0';
	/* The last folder, and a file beside it. */
	assert_int_equal(strlen(path), LIMIT_PATH_SIZE - 1);
	lone_check_type(lone_at(path), S_IFDIR);
	folder = storing_folder(lone, path);
	storing_check_names(folder, "");
	assert_int_equal(lone->open_folder(lone, store_path_in(folder, "x"),
					   &none), -ENAMETOOLONG);
	storing_check_error(lone, store_path_in(folder, "x"), -ENAMETOOLONG);
	store_folder_put(folder);
	memset(name, 'f', 255);
	memcpy(path + LIMIT_PATH_SIZE - 256, name, 255);
	folder_write(&last, name, "text", 4);
	storing_check(lone, lone_at(path), "text");
	assert_int_equal(unlinkat(last.fd, name, 0), 0);
	long_paths_below(last.fd, path);
	/* One byte more. */
	strcpy(path + LIMIT_PATH_SIZE - 1, "f");
	lone_check_no(lone_at(path), -ENAMETOOLONG);
	storing_check_error(lone, lone_at(path), -ENAMETOOLONG);
	assert_int_equal(lone->open_folder(lone, lone_at(path), &none),
			 -ENAMETOOLONG);
	memset(name, 'd', 255);
	remove_deep(fds, name);
}

int main(void)
{
#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, lone_setup, lone_teardown)
	const struct CMUnitTest tests[] = {
		TEST(links_inside),
		TEST(links_that_leave),
		TEST(links_in_circles),
		TEST(links_to_blobs),
		TEST(long_names),
		TEST(long_paths),
	};

	return cmocka_run_group_tests_name("store_paths", tests, NULL, NULL);
}
