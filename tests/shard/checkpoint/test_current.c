/* SPDX-License-Identifier: Apache-2.0 */
/* Does an open checkpoint notice that the store changed, and only then? */
#include "support/test.h"
#include "support/opening.h"
#include "support/sample.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct checkpoint_options plain_options = { .cache = NULL };

static struct test_folder folder;
static struct checkpoint_report report;
static struct checkpoint *checkpoint;

static int setup_ranks(bool local)
{
	folder_make(&folder);
	sample_write(&folder, local, 1);
	return opening_checkpoint(folder.fd, &plain_options, &checkpoint, &report);
}

static int setup(void **state)
{
	(void)state;
	return setup_ranks(false);
}

static int setup_local(void **state)
{
	(void)state;
	return setup_ranks(true);
}

static int teardown(void **state)
{
	(void)state;
	opening_close(checkpoint);
	folder_remove(&folder);
	return 0;
}

static bool is_current(void)
{
	uint64_t cursor = 0;

	return opening_is_current(checkpoint, &cursor);
}

static void unchanged(void **state)
{
	uint64_t cursor = 0;
	unsigned i;

	(void)state;
	for (i = 0; i < 5; i++)
		assert_true(opening_is_current(checkpoint, &cursor));
	/* Others' files are no part of it. */
	folder_write(&folder, "notes.txt", "x", 1);
	folder_write(&folder, ".metadata.tmp", "x", 1);
	assert_true(is_current());
}

static void changed_marker(void **state)
{
	(void)state;
	folder_poke(&folder, ".metadata", 0, 0x80);
	assert_false(is_current());
}

static void replaced_marker(void **state)
{
	static char text[10000];
	int fd = openat(folder.fd, ".metadata", O_RDONLY | O_CLOEXEC);
	ssize_t size = read(fd, text, sizeof(text));

	(void)state;
	close(fd);
	folder_write(&folder, ".metadata.tmp", text, (size_t)size);
	assert_true(is_current());
	assert_int_equal(renameat(folder.fd, ".metadata.tmp", folder.fd,
				  ".metadata"), 0);
	assert_false(is_current());
}

static void removed_marker(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(folder.fd, ".metadata", 0), 0);
	assert_false(is_current());
}

static void changed_data(void **state)
{
	(void)state;
	folder_poke(&folder, "__1_0.distcp", 0, 'P');
	assert_false(is_current());
}

static void removed_data(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(folder.fd, "__0_0.distcp", 0), 0);
	assert_false(is_current());
}

static void missing_data_that_appears(void **state)
{
	static char bytes[4] = "PK\3\4";

	(void)state;
	opening_close(checkpoint);
	checkpoint = NULL;
	assert_int_equal(unlinkat(folder.fd, "__0_0.distcp", 0), 0);
	assert_int_equal(opening_checkpoint(folder.fd, &plain_options, &checkpoint, &report), 0);
	assert_true(is_current());
	folder_write(&folder, "__0_0.distcp", bytes, sizeof(bytes));
	assert_false(is_current());
}

static void another_rank(void **state)
{
	(void)state;
	assert_true(is_current());
	folder_write(&folder, "__2.metadata", "x", 1);
	assert_false(is_current());
}

static void one_rank_less(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(folder.fd, "__1.metadata", 0), 0);
	assert_false(is_current());
}

static void metadata_for_all_ranks_appears(void **state)
{
	(void)state;
	folder_write(&folder, ".metadata", "x", 1);
	assert_false(is_current());
}

/* Too few descriptors say nothing about the store. */
static void no_descriptor_left(void **state)
{
	struct store *store = checkpoint->folder->store;
	struct metadata_files markers;
	struct store_folder *now;
	struct rlimit limit, old;
	uint64_t cursor = 0;
	bool current;

	(void)state;
	assert_int_equal(store->open_folder(store, store_path_in(NULL, ""), &now), 0);
	assert_int_equal(metadata_files_read(now, NULL, &markers), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	limit = old;
	limit.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	current = checkpoint_is_current(checkpoint, now, &markers, &cursor);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	metadata_files_finish(&markers);
	store_folder_put(now);
	assert_true(current);
}

/* The cursor takes each file in its turn, however many there are. */
static void cursor_goes_round(void **state)
{
	uint64_t cursor = 5;
	unsigned i;

	(void)state;
	for (i = 0; i < 10; i++)
		assert_true(opening_is_current(checkpoint, &cursor));
	folder_poke(&folder, "__1_0.distcp", 0, 'P');
	assert_false(opening_is_current(checkpoint, &cursor));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define LOCAL(name) cmocka_unit_test_setup_teardown(name, setup_local, teardown)
	const struct CMUnitTest tests[] = {
		TEST(unchanged),
		TEST(changed_marker),
		TEST(replaced_marker),
		TEST(removed_marker),
		TEST(changed_data),
		TEST(removed_data),
		TEST(missing_data_that_appears),
		LOCAL(another_rank),
		LOCAL(one_rank_less),
		LOCAL(metadata_for_all_ranks_appears),
		TEST(no_descriptor_left),
		LOCAL(no_descriptor_left),
		TEST(cursor_goes_round),
	};

	return cmocka_run_group_tests_name("current", tests, NULL, NULL);
}
