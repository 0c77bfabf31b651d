/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of the union: whose file it is, and at whom it is read. */
#include "support/test.h"
#include "support/folder.h"
#include "support/union_fakes.h"

#include "shard/base/limits.h"
#include "shard/store/folder_records.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* ---- rules --------------------------------------------------------------- */

static void a_folder_that_nobody_has(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < RANKS; i++)
		fakes[i].error = i % 2 ? -ENOENT : -ENOTDIR;
	look();
	assert_false(found->found);
	assert_int_equal(found->list.count, 0);
	assert_null(store_list_find(&found->list, "a"));
	/* Empty is not missing. */
	fakes[2].error = 0;
	look();
	assert_true(found->found);
	assert_int_equal(found->list.count, 0);
}

static void all_of_all(void **state)
{
	unsigned i;

	(void)state;
	has(0, "b", S_IFREG, 1, 1);
	has(1, "a", S_IFREG, 1, 1);
	has(1, "d", S_IFREG, 1, 1);
	has(3, "c", S_IFREG, 1, 1);
	look();
	assert_int_equal(found->list.count, 4);
	check("a", 1, 1);
	check("b", 0, 0);
	check("c", 3, 3);
	check("d", 1, 1);
	for (i = 1; i < found->list.count; i++)
		assert_true(strcmp(found->list.entries[i - 1].name,
				   found->list.entries[i].name) < 0);
	assert_null(store_list_find(&found->list, ""));
	assert_null(store_list_find(&found->list, "e"));
	assert_int_equal(said_count, 0);
}

static void the_same_file(void **state)
{
	(void)state;
	has(2, "a", S_IFREG, 10, 77);
	has(0, "a", S_IFREG, 10, 77);
	look();
	assert_int_equal(found->list.count, 1);
	check("a", 0, 0);
	assert_int_equal(said_count, 0);
	/* Found out once. */
	assert_int_equal(fakes[0].digests, 1);
	look();
	assert_int_equal(fakes[0].digests, 1);
	assert_int_equal(fakes[2].digests, 1);
}

/* That of a file system which both have: nobody reads it. */
static void one_file_seen_twice(void **state)
{
	(void)state;
	has(0, "a", S_IFREG, 10, 1);
	has(1, "a", S_IFREG, 10, 2);
	fakes[0].files[0].inode = fakes[1].files[0].inode = 5;
	look();
	check("a", 0, 0);
	assert_int_equal(fakes[0].digests + fakes[1].digests, 0);
	assert_int_equal(said_count, 0);
}

static void the_lowest_rank_wins(void **state)
{
	(void)state;
	has(3, "a", S_IFREG, 10, 1);
	has(1, "a", S_IFREG, 10, 2);
	has(2, "b", S_IFREG, 10, 3);
	has(3, "b", S_IFREG, 11, 3);
	look();
	assert_int_equal(check("a", 1, 1)->pin.device, 11);
	assert_int_equal(check("b", 2, 2)->pin.size, 10);
	assert_int_equal(said_count, 2);
	assert_string_equal(said[0], "folder/a: differs between rank 1 and "
			    "rank 3: that of rank 1 is used");
	assert_non_null(strstr(said[1], "folder/b: differs between rank 2"));
	/* Said once, and of another size nobody needs a hash. */
	look();
	assert_int_equal(said_count, 2);
	assert_int_equal(fakes[2].digests, 0);
	/* It is another one now. */
	fakes[3].files[0].size = 12;
	look();
	assert_int_equal(said_count, 3);
}

/* A folder that changes while it is read may have a name twice. */
static void one_name_twice(void **state)
{
	(void)state;
	has(1, "a", S_IFREG, 10, 1);
	has(1, "a", S_IFREG, 10, 1);
	has(1, "a", S_IFREG, 11, 1);
	has(2, "a", S_IFREG, 10, 1);
	has(2, "a", S_IFREG, 10, 1);
	look();
	assert_int_equal(found->list.count, 1);
	assert_int_equal(check("a", 1, 1)->replica_count, 2);
	assert_int_equal(said_count, 0);
}

