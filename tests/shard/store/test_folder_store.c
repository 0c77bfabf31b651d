/* SPDX-License-Identifier: Apache-2.0 */
/* The store that is one folder: what it finds and lists, and folders that are
 * held while their names go. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/lone.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- what is there ------------------------------------------------------- */

static void make_socket(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_true(snprintf(address.sun_path, sizeof(address.sun_path),
			     "%s/store/%s", lone_top.path, name) <
		    (int)sizeof(address.sun_path));
	assert_int_equal(bind(fd, (struct sockaddr *)&address,
			      sizeof(address)), 0);
	close(fd);
}

static void finding(void **state)
{
	struct store_folder *folder;
	struct stat status, real;

	(void)state;
	lone_folder("a");
	lone_folder("a/b");
	lone_write("a/b/file", "text");
	assert_int_equal(lone_find(lone_at("a/b/file"), &status), 0);
	assert_int_equal(fstatat(lone_in.fd, "a/b/file", &real, 0), 0);
	assert_int_equal(status.st_ino, real.st_ino);
	assert_int_equal(status.st_size, 4);
	lone_check_type(lone_at("a"), S_IFDIR);
	lone_check_no(lone_at("a/c"), -ENOENT);
	lone_check_no(lone_at("c/d"), -ENOENT);
	lone_check_no(lone_at("a/b/file/x"), -ENOTDIR);
	/* "" is the lone, or where the path starts. */
	assert_int_equal(lone_find(lone_at(""), &status), 0);
	assert_int_equal(fstat(lone_in.fd, &real), 0);
	assert_int_equal(status.st_ino, real.st_ino);
	folder = storing_folder(lone, "a");
	assert_string_equal(folder->path, "a");
	assert_int_equal(lone_find(store_path_in(folder, ""), &status), 0);
	assert_int_equal(fstatat(lone_in.fd, "a", &real, 0), 0);
	assert_int_equal(status.st_ino, real.st_ino);
	lone_check_type(store_path_in(folder, "b/file"), S_IFREG);
	lone_check_no(store_path_in(folder, "a"), -ENOENT);
	storing_check(lone, store_path_in(folder, "b/file"), "text");
	store_folder_put(folder);
}

static void opening_what_is_no_file(void **state)
{
	(void)state;
	lone_folder("a");
	lone_write("file", "text");
	storing_check_error(lone, lone_at("a"), -EINVAL);
	storing_check_error(lone, lone_at("b"), -ENOENT);
	storing_check_error(lone, lone_at("file/x"), -ENOTDIR);
}

static void listing(void **state)
{
	struct store_folder *folder;

	(void)state;
	folder = storing_folder(lone, "");
	storing_check_names(folder, "");
	/* By bytes, whatever the language: those above 127 come last. */
	lone_write("b", "");
	lone_write("B", "");
	lone_write("\xff\xfe", "");
	lone_write("\xc3\xa9", "");
	lone_write(".metadata", "");
	lone_write("...", "");
	lone_write(" ", "");
	lone_write("~", "");
	lone_folder(".hidden");
	storing_check_names(folder, " \n...\n.hidden\n.metadata\nB\nb\n~\n"
			    "\xc3\xa9\n\xff\xfe\n");
	assert_int_equal(unlinkat(lone_in.fd, "b", 0), 0);
	storing_check_names(folder, " \n...\n.hidden\n.metadata\nB\n~\n"
			    "\xc3\xa9\n\xff\xfe\n");
	store_folder_put(folder);
}

static void check_listed(const struct store_list *list, const char *name,
			 mode_t type)
{
	const struct store_entry *entry = store_list_find(list, name);

	assert_non_null(entry);
	assert_int_equal(entry->owner, 0);
	assert_int_equal(entry->replica_count, 0);
	assert_string_equal(entry->target, "");
	/* Some file systems do not say it. */
	if (entry->pin.mode)
		assert_int_equal(entry->pin.mode & S_IFMT, type);
}

