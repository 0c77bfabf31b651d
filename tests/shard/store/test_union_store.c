/* SPDX-License-Identifier: Apache-2.0 */
/* The stores of four ranks as one: whose file a name is, what is known of ranks
 * that do not answer, and for how long. */
#include "support/test.h"
#include "support/homes.h"

#include "shard/store/union_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- one name of several ranks ------------------------------------------- */

static void all_of_all(void **state)
{
	struct store_folder *top = storing_folder(united, ""), *folder;
	unsigned i;

	(void)state;
	for (i = 0; i < RANKS; i++) {
		char name[] = { (char)('d' - i), '\0' };

		homes_write(i, name, name);
		homes_folder(i, "folder");
	}
	homes_write(FAR, "folder/\xff", "text");
	homes_write(OWN, "folder/.metadata", "text");
	storing_check_names(top, "a\nb\nc\nd\nfolder\n");
	for (i = 0; i < RANKS; i++) {
		char name[] = { (char)('d' - i), '\0' };

		assert_int_equal(homes_find(name, i).st_size, 1);
		homes_check(name, name);
	}
	folder = storing_folder(united, "folder");
	storing_check_names(folder, ".metadata\n\xff\n");
	homes_check_in(top, "folder/\xff", FAR, "text");
	homes_check_in(folder, ".metadata", OWN, "text");
	assert_int_equal(homes_find_error("folder/none"), -ENOENT);
	assert_int_equal(homes_find_error("none/none"), -ENOENT);
	homes_check_error("folder", -EINVAL);
	homes_check_error("none", -ENOENT);
	store_folder_put(folder);
	store_folder_put(top);
}

/* It counts as the lowest rank's, and is read here. */
static void equal_files(void **state)
{
	struct store_folder *top = storing_folder(united, "");
	struct stored_file *file;
	struct stat real, status;

	(void)state;
	homes_write(0, "a", "text");
	homes_write(OWN, "a", "text");
	homes_write(FAR, "b", "text");
	homes_write(NEAR, "b", "text");
	homes_write(OWN, "b", "text");
	status = homes_find("a", 0);
	assert_int_equal(fstatat(homes[0].fd, "a", &real, 0), 0);
	assert_int_equal(status.st_ino, real.st_ino);
	homes_check_in(top, "a", OWN, "text");
	homes_find("b", FAR);
	homes_check_in(top, "b", OWN, "text");
	/* It is the same file, whoever it is read from. */
	assert_int_equal(united->open_in(top, "a", &file), 0);
	assert_int_equal(file->pin.inode, real.st_ino);
	file->close(file);
	assert_int_equal(said_count, 0);
	store_folder_put(top);
}

static void different_files(void **state)
{
	struct store_folder *top = storing_folder(united, "");

	(void)state;
	homes_write(0, "a", "of rank 0");
	homes_write(OWN, "a", "of rank 3");
	homes_write(NEAR, "b", "of rank 2");
	homes_write(OWN, "b", "longer, of rank 3");
	assert_int_equal(homes_find("a", 0).st_size, 9);
	homes_check("a", "of rank 0");
	homes_check_in(top, "a", 0, "of rank 0");
	homes_check_in(top, "b", NEAR, "of rank 2");
	storing_check_names(top, "a\nb\n");
	/* Once for each. */
	assert_int_equal(said_count, 2);
	assert_string_equal(said[0], "a: differs between rank 0 and rank 3: "
			    "that of rank 0 is used");
	/* The lowest rank's is removed: the other one is there. */
	homes_remove(0, "a", 0);
	storing_check_names(top, "a\nb\n");
	homes_check("a", "of rank 3");
	store_folder_put(top);
}

static void a_file_and_a_folder(void **state)
{
	struct store_folder *top = storing_folder(united, ""), *folder;

	(void)state;
	homes_write(0, "a", "file");
	homes_folder(OWN, "a");
	homes_write(OWN, "a/below", "text");
	homes_folder(FAR, "b");
	homes_write(FAR, "b/below", "text");
	homes_write(NEAR, "b", "file");
	storing_check_names(top, "a\nb\n");
	assert_true(S_ISREG(homes_find("a", 0).st_mode));
	homes_check("a", "file");
	assert_true(S_ISDIR(homes_find("b", FAR).st_mode));
	homes_check_error("b", -EINVAL);
	folder = storing_folder(united, "b");
	storing_check_names(folder, "below\n");
	store_folder_put(folder);
	homes_check("b/below", "text");
	assert_int_equal(said_count, 2);
	store_folder_put(top);
}

