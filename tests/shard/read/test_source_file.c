/* SPDX-License-Identifier: Apache-2.0 */
/* What happens when the store is not what it was, or was never sound. */
#include "support/test.h"
#include "support/test_store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct dice dice;
static struct test_store store;

/* 64 rows of 4 KiB in four shards, one a file. */
static int setup(void **state)
{
	struct world world = { .dtype = DTYPE_F32, .part_count = 4 };
	unsigned i, files = 0;

	(void)state;
	world.shape = BOX2(0, 0, 64, 1024);
	for (i = 0; i < 4; i++)
		world.parts[i] = BOX2(16 * i, 0, 16, 1024);
	/* Until each has a file of its own. */
	for (;;) {
		test_store_make(&store, &world, true, &dice);
		files = (unsigned)store.catalog->file_count;
		if (files == 4)
			return 0;
		test_store_free(&store);
	}
}

static int teardown(void **state)
{
	(void)state;
	test_store_free(&store);
	return 0;
}

static const char *path_of(unsigned shard)
{
	return catalog_text(store.catalog, catalog_file(store.catalog,
		catalog_shard(store.catalog, catalog_entry(store.catalog, 0),
			      shard)->file)->path);
}

enum { SHARD_SIZE = 16 * 4096 };

static int read_shard(unsigned shard)
{
	return test_store_read(&store, NULL, (uint64_t)shard * SHARD_SIZE,
			  SHARD_SIZE);
}

static void check_shard(unsigned shard)
{
	static unsigned char found[SHARD_SIZE];

	assert_int_equal(read_shard(shard), 0);
	test_store_copy(&store, found);
	assert_memory_equal(found, store.bytes + shard * SHARD_SIZE,
			    SHARD_SIZE);
	reply_release(store.reply);
}

static void truncate_file(const char *path, off_t size)
{
	int fd = openat(store.folder.fd, path, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static void changed_file_is_stale(void **state)
{
	(void)state;
	check_shard(0);
	check_shard(1);
	assert_false(atomic_load(&store.stale));
	folder_poke(&store.folder, path_of(1), 10, 'x');
	assert_int_equal(read_shard(1), -ESTALE);
	assert_true(atomic_load(&store.stale));
	/* For good, but no other file. */
	assert_int_equal(read_shard(1), -ESTALE);
	check_shard(0);
}

static void file_changed_before_the_first_read(void **state)
{
	(void)state;
	folder_poke(&store.folder, path_of(2), 10, 'x');
	assert_int_equal(read_shard(2), -ESTALE);
}

static void change_between_two_reads(void **state)
{
	(void)state;
	assert_int_equal(read_shard(3), 0);
	folder_poke(&store.folder, path_of(3), 10, 'x');
	assert_false(atomic_load(&store.stale));
	assert_int_equal(read_shard(3), -ESTALE);
	assert_true(atomic_load(&store.stale));
}

static void truncated_file_is_stale(void **state)
{
	(void)state;
	check_shard(0);
	truncate_file(path_of(0), 100);
	assert_int_equal(read_shard(0), -ESTALE);
}

static void removed_file_is_stale(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(store.folder.fd, path_of(1), 0), 0);
	assert_int_equal(read_shard(1), -ESTALE);
}

static void open_file_outlives_its_name(void **state)
{
	(void)state;
	check_shard(1);
	assert_int_equal(unlinkat(store.folder.fd, path_of(1), 0), 0);
	check_shard(1);
	assert_false(atomic_load(&store.stale));
}

/* It was not there when the checkpoint was opened: damage, no change. */
static void missing_file_is_an_io_error(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(store.folder.fd, path_of(1), 0), 0);
	test_store_open(&store);
	assert_int_equal(read_shard(1), -EIO);
	assert_int_equal(read_shard(1), -EIO);
	check_shard(0);
	check_shard(2);
	assert_false(atomic_load(&store.stale));
}

static void file_that_is_too_short(void **state)
{
	(void)state;
	truncate_file(path_of(1), SHARD_SIZE / 2);
	test_store_open(&store);
	assert_int_equal(read_shard(1), -EIO);
	assert_int_equal(store.reply->fault.error, -EIO);
	assert_string_equal(store.reply->fault_file, path_of(1));
	assert_non_null(strstr(store.reply->fault.reason, "beyond the end"));
	check_shard(0);
}

/* Damage of any part that is looked at: said once, with its place in the
 * file, and EIO from the first read on. */