/* A FIFO that is opened waits for whoever writes: nobody does. */
static void what_is_neither_file_nor_folder(void **state)
{
	struct store_folder *folder;
	struct store_list *list;

	(void)state;
	assert_int_equal(mkfifoat(lone_in.fd, "fifo", 0644), 0);
	make_socket("socket");
	lone_link("fifo", "to-fifo");
	lone_write("file", "");
	lone_folder("folder");
	folder = storing_folder(lone, "");
	assert_int_equal(lone->list(folder, false, &list), 0);
	assert_int_equal(list->count, 5);
	check_listed(list, "fifo", S_IFIFO);
	check_listed(list, "socket", S_IFSOCK);
	check_listed(list, "to-fifo", S_IFLNK);
	check_listed(list, "file", S_IFREG);
	check_listed(list, "folder", S_IFDIR);
	assert_null(store_list_find(list, "none"));
	store_list_put(list);
	lone_check_type(lone_at("fifo"), S_IFIFO);
	lone_check_type(lone_at("socket"), S_IFSOCK);
	storing_check_error(lone, lone_at("fifo"), -EINVAL);
	storing_check_error(lone, lone_at("socket"), -EINVAL);
	storing_check_error(lone, lone_at("to-fifo"), -EINVAL);
	store_folder_put(folder);
}

/* The mount of this very lone, inside of it: here the store stands for it,
 * since nothing is mounted. */
static void what_is_hidden(void **state)
{
	struct store_folder *folder;
	struct stat status;

	(void)state;
	lone_folder("mount");
	lone_write("file", "text");
	folder = storing_folder(lone, "");
	assert_int_equal(fstat(lone_in.fd, &status), 0);
	lone->hide(lone, status.st_dev + 1);
	storing_check_names(folder, "file\nmount\n");
	lone_check_type(lone_at("mount"), S_IFDIR);
	lone->hide(lone, status.st_dev);
	storing_check_names(folder, "file\n");
	lone_check_no(lone_at("mount"), -ENOENT);
	store_folder_put(folder);
}

/* ---- folders that are held ----------------------------------------------- */

static struct stat status_of(const char *path)
{
	struct stat status;

	assert_int_equal(fstatat(lone_in.fd, path, &status, 0), 0);
	return status;
}

/* It stays what it is, and what has its name now is another one. */
static void a_folder_that_is_moved(void **state)
{
	struct store_folder *held, *below, *fresh;
	struct stat status;

	(void)state;
	lone_folder("a");
	lone_folder("a/b");
	lone_write("a/file", "old");
	lone_write("a/b/file", "below");
	held = storing_folder(lone, "a");
	status = status_of("a");
	assert_true(store_folder_is(held, 0, &status));
	assert_int_equal(renameat(lone_in.fd, "a", lone_in.fd, "moved"), 0);
	lone_folder("a");
	lone_write("a/new", "new");
	storing_check_names(held, "b\nfile\n");
	lone_check_type(store_path_in(held, "file"), S_IFREG);
	lone_check_no(store_path_in(held, "new"), -ENOENT);
	storing_check(lone, store_path_in(held, "file"), "old");
	storing_check(lone, store_path_in(held, "b/file"), "below");
	lone_check_in(held, "file", "old");
	assert_int_equal(lone->open_folder(lone, store_path_in(held, "b"),
					   &below), 0);
	storing_check_names(below, "file\n");
	store_folder_put(below);
	status = status_of("a");
	assert_false(store_folder_is(held, 0, &status));
	status = status_of("moved");
	assert_true(store_folder_is(held, 0, &status));
	fresh = storing_folder(lone, "a");
	storing_check_names(fresh, "new\n");
	store_folder_put(fresh);
	store_folder_put(held);
}

