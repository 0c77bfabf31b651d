/* SPDX-License-Identifier: Apache-2.0 */
/* A stored file that is open: it is read whatever becomes of its name, and what
 * its bytes were when it was opened is told from what they are. */
#include "support/test.h"
#include "support/folder.h"
#include "support/storing.h"

#include "shard/store/folder_store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct test_folder folder;
static struct store *store;
static struct stored_file *file;	/* "file", which has "old text" */
static unsigned descriptors;

static void write_text(const char *path, const char *text)
{
	folder_write(&folder, path, text, strlen(text));
}

static struct stored_file *open_path(const char *path)
{
	struct stored_file *opened;

	assert_int_equal(store->open(store, store_path_in(NULL, path),
				     &opened), 0);
	return opened;
}

static int setup(void **state)
{
	(void)state;
	descriptors = folder_count_descriptors();
	folder_make(&folder);
	store = folder_store_create(fcntl(folder.fd, F_DUPFD_CLOEXEC, 0));
	assert_non_null(store);
	write_text("file", "old text");
	file = open_path("file");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	file->close(file);
	store->destroy(store);
	folder_remove(&folder);
	assert_int_equal(folder_count_descriptors(), descriptors);
	return 0;
}

/* Times are those of a clock that ticks every few milliseconds: what comes
 * after is to have a later one. */
static void let_it_tick(void)
{
	const struct timespec tick = { 0, 20000000 };

	nanosleep(&tick, NULL);
}

static void set_mtime(const char *path, struct timespec mtime)
{
	const struct timespec times[2] = { { 0, UTIME_OMIT }, mtime };

	assert_int_equal(utimensat(folder.fd, path, times, 0), 0);
}

static void check_text(bool exact, const char *text)
{
	char got[STORING_TEXT];

	assert_int_equal(storing_read(file, exact, got), 0);
	assert_string_equal(got, text);
}

/* Its bytes are those that it had. */
static void check_same(nlink_t links)
{
	struct stat status;

	check_text(true, "old text");
	assert_int_equal(file->status(file, true, &status), 0);
	assert_int_equal(status.st_nlink, links);
	assert_int_equal(status.st_size, 8);
	assert_int_equal(status.st_ino, file->pin.inode);
}

/* They are not, whatever comes; who asks for what it is now has @text. */
static void check_changed(const char *text)
{
	char got[STORING_TEXT];
	struct stat status;

	assert_int_equal(storing_read(file, true, got), -ESTALE);
	assert_int_equal(file->status(file, true, &status), -ESTALE);
	check_text(false, text);
	assert_int_equal(file->status(file, false, &status), 0);
	assert_int_equal(status.st_size, strlen(text));
}

/* ---- reading ------------------------------------------------------------- */

static uint64_t read_at(uint64_t offset, uint64_t size, char *text)
{
	struct reply *reply = reply_create();
	uint64_t got;

	assert_non_null(reply);
	assert_int_equal(reply_begin(reply, text, size), 0);
	assert_int_equal(file->read(file, offset, true, reply), 0);
	got = reply->size;
	reply_destroy(reply);
	return got;
}

static void ranges(void **state)
{
	char text[9] = "xxxxxxxx";

	(void)state;
	assert_int_equal(read_at(4, 3, text), 3);
	assert_string_equal(text, "texxxxxx");
	assert_int_equal(read_at(6, 8, text), 2);
	assert_string_equal(text, "xtxxxxxx");
	assert_int_equal(read_at(8, 8, text), 0);
	assert_int_equal(read_at(UINT64_C(1) << 40, 8, text), 0);
	assert_int_equal(read_at(0, 0, text), 0);
	assert_string_equal(text, "xtxxxxxx");
}

static void an_empty_file(void **state)
{
	char got[STORING_TEXT];
	struct stored_file *empty;

	(void)state;
	write_text("empty", "");
	empty = open_path("empty");
	assert_int_equal(empty->pin.size, 0);
	assert_int_equal(storing_read(empty, true, got), 0);
	assert_string_equal(got, "");
	empty->close(empty);
}

