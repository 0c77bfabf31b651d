/* SPDX-License-Identifier: Apache-2.0 */
/* What one rank says of its store, to itself and to others. */
#include "support/test.h"
#include "support/folder.h"

#include "shard/base/hash.h"
#include "shard/base/limits.h"
#include "shard/store/folder_records.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct test_folder folder;
static struct array out;
static size_t position;
static unsigned descriptors;

static int setup(void **state)
{
	(void)state;
	descriptors = folder_count_descriptors();
	folder_make(&folder);
	out = (struct array){ .data = NULL };
	position = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	array_finish(&out);
	folder_remove(&folder);
	assert_int_equal(folder_count_descriptors(), descriptors);
	return 0;
}

/* The next record is @name, which is a link to @target, and is at @path. */
static void check_next(const char *name, const char *target, const char *path)
{
	struct stored stored;
	struct stat status;
	struct pin pin;

	assert_true(stored_entry_next(out.data, out.size, &position,
				      &stored));
	assert_int_equal(stored.entry.name_size, strlen(name));
	assert_memory_equal(stored.name, name, strlen(name));
	assert_int_equal(stored.entry.target_size, strlen(target));
	assert_memory_equal(stored.target, target, strlen(target));
	assert_int_equal(stored.entry.reserved, 0);
	assert_int_equal(fstatat(folder.fd, path, &status,
				 AT_SYMLINK_NOFOLLOW), 0);
	pin = pin_from_stat(&status);
	assert_true(pin_equal(&stored.entry.pin, &pin));
}

static void listing(void **state)
{
	char name[256];

	(void)state;
	memset(name, 'n', 255);
	name[255] = '\0';
	folder_write(&folder, "b", "text", 4);
	folder_write(&folder, ".metadata", "", 0);
	folder_write(&folder, "\xff", "", 0);
	folder_write(&folder, name, "", 0);
	assert_int_equal(mkdirat(folder.fd, "a", 0755), 0);
	assert_int_equal(symlinkat("/where/ever", folder.fd, "link"), 0);
	assert_int_equal(mkfifoat(folder.fd, "c", 0600), 0);
	assert_int_equal(folder_records_list(folder.fd, "", &out), 0);
	check_next(".metadata", "", ".metadata");
	check_next("a", "", "a");
	check_next("b", "", "b");
	check_next("c", "", "c");
	check_next("link", "/where/ever", "link");
	check_next(name, "", name);
	check_next("\xff", "", "\xff");
	assert_int_equal(position, out.size);
	/* What is below comes behind what is there already. */
	folder_write(&folder, "a/below", "", 0);
	assert_int_equal(folder_records_list(folder.fd, "a", &out), 0);
	check_next("below", "", "a/below");
	assert_int_equal(position, out.size);
}

static void what_cannot_be_listed(void **state)
{
	(void)state;
	folder_write(&folder, "file", "", 0);
	assert_int_equal(symlinkat("..", folder.fd, "up"), 0);
	assert_int_equal(symlinkat("self", folder.fd, "self"), 0);
	assert_int_equal(folder_records_list(folder.fd, "none", &out),
			 -ENOENT);
	assert_int_equal(folder_records_list(folder.fd, "file", &out),
			 -ENOTDIR);
	assert_int_equal(folder_records_list(folder.fd, "up", &out), -EXDEV);
	assert_int_equal(folder_records_list(folder.fd, "..", &out), -EXDEV);
	assert_int_equal(folder_records_list(folder.fd, "self", &out),
			 -ELOOP);
	assert_int_equal(out.size, 0);
}

static void one_of_them(void **state)
{
	(void)state;
	assert_int_equal(mkdirat(folder.fd, "a", 0755), 0);
	folder_write(&folder, "a/file", "text", 4);
	assert_int_equal(symlinkat("file", folder.fd, "a/link"), 0);
	assert_int_equal(folder_records_status(folder.fd, "a/file", &out), 0);
	check_next("file", "", "a/file");
	assert_int_equal(folder_records_status(folder.fd, "a", &out), 0);
	check_next("a", "", "a");
	assert_int_equal(folder_records_status(folder.fd, "a/link", &out), 0);
	check_next("link", "file", "a/link");
	assert_int_equal(folder_records_status(folder.fd, "", &out), 0);
	check_next("store", "", ".");
	assert_int_equal(position, out.size);
	assert_int_equal(folder_records_status(folder.fd, "none", &out),
			 -ENOENT);
	assert_int_equal(folder_records_status(folder.fd, "a/file/x", &out),
			 -ENOTDIR);
	assert_int_equal(position, out.size);
}

static void digests(void **state)
{
	enum { SIZE = LIMIT_READ_SIZE + 100 };
	unsigned char *bytes = malloc(SIZE);
	struct hash_stream *stream = hash_stream_create();
	uint64_t want[2], got[2];
	struct stat status;
	size_t i;
	int fd;

	(void)state;
	assert_non_null(bytes);
	assert_non_null(stream);
	for (i = 0; i < SIZE; i++)
		bytes[i] = (unsigned char)(i % 253);
	hash_stream_add(stream, bytes, SIZE);
	hash_stream_end(stream, want);
	folder_write(&folder, "file", bytes, SIZE);
	assert_int_equal(folder_records_open(folder.fd, "file", &fd, &status),
			 0);
	assert_int_equal(status.st_size, SIZE);
	assert_int_equal(folder_records_digest(fd, SIZE, got), 0);
	assert_memory_equal(got, want, sizeof(want));
	assert_int_equal(folder_records_digest(fd, SIZE - 1, got), 0);
	assert_memory_not_equal(got, want, sizeof(want));
	/* It ends before. */
	assert_int_equal(folder_records_digest(fd, SIZE + 1, got), -EIO);
	close(fd);
	assert_int_equal(folder_records_open(folder.fd, "", &fd, &status),
			 -EINVAL);
	hash_stream_destroy(stream);
	free(bytes);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(listing),
		TEST(what_cannot_be_listed),
		TEST(one_of_them),
		TEST(digests),
	};

	return cmocka_run_group_tests_name("folder_records", tests, NULL,
					   NULL);
}