static void check_damage(const char *where, const char *reason)
{
	static char content[2 * SHARD_SIZE];
	const char *path = path_of(1);
	int fd = openat(store.folder.fd, path, O_RDONLY | O_CLOEXEC);
	ssize_t size = read(fd, content, sizeof(content));
	char *at = memmem(content, (size_t)size, where, strlen(where));

	close(fd);
	assert_non_null(at);
	folder_poke(&store.folder, path, (uint64_t)(at - content), 'I');
	test_store_open(&store);
	assert_int_equal(read_shard(1), -EIO);
	assert_true(store.reply->fault.error != 0);
	assert_non_null(strstr(store.reply->fault.reason, reason));
	assert_true(store.reply->fault.offset <= (uint64_t)size);
	assert_string_equal(store.reply->fault_file, path);
	assert_int_equal(read_shard(1), -EIO);
	assert_int_equal(store.reply->fault.error, 0);
	check_shard(0);
}

static void damaged_end_record(void **state)
{
	(void)state;
	check_damage("PK\5\6", "no end record");
}

static void damaged_local_header(void **state)
{
	(void)state;
	check_damage("PK\3\4", "local header contradicts");
}

static void damaged_pickle(void **state)
{
	(void)state;
	check_damage("\x80\2" "ctorch", "no checkpoint needs");
}

static void nowait_does_not_open_files(void **state)
{
	(void)state;
	store.reply->nowait = true;
	assert_int_equal(read_shard(0), -EAGAIN);
	store.reply->nowait = false;
	check_shard(0);
	/* Now it is open, known and in memory. */
	store.reply->nowait = true;
	check_shard(0);
	assert_int_equal(test_store_read(&store, NULL, 0, 2 * SHARD_SIZE),
			 -EAGAIN);
}

static int count_bytes(void *context, const struct input *input)
{
	char start[4];

	assert_int_equal(input->read(input, start, 4, 0), 0);
	assert_memory_equal(start, "PK\3\4", 4);
	*(uint64_t *)context = input->size;
	return -EXDEV;
}

static void whole_items(void **state)
{
	struct catalog_shard shard = *catalog_shard(store.catalog,
		catalog_entry(store.catalog, 0), 2);
	uint64_t size = 0;

	(void)state;
	/* What the callback says is what comes back. */
	assert_int_equal(source_file_item(store.source, &shard, count_bytes,
					  &size), -EXDEV);
	assert_int_equal(size, shard.size);
	shard.size++;
	assert_int_equal(source_file_item(store.source, &shard, count_bytes,
					  &size), -EIO);
	shard.offset = UINT64_MAX;
	assert_int_equal(source_file_item(store.source, &shard, count_bytes,
					  &size), -EIO);
}

static int change_file(void *context, const struct input *input)
{
	(void)input;
	folder_poke(&store.folder, context, 0, 'x');
	return 0;
}

static void item_that_changes_while_it_is_used(void **state)
{
	const struct catalog_shard *shard = catalog_shard(store.catalog,
		catalog_entry(store.catalog, 0), 2);

	(void)state;
	assert_int_equal(source_file_item(store.source, shard, change_file,
					  (void *)(uintptr_t)path_of(2)),
			 -ESTALE);
	assert_true(atomic_load(&store.stale));
}

/* Each with a reply of its own; errors as a count. */
static void *read_all(void *argument)
{
	unsigned char *found = malloc(SHARD_SIZE);
	struct reply *reply = reply_create();
	uintptr_t wrong = !found || !reply, i, shard;

	for (i = 0; i < 50 && !wrong; i++) {
		struct test_store mine = store;

		mine.reply = reply;
		shard = (i + (uintptr_t)argument) % 4;
		if (test_store_read(&mine, NULL, shard * SHARD_SIZE, SHARD_SIZE)) {
			wrong++;
			break;
		}
		test_store_copy(&mine, found);
		wrong += memcmp(found, store.bytes + shard * SHARD_SIZE,
				SHARD_SIZE) != 0;
	}
	reply_destroy(reply);
	free(found);
	return (void *)wrong;
}

static void many_threads(void **state)
{
	pthread_t threads[4];
	uintptr_t i;
	void *wrong;

	(void)state;
	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_all,
						(void *)i), 0);
	for (i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		assert_null(wrong);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(changed_file_is_stale),
		TEST(file_changed_before_the_first_read),
		TEST(change_between_two_reads),
		TEST(truncated_file_is_stale),
		TEST(removed_file_is_stale),
		TEST(open_file_outlives_its_name),
		TEST(missing_file_is_an_io_error),
		TEST(file_that_is_too_short),
		TEST(damaged_end_record),
		TEST(damaged_local_header),
		TEST(damaged_pickle),
		TEST(nowait_does_not_open_files),
		TEST(whole_items),
		TEST(item_that_changes_while_it_is_used),
		TEST(many_threads),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("source_file", tests, NULL, NULL);
}