/* ---- its name ------------------------------------------------------------ */

static void its_name_is_removed(void **state)
{
	(void)state;
	check_same(1);
	let_it_tick();
	assert_int_equal(unlinkat(folder.fd, "file", 0), 0);
	check_same(0);
	/* Another one of its name, of the same size, is not it. */
	write_text("file", "new text");
	check_same(0);
	storing_check(store, store_path_in(NULL, "file"), "new text");
}

static void its_name_is_changed(void **state)
{
	(void)state;
	let_it_tick();
	assert_int_equal(renameat(folder.fd, "file", folder.fd, "moved"), 0);
	check_same(1);
	let_it_tick();
	assert_int_equal(renameat(folder.fd, "moved", folder.fd, "again"), 0);
	check_same(1);
}

static void its_name_is_covered(void **state)
{
	(void)state;
	write_text("other", "new text");
	let_it_tick();
	assert_int_equal(renameat(folder.fd, "other", folder.fd, "file"), 0);
	check_same(0);
	storing_check(store, store_path_in(NULL, "file"), "new text");
}

static void its_folder_is_removed(void **state)
{
	struct stored_file *deep;
	char got[STORING_TEXT];

	(void)state;
	assert_int_equal(mkdirat(folder.fd, "a", 0755), 0);
	write_text("a/deep", "deep");
	deep = open_path("a/deep");
	let_it_tick();
	assert_int_equal(unlinkat(folder.fd, "a/deep", 0), 0);
	assert_int_equal(unlinkat(folder.fd, "a", AT_REMOVEDIR), 0);
	assert_int_equal(storing_read(deep, true, got), 0);
	assert_string_equal(got, "deep");
	deep->close(deep);
}

/* ---- what is no other content -------------------------------------------- */

