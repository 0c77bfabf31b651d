/* SPDX-License-Identifier: Apache-2.0 */
/* Archives that are as they should be, in all their forms. */
#include "support/test.h"
#include "support/archive_out.h"

#include "shard/base/limits.h"
#include "shard/dcp/zip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char pickle[] = "\x80\2N.";
static const char payload[200] = "the elements";

/* data.pkl, an empty record, and data/0. */
static void make(struct archive *archive, struct archive_record records[3])
{
	records[0] = archive_add(archive, "archive/data.pkl", pickle, 4);
	records[1] = archive_add(archive, "archive/data/1", "", 0);
	records[2] = archive_add(archive, "archive/data/0", payload,
				 sizeof(payload));
	archive_end(archive);
}

static void check_record(const struct zip *zip, const char *name,
			 const struct archive_record *expected, size_t size)
{
	struct zip_record record;
	struct fault fault = { .reason = "" };

	assert_int_equal(zip_find(zip, name, strlen(name), &record, &fault),
			 0);
	assert_int_equal(record.header, expected->header);
	assert_int_equal(record.size, size);
	assert_int_equal(record.method, 0);
	if (zip_locate(zip, &record, &fault))
		fail_msg("%s", fault.reason);
	assert_int_equal(record.offset, expected->payload);
}

/* All of @archive can be read; it is freed. */
static void check(struct archive *archive)
{
	struct archive_record records[3];
	struct zip_record record;
	struct input input;
	struct fault fault = { .reason = "" };
	struct zip zip;

	make(archive, records);
	input = input_memory(archive->out.data, archive->out.size);
	if (zip_open(&zip, &input,
			     LIMIT_OBJECT_DIRECTORY_SIZE, &fault))
		fail_msg("%s", fault.reason);
	assert_int_equal(zip.record_count, 3);
	assert_int_equal(zip.prefix_size, 8);
	assert_memory_equal(zip.prefix, "archive/", 8);
	check_record(&zip, "data.pkl", &records[0], 4);
	check_record(&zip, "data/1", &records[1], 0);
	check_record(&zip, "data/0", &records[2], sizeof(payload));
	fault.error = 77;
	assert_int_equal(zip_find(&zip, "data/2", 6, &record, &fault),
			 -ENOENT);
	assert_int_equal(zip_find(&zip, "data/", 5, &record, &fault), -ENOENT);
	assert_int_equal(zip_find(&zip, "", 0, &record, &fault), -ENOENT);
	assert_int_equal(fault.error, 77);
	zip_close(&zip);
	archive_free(archive);
}

static void as_torch_writes_them(void **state)
{
	struct archive archive = { .count = 0 };

	(void)state;
	check(&archive);
}

static void zip64_sizes_and_offsets(void **state)
{
	struct archive archive = { .wide = true };

	(void)state;
	check(&archive);
}

static void without_zip64_end_record(void **state)
{
	struct archive archive = { .narrow = true };

	(void)state;
	check(&archive);
}

static void without_data_descriptors(void **state)
{
	struct archive archive = { .plain = true };

	(void)state;
	check(&archive);
}

static void with_a_comment(void **state)
{
	static char comment[65536];
	struct archive archive = { .comment = "a comment" };
	/* Something like an end record in it, with the wrong length. */
	struct archive trick = {
		.narrow = true,
		.comment = "PK\5\6xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
	};
	struct archive longest = { .comment = comment };

	(void)state;
	check(&archive);
	check(&trick);
	memset(comment, 'c', sizeof(comment) - 1);
	check(&longest);
}

static void any_folder_name(void **state)
{
	struct archive archive = { .count = 0 };
	struct zip_record record;
	struct input input;
	struct zip zip;

	(void)state;
	archive_add(&archive, "my model/data.pkl", pickle, 4);
	archive_add(&archive, "other/version", "3\n", 2);
	archive_end(&archive);
	input = input_memory(archive.out.data, archive.out.size);
	assert_int_equal(zip_open(&zip, &input,
			     LIMIT_OBJECT_DIRECTORY_SIZE, NULL), 0);
	assert_int_equal(zip.prefix_size, 9);
	assert_int_equal(zip_find(&zip, "data.pkl", 8, &record, NULL), 0);
	assert_int_equal(zip_find(&zip, "version", 7, &record, NULL),
			 -ENOENT);
	zip_close(&zip);
	archive_free(&archive);
}

static void first_of_two_records_is_taken(void **state)
{
	struct archive archive = { .count = 0 };
	struct archive_record first;
	struct input input;
	struct zip zip;

	(void)state;
	first = archive_add(&archive, "archive/data.pkl", pickle, 4);
	archive_add(&archive, "archive/data.pkl", "xx", 2);
	archive_end(&archive);
	input = input_memory(archive.out.data, archive.out.size);
	assert_int_equal(zip_open(&zip, &input,
			     LIMIT_OBJECT_DIRECTORY_SIZE, NULL), 0);
	check_record(&zip, "data.pkl", &first, 4);
	zip_close(&zip);
	archive_free(&archive);
}

static void many_records(void **state)
{
	struct archive archive = { .count = 0 };
	struct archive_record last = { 0 };
	struct input input;
	struct zip zip;
	unsigned i;

	(void)state;
	for (i = 0; i < 5000; i++) {
		char name[40] = "archive/data/";
		char digits[8] = { 0 };
		unsigned n = i, at = 7;

		do
			digits[--at] = (char)('0' + n % 10);
		while (n /= 10);
		strcat(name, digits + at);
		last = archive_add(&archive, name, payload, 1 + i % 100);
	}
	archive_end(&archive);
	input = input_memory(archive.out.data, archive.out.size);
	assert_int_equal(zip_open(&zip, &input,
			     LIMIT_OBJECT_DIRECTORY_SIZE, NULL), 0);
	assert_int_equal(zip.record_count, 5000);
	check_record(&zip, "data/4999", &last, 100);
	zip_close(&zip);
	archive_free(&archive);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_torch_writes_them),
		cmocka_unit_test(zip64_sizes_and_offsets),
		cmocka_unit_test(without_zip64_end_record),
		cmocka_unit_test(without_data_descriptors),
		cmocka_unit_test(with_a_comment),
		cmocka_unit_test(any_folder_name),
		cmocka_unit_test(first_of_two_records_is_taken),
		cmocka_unit_test(many_records),
	};

	return cmocka_run_group_tests_name("zip", tests, NULL, NULL);
}
