/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/folder.h"
#include "support/placing.h"

#include "shard/base/io.h"
#include "shard/read/file_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COUNT = 40, LIMIT = 32 };

static struct test_folder folder;
static struct catalog *catalog;
static struct placement *placement;
static atomic_bool stale;
static struct file_cache *files;

static void name_of(unsigned index, char name[16])
{
	snprintf(name, 16, "file%u", index);
}

/* Files 0 to 39, of as many bytes as their number. */
static int setup(void **state)
{
	static unsigned char bytes[COUNT];
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	uint32_t i, index;

	(void)state;
	folder_make(&folder);
	for (i = 0; i < COUNT; i++) {
		char name[16];

		name_of(i, name);
		memset(bytes, (int)i, i);
		folder_write(&folder, name, bytes, i);
		assert_int_equal(catalog_builder_file(builder, name,
						      strlen(name), &index),
				 0);
	}
	catalog = catalog_out_finish(builder);
	placement = placing_folder(folder.fd, catalog);
	atomic_store(&stale, false);
	files = file_cache_create(placement, catalog, &stale);
	return files ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	file_cache_destroy(files);
	placement_destroy(placement);
	catalog_put(catalog);
	folder_remove(&folder);
	return 0;
}

static unsigned char first_byte(const struct cached_file *file)
{
	unsigned char byte = 0;

	assert_int_equal(io_read(file->fd, &byte, 1, 0), 0);
	return byte;
}

static void file_and_its_size(void **state)
{
	struct cached_file file;
	char data[7], expected[7];

	(void)state;
	memset(expected, 7, 7);
	assert_int_equal(file_cache_get(files, 7, false, &file), 0);
	assert_int_equal(file.size, 7);
	assert_int_equal(io_read(file.fd, data, 7, 0), 0);
	assert_memory_equal(data, expected, 7);
	assert_int_equal(file_cache_check(files, 7), 0);
	file_cache_put(files, 7);
	/* Nothing can be mapped of an empty one. */
	assert_int_equal(file_cache_get(files, 0, false, &file), 0);
	assert_int_equal(file.size, 0);
	file_cache_put(files, 0);
}

static void nowait_takes_only_what_is_open(void **state)
{
	struct cached_file file;

	(void)state;
	assert_int_equal(file_cache_get(files, 3, true, &file), -EAGAIN);
	assert_int_equal(file_cache_get(files, 3, false, &file), 0);
	file_cache_put(files, 3);
	assert_int_equal(file_cache_get(files, 3, true, &file), 0);
	file_cache_put(files, 3);
}

static void missing_file(void **state)
{
	struct cached_file file;

	(void)state;
	placement->files[5].count = 0;
	assert_int_equal(file_cache_get(files, 5, false, &file), -ENOENT);
	assert_false(atomic_load(&stale));
	assert_int_equal(file_cache_get(files, 6, false, &file), 0);
	file_cache_put(files, 6);
}

/* It is not handed out any more; what did not change is. */
static void check_stale(unsigned index)
{
	struct cached_file file;

	assert_int_equal(file_cache_get(files, index, false, &file), -ESTALE);
	assert_true(atomic_load(&stale));
	assert_int_equal(file_cache_get(files, index, false, &file), -ESTALE);
	assert_int_equal(file_cache_get(files, 20, false, &file), 0);
	file_cache_put(files, 20);
}

static void changed_before_it_is_opened(void **state)
{
	(void)state;
	folder_poke(&folder, "file5", 0, 'x');
	check_stale(5);
}

static void changed_while_it_is_open(void **state)
{
	struct cached_file file;

	(void)state;
	assert_int_equal(file_cache_get(files, 5, false, &file), 0);
	folder_poke(&folder, "file5", 0, 'x');
	assert_int_equal(file_cache_check(files, 5), -ESTALE);
	file_cache_put(files, 5);
	check_stale(5);
}

static void removed_before_it_is_opened(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(folder.fd, "file5", 0), 0);
	check_stale(5);
}

static void replaced_by_an_equal_file(void **state)
{
	(void)state;
	folder_write(&folder, "new", "\5\5\5\5\5", 5);
	assert_int_equal(renameat(folder.fd, "new", folder.fd, "file5"), 0);
	check_stale(5);
}

