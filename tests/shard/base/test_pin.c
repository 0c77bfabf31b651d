/* SPDX-License-Identifier: Apache-2.0 */
/* Pins of real files, before and after what may happen to them. */
#include "support/test.h"
#include "support/folder.h"

#include "shard/base/pin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct test_folder folder;
static int fd;

static int setup(void **state)
{
	(void)state;
	folder_make(&folder);
	folder_write(&folder, "f", "abc", 3);
	folder_write(&folder, "other", "xyz", 3);
	fd = openat(folder.fd, "f", O_RDWR | O_CLOEXEC);
	return fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	close(fd);
	folder_remove(&folder);
	return 0;
}

static struct pin pin_now(void)
{
	struct stat status;

	assert_int_equal(fstat(fd, &status), 0);
	return pin_from_stat(&status);
}

/* Times are as coarse as the kernel's clock. */
static void let_time_pass(const struct pin *pin)
{
	struct stat status;

	do {
		folder_write(&folder, "clock", "", 0);
		assert_int_equal(fstatat(folder.fd, "clock", &status, 0), 0);
		assert_int_equal(unlinkat(folder.fd, "clock", 0), 0);
	} while (pin_from_stat(&status).ctime <= pin->ctime);
}

static void no_change(void)
{
}

static void add_a_name(void)
{
	assert_int_equal(linkat(folder.fd, "f", folder.fd, "g", 0), 0);
}

static void take_the_name_away(void)
{
	assert_int_equal(unlinkat(folder.fd, "f", 0), 0);
}

static void put_another_in_its_place(void)
{
	assert_int_equal(renameat(folder.fd, "other", folder.fd, "f"), 0);
}

static void change_the_mode(void)
{
	assert_int_equal(fchmod(fd, 0400), 0);
}

static void append(void)
{
	assert_int_equal(pwrite(fd, "d", 1, 3), 1);
}

static void rewrite(void)
{
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
}

static void rewrite_and_set_back(void)
{
	struct stat status;
	struct timespec times[2];

	assert_int_equal(fstat(fd, &status), 0);
	times[0] = status.st_atim;
	times[1] = status.st_mtim;
	rewrite();
	assert_int_equal(futimens(fd, times), 0);
}

static void what_happens_to_a_file(void **state)
{
	static const struct {
		const char *what;
		void (*happens)(void);
		bool equal, same_bytes;
	} cases[] = {
		{ "nothing", no_change, true, true },
		{ "link", add_a_name, false, true },
		{ "unlink", take_the_name_away, false, true },
		{ "rename over", put_another_in_its_place, false, true },
		{ "chmod", change_the_mode, false, true },
		{ "append", append, false, false },
		{ "rewrite", rewrite, false, false },
		{ "rewrite, mtime set back", rewrite_and_set_back, false,
		  false },
	};
	unsigned i;

	for (i = 0; i < COUNT_OF(cases); i++) {
		struct pin before = pin_now(), now;

		let_time_pass(&before);
		cases[i].happens();
		now = pin_now();
		if (pin_equal(&before, &now) != cases[i].equal ||
		    pin_same_bytes(&before, &now) != cases[i].same_bytes)
			fail_msg("%s", cases[i].what);
		assert_true(pin_same_file(&before, &now));
		teardown(state);
		setup(state);
	}
}

static void another_file(void **state)
{
	struct pin pin = pin_now(), other = pin;

	(void)state;
	other.inode++;
	assert_false(pin_same_file(&pin, &other));
	assert_false(pin_same_bytes(&pin, &other));
	other = pin;
	other.device++;
	assert_false(pin_same_file(&pin, &other));
	assert_false(pin_equal(&pin, &other));
}

static void there_and_back(void **state)
{
	struct stat status, back;
	struct pin pin;

	(void)state;
	assert_int_equal(fstat(fd, &status), 0);
	pin = pin_from_stat(&status);
	pin_status(&pin, &back);
	assert_int_equal(back.st_mode, status.st_mode);
	assert_int_equal(back.st_size, 3);
	assert_int_equal(back.st_blocks, 1);
	assert_int_equal(back.st_nlink, 1);
	assert_int_equal(back.st_uid, status.st_uid);
	assert_memory_equal(&back.st_mtim, &status.st_mtim,
			    sizeof(back.st_mtim));
	assert_memory_equal(&back.st_ctim, &status.st_ctim,
			    sizeof(back.st_ctim));
}

/* Half a second before 1970 is second -1 and a half. */
static void times_before_1970(void **state)
{
	const struct timespec times[] = {
		{ -1, 500000000 }, { -1, 0 }, { -1, 999999999 }, { 0, 0 },
		{ -86400, 1 },
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(times); i++) {
		const struct stat status = { .st_mtim = times[i],
					     .st_ctim = times[i] };
		struct pin pin = pin_from_stat(&status);
		struct stat back;

		pin_status(&pin, &back);
		assert_int_equal(back.st_mtim.tv_sec, times[i].tv_sec);
		assert_int_equal(back.st_mtim.tv_nsec, times[i].tv_nsec);
		assert_int_equal(back.st_ctim.tv_nsec, times[i].tv_nsec);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_happens_to_a_file),
		TEST(another_file),
		TEST(there_and_back),
		TEST(times_before_1970),
	};

	return cmocka_run_group_tests_name("pin", tests, NULL, NULL);
}