static void a_folder_that_is_removed(void **state)
{
	struct store_folder *held, *below;

	(void)state;
	lone_folder("a");
	lone_write("a/file", "text");
	held = storing_folder(lone, "a");
	/* Held twice. */
	assert_ptr_equal(store_folder_get(held), held);
	store_folder_put(held);
	assert_int_equal(unlinkat(lone_in.fd, "a/file", 0), 0);
	assert_int_equal(unlinkat(lone_in.fd, "a", AT_REMOVEDIR), 0);
	storing_check_names(held, "");
	lone_check_type(store_path_in(held, ""), S_IFDIR);
	lone_check_no(store_path_in(held, "file"), -ENOENT);
	storing_check_error(lone, store_path_in(held, "file"), -ENOENT);
	lone_check_in_error(held, "file", -ENOENT);
	assert_int_equal(lone->open_folder(lone, store_path_in(held, "b"),
					   &below), -ENOENT);
	store_folder_put(held);
}

/* ---- for checkpoints ----------------------------------------------------- */

static void files_of_a_checkpoint(void **state)
{
	struct store_folder *folder;

	(void)state;
	lone_folder("a");
	lone_folder("a/b");
	lone_write("a/b/file", "text");
	lone_write("beside", "text");
	lone_link("b/file", "a/link");
	folder = storing_folder(lone, "a");
	lone_check_in(folder, "b/file", "text");
	lone_check_in(folder, "link", "text");
	lone_check_in_error(folder, "b", -EINVAL);
	lone_check_in_error(folder, "none", -ENOENT);
	/* It has nothing outside of its folder. */
	lone_check_in_error(folder, "../beside", -EXDEV);
	store_folder_put(folder);
}

static void placing(void **state)
{
	static const char *const names[] = { "one", "none", "folder", "two",
					     "link" };
	struct catalog *catalog = catalog_out_files(names, COUNT_OF(names));
	struct store_folder *folder;
	struct placement *placement;
	uint64_t bad = 99;

	(void)state;
	lone_folder("a");
	lone_folder("a/folder");
	lone_write("a/one", "1");
	lone_write("a/two", "22");
	lone_link("../../outside", "a/link");
	folder = storing_folder(lone, "a");
	assert_int_equal(lone->place(folder, catalog, &placement, &bad), 0);
	assert_int_equal(placement_pin(placement, 0)->size, 1);
	assert_int_equal(placement_local(placement, 0)->rank, 0);
	assert_int_equal(placement_pin(placement, 3)->size, 2);
	assert_int_equal(placement->owners[3], 0);
	/* What is not there is no error of the checkpoint. */
	assert_int_equal(placement_pin(placement, 1)->inode, 0);
	assert_int_equal(placement->files[1].error, -ENOENT);
	assert_int_equal(placement->files[2].error, -EINVAL);
	assert_int_equal(placement->files[4].error, -EXDEV);
	assert_null(placement_local(placement, 4));
	/* Its folder is the same, and of its own. */
	store_folder_put(folder);
	assert_int_equal(renameat(lone_in.fd, "a", lone_in.fd, "moved"), 0);
	assert_int_equal(faccessat(placement->folders[0], "two", F_OK, 0), 0);
	placement_destroy(placement);
	catalog_put(catalog);
}

/* Where there is nobody to ask. */
static void nobody_else(void **state)
{
	const struct catalog_wanted wanted = { .path = "a", .kept = true };
	struct catalog *catalog;
	struct statvfs status = { .f_blocks = 0 };
	struct source below;

	(void)state;
	assert_int_equal(lone->ranks, 1);
	assert_true(lone->is_builder(lone));
	assert_int_equal(lone->get_catalog(lone, &wanted, &catalog),
			 -ENODATA);
	assert_ptr_equal(lone->wrap_source(lone, NULL, &below), &below);
	assert_int_equal(lone->statfs(lone, &status), 0);
	assert_true(status.f_blocks > 0);
}

int main(void)
{
#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, lone_setup, lone_teardown)
	const struct CMUnitTest tests[] = {
		TEST(finding),
		TEST(opening_what_is_no_file),
		TEST(listing),
		TEST(what_is_neither_file_nor_folder),
		TEST(what_is_hidden),
		TEST(a_folder_that_is_moved),
		TEST(a_folder_that_is_removed),
		TEST(files_of_a_checkpoint),
		TEST(placing),
		TEST(nobody_else),
	};

	return cmocka_run_group_tests_name("folder_store", tests, NULL, NULL);
}