static void replaced_by_a_folder(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(folder.fd, "file5", 0), 0);
	assert_int_equal(mkdirat(folder.fd, "file5", 0755), 0);
	check_stale(5);
}

static void replaced_by_a_link_to_elsewhere(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(folder.fd, "file5", 0), 0);
	assert_int_equal(symlinkat("/etc/passwd", folder.fd, "file5"), 0);
	check_stale(5);
}

/* ---- what changes and is no change of bytes ------------------------------- */

static void check_open(unsigned index, const struct cached_file *file)
{
	assert_int_equal(file_cache_check(files, index), 0);
	assert_int_equal(first_byte(file), index);
	assert_false(atomic_load(&stale));
}

/* As retention does it. */
static void removed_while_it_is_open(void **state)
{
	struct cached_file file;

	(void)state;
	assert_int_equal(file_cache_get(files, 5, false, &file), 0);
	assert_int_equal(unlinkat(folder.fd, "file5", 0), 0);
	check_open(5, &file);
	check_open(5, &file);
	file_cache_put(files, 5);
	/* As long as nobody needs its descriptor. */
	assert_int_equal(file_cache_get(files, 5, true, &file), 0);
	check_open(5, &file);
	file_cache_put(files, 5);
}

static void covered_while_it_is_open(void **state)
{
	struct cached_file file;

	(void)state;
	assert_int_equal(file_cache_get(files, 5, false, &file), 0);
	folder_write(&folder, "new", "newer", 5);
	assert_int_equal(renameat(folder.fd, "new", folder.fd, "file5"), 0);
	check_open(5, &file);
	file_cache_put(files, 5);
}

/* The number of its links stays the same: only its name tells. */
static void renamed_while_it_is_open(void **state)
{
	struct cached_file file;

	(void)state;
	assert_int_equal(file_cache_get(files, 5, false, &file), 0);
	assert_int_equal(renameat(folder.fd, "file5", folder.fd, "trash"), 0);
	check_open(5, &file);
	assert_int_equal(renameat(folder.fd, "trash", folder.fd, "bin"), 0);
	check_open(5, &file);
	assert_int_equal(unlinkat(folder.fd, "bin", 0), 0);
	check_open(5, &file);
	file_cache_put(files, 5);
}

static void linked_and_of_another_mode(void **state)
{
	struct cached_file file;

	(void)state;
	assert_int_equal(file_cache_get(files, 5, false, &file), 0);
	assert_int_equal(linkat(folder.fd, "file5", folder.fd, "backup", 0), 0);
	check_open(5, &file);
	assert_int_equal(fchmodat(folder.fd, "file5", 0400, 0), 0);
	check_open(5, &file);
	file_cache_put(files, 5);
}