static void too_large_to_be_compared(void **state)
{
	(void)state;
	has(0, "a", S_IFREG, LIMIT_COMPARE_SIZE + 1, 1);
	has(1, "a", S_IFREG, LIMIT_COMPARE_SIZE + 1, 1);
	has(0, "b", S_IFREG, LIMIT_COMPARE_SIZE, 1);
	has(1, "b", S_IFREG, LIMIT_COMPARE_SIZE, 1);
	look();
	check("a", 0, 0);
	assert_int_equal(said_count, 1);
	assert_non_null(strstr(said[0], "too large"));
	assert_int_equal(fakes[0].digests, 1);
}

static void files_and_folders(void **state)
{
	(void)state;
	has(0, "a", S_IFDIR, 0, 0);
	has(1, "a", S_IFREG, 5, 0);
	has(1, "b", S_IFREG, 5, 0);
	has(2, "b", S_IFDIR, 0, 0);
	has(2, "c", S_IFDIR, 0, 0);
	has(3, "c", S_IFDIR, 0, 0);
	look();
	assert_int_equal(found->list.count, 3);
	assert_true(S_ISDIR(check("a", 0, 0)->pin.mode));
	assert_true(S_ISREG(check("b", 1, 1)->pin.mode));
	check("c", 2, 2);
	assert_int_equal(said_count, 2);
}

static void links(void **state)
{
	const struct store_entry *entry;

	(void)state;
	has(1, "a", S_IFLNK, 6, 0);
	fakes[1].files[0].target = "target";
	has(2, "a", S_IFLNK, 5, 0);
	fakes[2].files[0].target = "other";
	look();
	entry = check("a", 1, 1);
	assert_string_equal(entry->target, "target");
	assert_int_equal(said_count, 0);
}

/* ---- near ---------------------------------------------------------------- */

/* The own copy is read, whoever it counts as. */
static void the_own_copy(void **state)
{
	const struct store_entry *entry;

	(void)state;
	has(0, "a", S_IFREG, 10, 7);
	has(2, "a", S_IFREG, 10, 7);
	has(3, "a", S_IFREG, 10, 7);
	has(0, "b", S_IFREG, 10, 7);
	has(3, "b", S_IFREG, 10, 8);
	look();
	entry = check("a", 0, 3);
	assert_int_equal(entry->pin.device, 10);
	assert_int_equal(entry->replicas[0].pin.device, 13);
	check("b", 0, 0);
}

/* Else that of a rank whose store can be opened from here. */
static void a_copy_on_this_host(void **state)
{
	struct test_folder folder;
	int fd;

	(void)state;
	folder_make(&folder);
	assert_int_equal(mkdirat(folder.fd, "folder", 0755), 0);
	folder_write(&folder, "folder/a", "0123456789", 10);
	folder_write(&folder, "folder/b", "9876543210", 10);
	fd = openat(folder.fd, "folder/a", O_RDONLY | O_CLOEXEC);
	assert_int_equal(folder_records_digest(fd, 10, real_hash), 0);
	close(fd);
	stores[1] = stores[2] = folder.fd;
	has(0, "a", S_IFREG, 10, REAL);
	has(0, "b", S_IFREG, 10, REAL);
	look();
	check("a", 0, 1);
	/* The content of rank 0's is another. */
	check("b", 0, 0);
	assert_int_equal(said_count, 2);
	assert_int_equal(fakes[1].lists, 0);
	/* It is gone from rank 1's. */
	stores[1] = -1;
	look();
	check("a", 0, 2);
	folder_remove(&folder);
}

int main(void)
{
#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, union_setup, union_teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_folder_that_nobody_has),
		TEST(all_of_all),
		TEST(the_same_file),
		TEST(one_file_seen_twice),
		TEST(the_lowest_rank_wins),
		TEST(one_name_twice),
		TEST(too_large_to_be_compared),
		TEST(files_and_folders),
		TEST(links),
		TEST(the_own_copy),
		TEST(a_copy_on_this_host),
	};

	return cmocka_run_group_tests_name("union", tests, NULL, NULL);
}