static void links(void **state)
{
	struct array got = { .data = NULL };

	(void)state;
	assert_int_equal(symlinkat("there", homes[FAR].fd, "link"), 0);
	assert_int_equal(symlinkat("elsewhere", homes[OWN].fd, "link"), 0);
	assert_int_equal(mkfifoat(homes[0].fd, "fifo", 0644), 0);
	homes_write(OWN, "file", "text");
	assert_true(S_ISLNK(homes_find("link", FAR).st_mode));
	assert_int_equal(united->link(united, store_path_in(NULL, "link"),
				      &got), 0);
	assert_string_equal((char *)got.data, "there");
	assert_int_equal(united->link(united, store_path_in(NULL, "file"),
				      &got), -EINVAL);
	assert_int_equal(united->link(united, store_path_in(NULL, "none"),
				      &got), -ENOENT);
	array_finish(&got);
	assert_true(S_ISFIFO(homes_find("fifo", 0).st_mode));
	homes_check_error("fifo", -EINVAL);
}

/* ---- ranks that do not answer -------------------------------------------- */

/* Suspect, lost or gone: what it had is seen, and cannot be read. */
static void a_rank_that_is_lost(void **state)
{
	struct store_folder *top = storing_folder(united, "");

	(void)state;
	homes_write(FAR, "a", "text");
	homes_write(FAR, "both", "text");
	homes_write(OWN, "both", "text");
	homes_write(OWN, "mine", "text");
	storing_check_names(top, "a\nboth\nmine\n");
	fakes[FAR].error = -EIO;
	storing_check_names(top, "a\nboth\nmine\n");
	homes_later(1000);
	assert_int_equal(homes_find("a", FAR).st_size, 4);
	homes_check_error("a", -EIO);
	homes_check_in_error(top, "a", -EIO);
	homes_check("mine", "text");
	/* It is equal here. */
	homes_check_in(top, "both", OWN, "text");
	fakes[FAR].error = 0;
	homes_write(FAR, "new", "text");
	storing_check_names(top, "a\nboth\nmine\nnew\n");
	homes_check("a", "text");
	store_folder_put(top);
}

/* Nobody has ever seen what it has. */
static void a_rank_that_never_came(void **state)
{
	struct store_folder *top = storing_folder(united, ""), *folder;
	struct store_list *list;

	(void)state;
	homes_folder(FAR, "folder");
	homes_write(OWN, "mine", "text");
	fakes[FAR].error = -EIO;
	storing_check_names(top, "mine\n");
	assert_int_equal(homes_find_error("folder"), -ENOENT);
	folder = storing_folder(united, "folder");
	assert_int_equal(united->list(folder, true, &list), -ENOENT);
	fakes[FAR].error = 0;
	storing_check_names(top, "folder\nmine\n");
	storing_check_names(folder, "");
	store_folder_put(folder);
	store_folder_put(top);
}

static int end(struct peers *p)
{
	(void)p;
	return -ESHUTDOWN;
}

static void this_rank_is_ending(void **state)
{
	struct store_folder *top = storing_folder(united, ""), *none;
	struct store_list *list;

	(void)state;
	homes_write(OWN, "file", "text");
	peers.wait_ready = end;
	assert_int_equal(homes_find_error("file"), -ESHUTDOWN);
	homes_check_error("file", -ESHUTDOWN);
	assert_int_equal(united->list(top, false, &list), -ESHUTDOWN);
	assert_int_equal(united->open_folder(united, store_path_in(NULL, ""),
					     &none), -ESHUTDOWN);
	store_folder_put(top);
}

/* ---- how old it may be --------------------------------------------------- */