static void other_links_and_modes(void **state)
{
	struct stat status;

	(void)state;
	let_it_tick();
	assert_int_equal(linkat(folder.fd, "file", folder.fd, "second", 0),
			 0);
	check_same(2);
	let_it_tick();
	assert_int_equal(fchmodat(folder.fd, "file", 0600, 0), 0);
	check_same(2);
	assert_int_equal(file->status(file, true, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	let_it_tick();
	assert_int_equal(unlinkat(folder.fd, "second", 0), 0);
	check_same(1);
	/* And then it is rewritten. */
	let_it_tick();
	write_text("file", "new text");
	check_changed("new text");
}

/* ---- what is ------------------------------------------------------------- */

static void rewritten_in_place(void **state)
{
	(void)state;
	let_it_tick();
	write_text("file", "new text");
	check_changed("new text");
	/* For good. */
	let_it_tick();
	write_text("file", "old text");
	check_changed("old text");
	/* Who opens it now has it. */
	storing_check(store, store_path_in(NULL, "file"), "old text");
}

static void one_byte(void **state)
{
	struct timespec before;
	struct stat status;

	(void)state;
	assert_int_equal(file->status(file, true, &status), 0);
	before = status.st_mtim;
	let_it_tick();
	folder_poke(&folder, "file", 0, 'O');
	/* As cp -p and rsync do. */
	set_mtime("file", before);
	check_changed("Old text");
	/* For good: a mode does not explain it any more. */
	let_it_tick();
	assert_int_equal(fchmodat(folder.fd, "file", 0600, 0), 0);
	check_changed("Old text");
}

/* It is changed, and nobody looks before it has no name either. */
static void rewritten_and_removed(void **state)
{
	(void)state;
	let_it_tick();
	write_text("file", "new text");
	assert_int_equal(unlinkat(folder.fd, "file", 0), 0);
	check_changed("new text");
}

static void grown(void **state)
{
	(void)state;
	let_it_tick();
	write_text("file", "old text and more");
	check_changed("old text and more");
}

static void cut(void **state)
{
	(void)state;
	let_it_tick();
	write_text("file", "old");
	check_changed("old");
}

/* ---- as bytes to parse --------------------------------------------------- */

enum { LARGE = 3 * LIMIT_READ_SIZE + 5 };

static void to_parse(void **state)
{
	unsigned char *bytes = malloc(LARGE), *got = calloc(1, LARGE);
	struct stored_file *large;
	struct input input;
	int failed = 0;
	size_t i;

	(void)state;
	assert_non_null(bytes);
	assert_non_null(got);
	for (i = 0; i < LARGE; i++)
		bytes[i] = (unsigned char)(i * 7 + i / 251);
	folder_write(&folder, "large", bytes, LARGE);
	large = open_path("large");
	input = stored_file_input(large, &failed);
	assert_int_equal(input.size, LARGE);
	assert_int_equal(input.read(&input, got, LARGE, 0), 0);
	assert_memory_equal(got, bytes, LARGE);
	assert_int_equal(input.read(&input, got, 1000, LARGE - 1000), 0);
	assert_memory_equal(got, bytes + LARGE - 1000, 1000);
	input.base = 3;
	assert_int_equal(input.read(&input, got, 10, 1), 0);
	assert_memory_equal(got, bytes + 4, 10);
	assert_int_equal(failed, 0);
	/* It is another one: that is no damage of what is parsed. */
	let_it_tick();
	folder_poke(&folder, "large", 0, 1);
	assert_int_equal(input.read(&input, got, 10, 0), -ESTALE);
	assert_int_equal(failed, -ESTALE);
	large->close(large);
	free(bytes);
	free(got);
}

/* ---- threads ------------------------------------------------------------- */

static void *read_often(void *wrong)
{
	char got[STORING_TEXT];
	unsigned i;

	for (i = 0; i < 300; i++)
		*(bool *)wrong |= storing_read(file, true, got) != 0 ||
				  strcmp(got, "old text") != 0;
	return NULL;
}

static void read_at_once(void)
{
	pthread_t threads[4];
	bool wrong[4] = { false };
	unsigned i;

	for (i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_often,
						&wrong[i]), 0);
	for (i = 0; i < COUNT_OF(threads); i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_false(wrong[i]);
	}
}

static void many_threads(void **state)
{
	(void)state;
	read_at_once();
	/* Now all of them see that it was moved. */
	let_it_tick();
	assert_int_equal(renameat(folder.fd, "file", folder.fd, "moved"), 0);
	read_at_once();
	let_it_tick();
	assert_int_equal(unlinkat(folder.fd, "moved", 0), 0);
	read_at_once();
}

static atomic_bool enough;

static void *read_on(void *wrong)
{
	char got[STORING_TEXT];

	while (!atomic_load(&enough))
		*(bool *)wrong |= storing_read(file, true, got) != 0 ||
				  strcmp(got, "old text") != 0;
	return NULL;
}

/* A look may fall between a later ctime and the links that explain it. */
static void names_come_while_it_is_read(void **state)
{
	pthread_t threads[4];
	bool wrong[4] = { false };
	char name[16];
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_on,
						&wrong[i]), 0);
	for (i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "name%u", i);
		assert_int_equal(linkat(folder.fd, "file", folder.fd, name, 0),
				 0);
	}
	atomic_store(&enough, true);
	for (i = 0; i < COUNT_OF(threads); i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_false(wrong[i]);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(ranges),
		TEST(an_empty_file),
		TEST(its_name_is_removed),
		TEST(its_name_is_changed),
		TEST(its_name_is_covered),
		TEST(its_folder_is_removed),
		TEST(other_links_and_modes),
		TEST(rewritten_in_place),
		TEST(one_byte),
		TEST(rewritten_and_removed),
		TEST(grown),
		TEST(cut),
		TEST(to_parse),
		TEST(many_threads),
		TEST(names_come_while_it_is_read),
	};

	return cmocka_run_group_tests_name("local_file", tests, NULL, NULL);
}
