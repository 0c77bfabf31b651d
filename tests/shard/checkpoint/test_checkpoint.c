/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"
#include "support/opening.h"
#include "support/sample.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct checkpoint_options plain_options = { .cache = NULL };

static struct test_folder folder;
static struct checkpoint_report report;
static struct checkpoint *checkpoint;
static struct reply *reply;
static unsigned descriptors;

static int setup(void **state)
{
	(void)state;
	descriptors = folder_count_descriptors();
	folder_make(&folder);
	checkpoint = NULL;
	reply = reply_create();
	return reply ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	reply_destroy(reply);
	opening_close(checkpoint);
	folder_remove(&folder);
	assert_int_equal(folder_count_descriptors(), descriptors);
	return 0;
}

static void open_sample(void)
{
	int error = opening_checkpoint(folder.fd, &plain_options, &checkpoint, &report);

	if (error)
		fail_msg("%d: %s, byte %llu: %s", error, report.file,
			 (unsigned long long)report.fault.offset,
			 report.fault.reason ? report.fault.reason : "");
}

static void check_sample(unsigned char first)
{
	assert_int_equal(checkpoint->catalog->tensor_count, 2);
	assert_int_equal(checkpoint->catalog->object_count, 1);
	assert_int_equal(sample_read(checkpoint, "w", reply), 0);
	sample_check(reply, first);
	assert_int_equal(sample_read(checkpoint, "s", reply), 0);
	reply_release(reply);
}

static void one_metadata_file(void **state)
{
	struct stat status;

	(void)state;
	sample_write(&folder, false, 7);
	open_sample();
	check_sample(7);
	assert_int_equal(report.notes.count, 0);
	assert_int_equal(checkpoint->markers.count, 1);
	assert_string_equal(checkpoint->markers.files[0].name, ".metadata");
	assert_int_equal(fstatat(folder.fd, ".metadata", &status, 0), 0);
	assert_int_equal(checkpoint_marker_pin(checkpoint)->inode, status.st_ino);
}

static void metadata_of_each_rank(void **state)
{
	(void)state;
	sample_write(&folder, true, 9);
	open_sample();
	check_sample(9);
	assert_int_equal(checkpoint->markers.count, 2);
	assert_string_equal(checkpoint->markers.files[0].name, "__0.metadata");
	assert_string_equal(checkpoint->markers.files[1].name, "__1.metadata");
}

/* Ranks in the order of their numbers; other names are no markers. */
static void names_of_rank_markers(void **state)
{
	static const char *const others[] = {
		"__01.metadata", "__.metadata", "__-1.metadata",
		"_0.metadata", "__0.metadata.tmp", "__0metadata",
		"__4294967296.metadata", "__x.metadata", "metadata",
		"__0_0.metadata",
	};
	unsigned i;

	(void)state;
	sample_write(&folder, true, 0);
	assert_int_equal(renameat(folder.fd, "__1.metadata", folder.fd,
				  "__10.metadata"), 0);
	assert_int_equal(renameat(folder.fd, "__0.metadata", folder.fd,
				  "__9.metadata"), 0);
	for (i = 0; i < COUNT_OF(others); i++)
		folder_write(&folder, others[i], "x", 1);
	open_sample();
	check_sample(0);
	assert_int_equal(checkpoint->markers.count, 2);
	assert_string_equal(checkpoint->markers.files[0].name, "__9.metadata");
	assert_string_equal(checkpoint->markers.files[1].name, "__10.metadata");
}

static void metadata_goes_before_that_of_ranks(void **state)
{
	(void)state;
	sample_write(&folder, false, 3);
	folder_write(&folder, "__0.metadata", "damaged", 7);
	open_sample();
	check_sample(3);
	assert_int_equal(checkpoint->markers.count, 1);
}

static void no_marker(void **state)
{
	(void)state;
	assert_true(opening_signature(folder.fd) == 0);
	assert_int_equal(opening_checkpoint(folder.fd, &plain_options, &checkpoint, &report),
			 -ENOENT);
	folder_write(&folder, ".metadata.tmp", "x", 1);
	assert_true(opening_signature(folder.fd) == 0);
	assert_int_equal(opening_checkpoint(folder.fd, &plain_options, &checkpoint, &report),
			 -ENOENT);
	assert_null(checkpoint);
}

static void check_refusal(int error, const char *file, uint64_t offset,
			  const char *reason)
{
	assert_int_equal(opening_checkpoint(folder.fd, &plain_options, &checkpoint, &report),
			 error);
	assert_null(checkpoint);
	assert_string_equal(report.file, file);
	assert_int_equal(report.fault.error, error);
	assert_true(report.fault.offset == offset);
	assert_non_null(strstr(report.fault.reason, reason));
}

