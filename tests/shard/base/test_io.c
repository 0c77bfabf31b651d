/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"
#include "support/folder.h"

#include "shard/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct test_folder folder;

static int setup(void **state)
{
	(void)state;
	folder_make(&folder);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	folder_remove(&folder);
	return 0;
}

static void check_open(const char *path, int error)
{
	struct stat status = { .st_size = 77 };
	unsigned before = folder_count_descriptors();
	int fd = -77, found = io_open(folder.fd, path, &fd, &status);

	if (found != error)
		fail_msg("%s: %d, expected %d", path, found, error);
	if (found == 0) {
		assert_true(fd >= 0);
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		close(fd);
	} else {
		assert_int_equal(fd, -77);
		assert_int_equal(status.st_size, 77);
	}
	assert_int_equal(io_stat(folder.fd, path, &status), error);
	assert_int_equal(folder_count_descriptors(), before);
}

static void regular_files(void **state)
{
	struct stat status;
	char data[5];
	int fd;

	(void)state;
	folder_write(&folder, "f", "bytes", 5);
	assert_int_equal(io_open(folder.fd, "f", &fd, &status), 0);
	assert_int_equal(status.st_size, 5);
	assert_int_equal(io_read(fd, data, 5, 0), 0);
	assert_memory_equal(data, "bytes", 5);
	close(fd);
	mkdirat(folder.fd, "d", 0755);
	folder_write(&folder, "d/f", "x", 1);
	check_open("d/f", 0);
	check_open("d/../f", 0);
}

static void other_things_are_not_opened(void **state)
{
	(void)state;
	mkdirat(folder.fd, "d", 0755);
	assert_int_equal(mkfifoat(folder.fd, "fifo", 0644), 0);
	check_open("missing", -ENOENT);
	check_open("d/missing", -ENOENT);
	check_open("", -ENOENT);
	check_open("d", -EINVAL);
	check_open(".", -EINVAL);
	/* Without waiting for a writer. */
	check_open("fifo", -EINVAL);
	folder_write(&folder, "f", "x", 1);
	check_open("f/x", -ENOTDIR);
}

static void nothing_outside_of_the_folder(void **state)
{
	(void)state;
	folder_write(&folder, "f", "x", 1);
	mkdirat(folder.fd, "d", 0755);
	assert_int_equal(symlinkat("../f", folder.fd, "d/inside"), 0);
	assert_int_equal(symlinkat("../../f", folder.fd, "d/outside"), 0);
	assert_int_equal(symlinkat("/etc/passwd", folder.fd, "absolute"), 0);
	assert_int_equal(symlinkat("/", folder.fd, "root"), 0);
	assert_int_equal(symlinkat("loop", folder.fd, "loop"), 0);
	check_open("d/inside", 0);
	check_open("d/outside", -EXDEV);
	check_open("absolute", -EXDEV);
	check_open("root/etc/passwd", -EXDEV);
	check_open("/etc/passwd", -EXDEV);
	check_open("../x", -EXDEV);
	check_open("loop", -ELOOP);
}

/* Only links of that form, to a file, not to another link. */
static void blobs_of_a_snapshot(void **state)
{
	struct stat status;
	int outer = folder.fd, fd;

	(void)state;
	mkdirat(outer, "blobs", 0755);
	mkdirat(outer, "snapshots", 0755);
	mkdirat(outer, "snapshots/1", 0755);
	mkdirat(outer, "blobs/d0", 0755);
	folder_write(&folder, "blobs/0af", "blob", 4);
	folder_write(&folder, "blobs/x", "blob", 4);
	folder.fd = openat(outer, "snapshots/1", O_RDONLY | O_DIRECTORY);
	assert_int_equal(symlinkat("0af", outer, "blobs/11"), 0);
	assert_int_equal(symlinkat("../../blobs/0af", folder.fd, "good"), 0);
	assert_int_equal(symlinkat("../../blobs/x", folder.fd, "name"), 0);
	assert_int_equal(symlinkat("../../blobs/11", folder.fd, "link"), 0);
	assert_int_equal(symlinkat("../../blobs/d0", folder.fd, "folder"), 0);
	assert_int_equal(symlinkat("../../blobs/ab", folder.fd, "none"), 0);
	assert_int_equal(symlinkat("../../blobs/../a", folder.fd, "up"), 0);
	assert_int_equal(symlinkat("../../blobs/", folder.fd, "all"), 0);
	check_open("good", 0);
	assert_int_equal(io_open(folder.fd, "good", &fd, &status), 0);
	assert_int_equal(status.st_size, 4);
	close(fd);
	check_open("name", -EXDEV);
	check_open("link", -ELOOP);
	check_open("folder", -EINVAL);
	check_open("none", -ENOENT);
	check_open("up", -EXDEV);
	check_open("all", -EXDEV);
	assert_int_equal(io_open_linked(folder.fd, "link", &fd, &status), 0);
	close(fd);
	assert_int_equal(io_open_linked(folder.fd, "folder", &fd, &status),
			 -EINVAL);
	close(folder.fd);
	folder.fd = outer;
}