/* Also behind the back of one who has looked already. */
static void rewritten_after_it_was_removed(void **state)
{
	struct cached_file file;
	int fd = openat(folder.fd, "file5", O_WRONLY | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(file_cache_get(files, 5, false, &file), 0);
	assert_int_equal(unlinkat(folder.fd, "file5", 0), 0);
	check_open(5, &file);
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
	close(fd);
	assert_int_equal(file_cache_check(files, 5), -ESTALE);
	file_cache_put(files, 5);
	assert_int_equal(file_cache_get(files, 5, false, &file), -ESTALE);
	assert_true(atomic_load(&stale));
}

/* As rsync does it in place. */
static void rewritten_with_its_time_set_back(void **state)
{
	struct cached_file file;
	struct timespec times[2];
	struct stat status;

	(void)state;
	assert_int_equal(file_cache_get(files, 5, false, &file), 0);
	assert_int_equal(io_stat(folder.fd, "file5", &status), 0);
	folder_poke(&folder, "file5", 0, 'x');
	times[0] = status.st_atim;
	times[1] = status.st_mtim;
	assert_int_equal(utimensat(folder.fd, "file5", times, 0), 0);
	assert_int_equal(file_cache_check(files, 5), -ESTALE);
	file_cache_put(files, 5);
	check_stale(5);
}

/* ---- descriptors ---------------------------------------------------------- */

/* Few descriptors: those that nobody uses are closed again. */
static void idle_files_are_closed(void **state)
{
	struct rlimit limit, old;
	struct cached_file file, held;
	unsigned before = folder_count_descriptors(), round, i;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	limit = old;
	limit.rlim_cur = LIMIT;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(file_cache_get(files, 1, false, &held), 0);
	for (round = 0; round < 3; round++)
		for (i = 0; i < COUNT; i++) {
			assert_int_equal(file_cache_get(files, i, false, &file),
					 0);
			assert_int_equal(file.size, i);
			if (i > 0)
				assert_int_equal(first_byte(&file), i);
			file_cache_put(files, i);
			assert_true(folder_count_descriptors() - before <=
				    LIMIT / 2 + 1);
		}
	/* The one that is used was left alone. */
	assert_int_equal(first_byte(&held), 1);
	assert_int_equal(file_cache_check(files, 1), 0);
	file_cache_put(files, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

/* All but what is got or held, and what is closed is opened again. */
static void idle_files_are_closed_at_once(void **state)
{
	unsigned before = folder_count_descriptors(), i;
	struct cached_file file;

	(void)state;
	assert_int_equal(file_cache_hold(files, 1, false), 0);
	assert_int_equal(file_cache_get(files, 2, false, &file), 0);
	for (i = 3; i < COUNT; i++) {
		assert_int_equal(file_cache_get(files, i, false, &file), 0);
		file_cache_put(files, i);
	}
	assert_int_equal(folder_count_descriptors(), before + COUNT - 1);
	file_cache_close_idle(files);
	assert_int_equal(folder_count_descriptors(), before + 2);
	file_cache_release(files, 1);
	file_cache_put(files, 2);
	file_cache_close_idle(files);
	assert_int_equal(folder_count_descriptors(), before);
	assert_int_equal(file_cache_get(files, 3, false, &file), 0);
	assert_int_equal(first_byte(&file), 3);
	file_cache_put(files, 3);
}

static void no_descriptor_left(void **state)
{
	struct rlimit limit, old;
	struct cached_file file;
	unsigned i;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	limit = old;
	limit.rlim_cur = folder_count_descriptors() - 2;
	for (i = 0; i < 6; i++)
		assert_int_equal(file_cache_get(files, i, false, &file), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(file_cache_get(files, 30, false, &file), -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	/* It says nothing about the file. */
	assert_false(atomic_load(&stale));
	assert_int_equal(file_cache_get(files, 30, false, &file), 0);
	file_cache_put(files, 30);
	for (i = 0; i < 6; i++)
		file_cache_put(files, i);
}

static void *use_files(void *argument)
{
	struct dice dice = { (uint64_t)(uintptr_t)argument };
	uintptr_t wrong = 0;
	unsigned i;

	for (i = 0; i < 3000; i++) {
		uint32_t index = 1 + (uint32_t)dice_below(&dice, COUNT - 1);
		struct cached_file file;

		if (file_cache_get(files, index, false, &file)) {
			wrong++;
			continue;
		}
		wrong += file.size != index || first_byte(&file) != index;
		file_cache_put(files, index);
		if (i % 64 == 0)
			file_cache_close_idle(files);
	}
	return (void *)wrong;
}

static void many_threads(void **state)
{
	struct rlimit limit, old;
	pthread_t threads[4];
	uintptr_t i;
	void *wrong;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	limit = old;
	limit.rlim_cur = 2 * LIMIT;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_files,
						(void *)(i + 1)), 0);
	for (i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		assert_null(wrong);
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(file_and_its_size),
		TEST(nowait_takes_only_what_is_open),
		TEST(missing_file),
		TEST(changed_before_it_is_opened),
		TEST(changed_while_it_is_open),
		TEST(removed_before_it_is_opened),
		TEST(replaced_by_an_equal_file),
		TEST(replaced_by_a_folder),
		TEST(replaced_by_a_link_to_elsewhere),
		TEST(removed_while_it_is_open),
		TEST(covered_while_it_is_open),
		TEST(renamed_while_it_is_open),
		TEST(linked_and_of_another_mode),
		TEST(rewritten_after_it_was_removed),
		TEST(rewritten_with_its_time_set_back),
		TEST(idle_files_are_closed),
		TEST(idle_files_are_closed_at_once),
		TEST(no_descriptor_left),
		TEST(many_threads),
	};

	return cmocka_run_group_tests_name("files", tests, NULL, NULL);
}