static void refusals_name_file_and_byte(void **state)
{
	(void)state;
	folder_write(&folder, ".metadata", "\x80\4N.", 4);
	check_refusal(-EBADMSG, ".metadata", 0, "no state_dict_metadata");
	folder_write(&folder, ".metadata", "\x80\4NNi", 5);
	check_refusal(-EBADMSG, ".metadata", 4, "no checkpoint needs");
	folder_write(&folder, ".metadata", "\x80\4", 2);
	check_refusal(-EBADMSG, ".metadata", 2, "without STOP");
	folder_write(&folder, ".metadata", "N.", 2);
	check_refusal(-EBADMSG, ".metadata", 0, "not a pickle");
	folder_write(&folder, ".metadata", "", 0);
	check_refusal(-EBADMSG, ".metadata", 0, "not a pickle");
}

static void refusal_of_one_rank(void **state)
{
	(void)state;
	sample_write(&folder, true, 0);
	folder_write(&folder, "__1.metadata", "\x80\4NNi", 5);
	check_refusal(-EBADMSG, "__1.metadata", 4, "no checkpoint needs");
}

static void marker_that_is_no_file(void **state)
{
	(void)state;
	assert_int_equal(mkdirat(folder.fd, ".metadata", 0755), 0);
	check_refusal(-EINVAL, ".metadata", 0, "Invalid argument");
	assert_int_equal(unlinkat(folder.fd, ".metadata", AT_REMOVEDIR), 0);
	assert_int_equal(symlinkat("/etc/passwd", folder.fd, ".metadata"), 0);
	check_refusal(-EXDEV, ".metadata", 0, "");
	assert_int_equal(unlinkat(folder.fd, ".metadata", 0), 0);
	assert_int_equal(mkfifoat(folder.fd, ".metadata", 0644), 0);
	check_refusal(-EINVAL, ".metadata", 0, "Invalid argument");
}

static void too_large_a_marker(void **state)
{
	int fd;

	(void)state;
	folder_write(&folder, ".metadata", "N.", 2);
	fd = openat(folder.fd, ".metadata", O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, (off_t)LIMIT_METADATA_SIZE + 1), 0);
	close(fd);
	check_refusal(-E2BIG, ".metadata", 0, "too large");
}

static void missing_file_is_noted(void **state)
{
	(void)state;
	sample_write(&folder, false, 0);
	assert_int_equal(unlinkat(folder.fd, "__1_0.distcp", 0), 0);
	open_sample();
	assert_int_equal(report.notes.count, 1);
	assert_non_null(strstr(report.notes.line[0], "__1_0.distcp"));
	assert_int_equal(sample_read(checkpoint, "w", reply), -EIO);
	assert_int_equal(sample_read(checkpoint, "s", reply), 0);
	reply_release(reply);
}

static void newer_files_are_noted(void **state)
{
	const struct timespec past[2] = { { 1000, 0 }, { 1000, 0 } };

	(void)state;
	sample_write(&folder, false, 0);
	assert_int_equal(utimensat(folder.fd, ".metadata", past, 0), 0);
	open_sample();
	assert_int_equal(report.notes.count, 1);
	assert_non_null(strstr(report.notes.line[0], "newer"));
	check_sample(0);
}

static void signature_follows_the_markers(void **state)
{
	uint64_t before, after;

	(void)state;
	sample_write(&folder, true, 0);
	before = opening_signature(folder.fd);
	assert_true(before != 0);
	assert_true(opening_signature(folder.fd) == before);
	folder_poke(&folder, "__1.metadata", 0, 0x80);
	after = opening_signature(folder.fd);
	assert_true(after != before && after != 0);
	assert_int_equal(unlinkat(folder.fd, "__1.metadata", 0), 0);
	before = opening_signature(folder.fd);
	assert_true(before != after && before != 0);
	folder_write(&folder, ".metadata", "x", 1);
	after = opening_signature(folder.fd);
	assert_true(before != after && after != 0);
}

static void folder_stays_the_callers(void **state)
{
	(void)state;
	sample_write(&folder, false, 0);
	open_sample();
	assert_true(fcntl(folder.fd, F_GETFD) >= 0);
	opening_close(checkpoint);
	checkpoint = NULL;
	assert_true(fcntl(folder.fd, F_GETFD) >= 0);
	opening_close(NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(one_metadata_file),
		TEST(metadata_of_each_rank),
		TEST(names_of_rank_markers),
		TEST(metadata_goes_before_that_of_ranks),
		TEST(no_marker),
		TEST(refusals_name_file_and_byte),
		TEST(refusal_of_one_rank),
		TEST(marker_that_is_no_file),
		TEST(too_large_a_marker),
		TEST(missing_file_is_noted),
		TEST(newer_files_are_noted),
		TEST(signature_follows_the_markers),
		TEST(folder_stays_the_callers),
	};

	return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
