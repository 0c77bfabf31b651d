/* SPDX-License-Identifier: Apache-2.0 */
/* Files of ranks that are asked, and of those on this host, as the union opens
 * them: kept there, whatever becomes of their names. */
#include "support/test.h"
#include "support/homes.h"

#include "shard/store/remote_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct stored_file *open_path(const char *path)
{
	struct stored_file *file;

	assert_int_equal(united->open(united, store_path_in(NULL, path),
				      &file), 0);
	return file;
}

static void let_it_tick(void)
{
	const struct timespec tick = { 0, 20000000 };

	nanosleep(&tick, NULL);
}

/* It has the bytes that it had. */
static void check_same(struct stored_file *file, nlink_t links)
{
	char got[STORING_TEXT];
	struct stat status;

	assert_int_equal(storing_read(file, true, got), 0);
	assert_string_equal(got, "old text");
	assert_int_equal(file->status(file, true, &status), 0);
	assert_int_equal(status.st_nlink, links);
	assert_int_equal(status.st_size, 8);
}

static void check_changed(struct stored_file *file, const char *text)
{
	char got[STORING_TEXT];
	struct stat status;

	assert_int_equal(storing_read(file, true, got), -ESTALE);
	assert_int_equal(file->status(file, true, &status), -ESTALE);
	assert_int_equal(storing_read(file, false, got), 0);
	assert_string_equal(got, text);
	assert_int_equal(file->status(file, false, &status), 0);
	assert_int_equal(status.st_size, strlen(text));
}

/* ---- kept ---------------------------------------------------------------- */

static void check_kept(unsigned rank)
{
	struct stored_file *file;

	homes_write(rank, "file", "old text");
	file = open_path("file");
	assert_int_equal(file->rank, rank);
	assert_int_equal(homes_held, rank == FAR);
	check_same(file, 1);
	let_it_tick();
	homes_write(rank, "other", "new text");
	homes_rename(rank, "other", "file");
	check_same(file, 0);
	homes_check("file", "new text");
	file->close(file);
	assert_int_equal(homes_held, 0);
	file = open_path("file");
	homes_remove(rank, "file", 0);
	let_it_tick();
	assert_int_equal(storing_read(file, true, (char[STORING_TEXT]){ 0 }),
			 0);
	file->close(file);
}

static void its_name_goes(void **state)
{
	(void)state;
	check_kept(FAR);
}

static void its_name_goes_here(void **state)
{
	(void)state;
	check_kept(NEAR);
}

static void check_rewritten(unsigned rank)
{
	struct stored_file *file;

	homes_write(rank, "file", "old text");
	file = open_path("file");
	let_it_tick();
	homes_write(rank, "file", "new and longer");
	check_changed(file, "new and longer");
	file->close(file);
}

static void rewritten(void **state)
{
	(void)state;
	check_rewritten(FAR);
}

static void rewritten_here(void **state)
{
	(void)state;
	check_rewritten(NEAR);
}

/* A log that grows is opened as it is, a file of a
 * checkpoint as it was found. */
static void changed_since_the_look(void **state)
{
	static const unsigned ranks[] = { FAR, NEAR };
	struct store_folder *top = storing_folder(united, "");
	struct stored_file *file;
	struct store_list *list;
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(ranks); i++) {
		homes_write(ranks[i], "file", "old text");
		assert_int_equal(united->list(top, true, &list), 0);
		store_list_put(list);
		let_it_tick();
		homes_write(ranks[i], "file", "old text, and more");
		homes_check("file", "old text, and more");
		assert_int_equal(united->open_in(top, "file", &file), -ESTALE);
		homes_later(1000);
		assert_int_equal(united->open_in(top, "file", &file), 0);
		assert_int_equal(file->pin.size, 18);
		file->close(file);
		homes_remove(ranks[i], "file", 0);
	}
	store_folder_put(top);
}

/* ---- that cannot be kept ------------------------------------------------- */