static void folders(void **state)
{
	int fd = -77;

	(void)state;
	mkdirat(folder.fd, "d", 0755);
	folder_write(&folder, "f", "x", 1);
	assert_int_equal(io_open_folder(folder.fd, "d", &fd), 0);
	close(fd);
	fd = -77;
	assert_int_equal(io_open_folder(folder.fd, "f", &fd), -ENOTDIR);
	assert_int_equal(io_open_folder(folder.fd, "..", &fd), -EXDEV);
	assert_int_equal(io_open_folder(folder.fd, "missing", &fd), -ENOENT);
	assert_int_equal(fd, -77);
}

static void reads_are_full_or_an_error(void **state)
{
	struct stat status;
	char data[8] = "";
	int fd;

	(void)state;
	folder_write(&folder, "f", "01234567", 8);
	assert_int_equal(io_open(folder.fd, "f", &fd, &status), 0);
	assert_int_equal(io_read(fd, data, 3, 5), 0);
	assert_memory_equal(data, "567", 3);
	assert_int_equal(io_read(fd, data, 4, 5), -EIO);
	assert_int_equal(io_read(fd, data, 1, 8), -EIO);
	assert_int_equal(io_read(fd, data, 0, 100), 0);
	assert_int_equal(io_read(-1, data, 1, 0), -EBADF);
	close(fd);
}

static void inputs(void **state)
{
	struct input file, memory = input_memory("01234567", 8);
	struct stat status;
	char data[4];
	int fd;

	(void)state;
	folder_write(&folder, "f", "xxx01234567yyy", 14);
	assert_int_equal(io_open(folder.fd, "f", &fd, &status), 0);
	file = input_file(fd, 3, 8);
	assert_int_equal(file.size, 8);
	assert_int_equal(file.base, 3);
	assert_int_equal(memory.base, 0);
	assert_int_equal(file.read(&file, data, 4, 2), 0);
	assert_memory_equal(data, "2345", 4);
	memset(data, 0, 4);
	assert_int_equal(memory.read(&memory, data, 4, 2), 0);
	assert_memory_equal(data, "2345", 4);
	close(fd);
}

static struct pin pin_of(const char *name)
{
	struct stat status;

	assert_int_equal(io_stat(folder.fd, name, &status), 0);
	return pin_from_stat(&status);
}

static void pins_tell_files_apart(void **state)
{
	struct pin before, after, other;

	(void)state;
	folder_write(&folder, "a", "x", 1);
	folder_write(&folder, "b", "x", 1);
	before = pin_of("a");
	after = pin_of("a");
	other = pin_of("b");
	assert_true(pin_equal(&before, &after));
	assert_false(pin_equal(&before, &other));
	folder_poke(&folder, "a", 0, 'x');
	after = pin_of("a");
	assert_false(pin_equal(&before, &after));
	before = after;
	before.ctime ^= 1;
	assert_false(pin_equal(&before, &after));
	before = after;
	before.size++;
	assert_false(pin_equal(&before, &after));
	before = after;
	before.device++;
	assert_false(pin_equal(&before, &after));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(regular_files),
		TEST(other_things_are_not_opened),
		TEST(nothing_outside_of_the_folder),
		TEST(blobs_of_a_snapshot),
		TEST(folders),
		TEST(reads_are_full_or_an_error),
		TEST(inputs),
		TEST(pins_tell_files_apart),
	};

	return cmocka_run_group_tests_name("io", tests, NULL, NULL);
}