static void check_count(struct store_folder *folder, bool fresh, size_t count)
{
	struct store_list *list;

	assert_int_equal(united->list(folder, fresh, &list), 0);
	assert_int_equal(list->count, count);
	store_list_put(list);
}

static void looks(void **state)
{
	struct store_folder *top = storing_folder(united, "");

	(void)state;
	homes_write(FAR, "a", "text");
	check_count(top, false, 1);
	assert_int_equal(fakes[FAR].lists, 1);
	homes_write(FAR, "b", "text");
	homes_remove(FAR, "a", 0);
	homes_later(999);
	check_count(top, false, 1);
	assert_int_equal(homes_find_error("b"), -ENOENT);
	assert_int_equal(fakes[FAR].lists, 1);
	/* Whoever wants to know has it looked at for all. */
	check_count(top, true, 1);
	assert_int_equal(fakes[FAR].lists, 2);
	assert_int_equal(homes_find_error("a"), -ENOENT);
	homes_find("b", FAR);
	assert_int_equal(fakes[FAR].lists, 2);
	homes_write(FAR, "c", "text");
	homes_later(1000);
	homes_find("c", FAR);
	assert_int_equal(fakes[FAR].lists, 3);
	store_folder_put(top);
}

/* What others may ask for when a rank is lost. */
static void what_is_remembered(void **state)
{
	struct store_folder *top = storing_folder(united, "");
	struct array out = { .data = NULL };
	struct stored stored;
	size_t position = 0;

	(void)state;
	homes_write(FAR, "a", "text");
	assert_int_equal(union_store_recall(united, "", FAR, &out), -ENODATA);
	check_count(top, true, 1);
	assert_int_equal(union_store_recall(united, "other", FAR, &out),
			 -ENODATA);
	assert_int_equal(union_store_recall(united, "", RANKS, &out),
			 -ENODATA);
	assert_int_equal(union_store_recall(united, "", FAR, &out), 0);
	assert_true(stored_entry_next(out.data, out.size, &position,
				      &stored));
	assert_int_equal(stored.entry.pin.size, 4);
	out.size = 0;
	assert_int_equal(union_store_recall(united, "", NEAR, &out), 0);
	assert_int_equal(out.size, 0);
	/* It is forgotten with the next look, if that says so. */
	homes_remove(FAR, "a", 0);
	check_count(top, true, 0);
	assert_int_equal(union_store_recall(united, "", FAR, &out), 0);
	assert_int_equal(out.size, 0);
	array_finish(&out);
	store_folder_put(top);
}

/* What has it on this host, and what it is now by who has it. */
static void status_now(void **state)
{
	struct stat status;
	struct store_path path = { NULL, "a" };

	(void)state;
	homes_write(FAR, "a", "text");
	homes_write(OWN, "a", "text");
	homes_find("a", FAR);
	homes_write(FAR, "a", "longer text");
	assert_int_equal(homes_find("a", FAR).st_size, 4);
	assert_int_equal(united->status(united, path, FAR, &status), 0);
	assert_int_equal(status.st_size, 11);
	assert_int_equal(united->status(united, path, OWN, &status), 0);
	assert_int_equal(status.st_size, 4);
	assert_int_equal(united->status(united, path, 0, &status), -ENOENT);
	assert_int_equal(united->status(united, path, NEAR, &status), -ENOENT);
	fakes[FAR].error = -EIO;
	assert_int_equal(united->status(united, path, FAR, &status), -EIO);
	path.text = "";
	assert_int_equal(united->status(united, path, FAR, &status), 0);
	assert_true(S_ISDIR(status.st_mode));
}

int main(void)
{
#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, homes_setup, homes_teardown)
	const struct CMUnitTest tests[] = {
		TEST(all_of_all),
		TEST(equal_files),
		TEST(different_files),
		TEST(a_file_and_a_folder),
		TEST(links),
		TEST(a_rank_that_is_lost),
		TEST(a_rank_that_never_came),
		TEST(this_rank_is_ending),
		TEST(looks),
		TEST(what_is_remembered),
		TEST(status_now),
	};

	return cmocka_run_group_tests_name("union_store", tests, NULL, NULL);
}