static void had_by_its_name(void **state)
{
	struct stored_file *file, *none;
	char got[STORING_TEXT];
	struct stat status;

	(void)state;
	homes_hold_error = -EMFILE;
	homes_folder(FAR, "folder");
	homes_write(FAR, "file", "old text");
	file = open_path("file");
	assert_int_equal(homes_held, 0);
	check_same(file, 1);
	assert_int_equal(remote_file_open(&peers, FAR, "folder", NULL, &none),
			 -EINVAL);
	assert_int_equal(remote_file_open(&peers, FAR, "none", NULL, &none),
			 -ENOENT);
	/* It is another one then, or none. */
	homes_write(FAR, "other", "new text");
	homes_rename(FAR, "other", "file");
	assert_int_equal(storing_read(file, true, got), -ESTALE);
	assert_int_equal(file->status(file, false, &status), -ESTALE);
	file->close(file);
	homes_hold_error = -ENFILE;
	homes_check("file", "new text");
	homes_hold_error = -ENOMEM;
	homes_check_error("file", -ENOMEM);
}

/* ---- a rank that does not answer ----------------------------------------- */

static void what_reading_ends_with(void **state)
{
	static const struct {
		int asked, got;
	} cases[] = {
		{ -EIO, -EIO }, { -EPROTO, -EIO }, { -ETIMEDOUT, -EIO },
		{ -ESTALE, -ESTALE }, { -ENOMEM, -ENOMEM },
		{ -ESHUTDOWN, -ESHUTDOWN },
	};
	struct stored_file *file;
	char got[STORING_TEXT];
	unsigned i;

	(void)state;
	homes_write(FAR, "file", "old text");
	file = open_path("file");
	for (i = 0; i < COUNT_OF(cases); i++) {
		fakes[FAR].error = cases[i].asked;
		assert_int_equal(storing_read(file, true, got), cases[i].got);
	}
	fakes[FAR].error = 0;
	check_same(file, 1);
	file->close(file);
}

/* Who must not wait is told for whom it would. */
static void without_waiting(void **state)
{
	struct reply *reply = reply_create();
	struct stored_file *file;
	char text[8];

	(void)state;
	assert_non_null(reply);
	homes_write(FAR, "file", "old text");
	file = open_path("file");
	assert_int_equal(reply_begin(reply, text, sizeof(text)), 0);
	reply->nowait = true;
	assert_int_equal(file->read(file, 0, true, reply), -EAGAIN);
	assert_int_equal(reply->rank, FAR);
	reply->nowait = false;
	assert_int_equal(file->read(file, 4, true, reply), 0);
	assert_int_equal(reply->size, 4);
	assert_memory_equal(text, "text", 4);
	file->close(file);
	reply_destroy(reply);
}

static int nonsense(struct peers *p, unsigned rank, const char *path,
		    struct array *out)
{
	(void)p;
	(void)rank;
	(void)path;
	return array_append(out, "nonsense", 8);
}

static void status_of_a_path(void **state)
{
	struct pin pin;
	struct stat real;

	(void)state;
	homes_write(FAR, "file", "old text");
	assert_int_equal(fstatat(homes[FAR].fd, "file", &real, 0), 0);
	assert_int_equal(remote_file_status(&peers, FAR, "file", &pin), 0);
	assert_int_equal(pin.inode, real.st_ino);
	assert_int_equal(remote_file_status(&peers, FAR, "none", &pin),
			 -ENOENT);
	peers.status = nonsense;
	assert_int_equal(remote_file_status(&peers, FAR, "file", &pin), -EIO);
}

int main(void)
{
#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, homes_setup, homes_teardown)
	const struct CMUnitTest tests[] = {
		TEST(its_name_goes),
		TEST(its_name_goes_here),
		TEST(rewritten),
		TEST(rewritten_here),
		TEST(changed_since_the_look),
		TEST(had_by_its_name),
		TEST(what_reading_ends_with),
		TEST(without_waiting),
		TEST(status_of_a_path),
	};

	return cmocka_run_group_tests_name("remote_file", tests, NULL, NULL);
}
