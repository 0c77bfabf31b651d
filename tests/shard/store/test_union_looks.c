/* SPDX-License-Identifier: Apache-2.0 */
/* One look at the union after the other: ranks that do not answer meanwhile,
 * what is remembered of them, and what was just looked at. */
#include "support/test.h"
#include "support/union_fakes.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

/* ---- ranks that do not answer -------------------------------------------- */

static void what_it_had_at_the_last_look(void **state)
{
	(void)state;
	has(1, "a", S_IFREG, 10, 1);
	look();
	assert_int_equal(fakes[1].timeout_ms, 0);
	fakes[1].error = -EIO;
	look();
	check("a", 1, 1);
	assert_true(found->found);
	/* It is not waited for that long. */
	assert_int_equal(fakes[1].timeout_ms, 2000);
	look();
	check("a", 1, 1);
	/* It says that there is nothing. */
	fakes[1].error = -ENOENT;
	look();
	assert_int_equal(found->list.count, 0);
	fakes[1].error = -EIO;
	look();
	assert_int_equal(found->list.count, 0);
	/* It is back. */
	fakes[1].error = 0;
	look();
	check("a", 1, 1);
}

static void who_never_answered(void **state)
{
	(void)state;
	has(0, "a", S_IFREG, 10, 1);
	has(1, "b", S_IFREG, 10, 1);
	fakes[1].error = -EIO;
	look();
	assert_int_equal(found->list.count, 1);
	check("a", 0, 0);
	fakes[1].error = 0;
	look();
	assert_int_equal(found->list.count, 2);
}

/* Somebody else has looked before: the lowest of them counts. */
static void what_others_remember(void **state)
{
	const struct store_entry *entry;

	(void)state;
	has(0, "a", S_IFREG, 10, 1);
	fakes[1].error = -EIO;
	fakes[2].remembers = true;
	fakes[RANKS - 1].remembers = true;
	look();
	entry = check("remembered", 1, 1);
	assert_int_equal(entry->pin.size, 2);
	assert_int_equal(entry->pin.device, 11);
	assert_true(found->known[1]);
	/* From then on it is known, until its rank says something else. */
	fakes[2].recalls = 0;
	look();
	check("remembered", 1, 1);
	assert_int_equal(fakes[2].recalls, 0);
	fakes[1].error = 0;
	look();
	assert_int_equal(found->list.count, 1);
}

/* And what this one remembers. */
static void asked_for_what_it_remembers(void **state)
{
	struct array out = { .data = NULL };
	struct stored stored;
	size_t position = 0;

	(void)state;
	has(1, "a", S_IFREG, 10, 1);
	assert_int_equal(union_folders_recall(folders, "folder", 1, &out), -ENODATA);
	fakes[0].error = -EIO;
	look();
	assert_int_equal(union_folders_recall(folders, "folder", 0, &out), -ENODATA);
	assert_int_equal(union_folders_recall(folders, "other", 1, &out), -ENODATA);
	assert_int_equal(union_folders_recall(folders, "folder", RANKS, &out),
			 -ENODATA);
	assert_int_equal(union_folders_recall(folders, "folder", 2, &out), 0);
	assert_int_equal(out.size, 0);
	assert_int_equal(union_folders_recall(folders, "folder", 1, &out), 0);
	assert_true(stored_entry_next(out.data, out.size, &position, &stored));
	assert_int_equal(position, out.size);
	assert_memory_equal(stored.name, "a", 1);
	array_finish(&out);
}

static void this_rank_is_ending(void **state)
{
	(void)state;
	has(0, "a", S_IFREG, 10, 1);
	look();
	fakes[1].error = -ESHUTDOWN;
	put(found);
	found = NULL;
	assert_int_equal(union_folders_get(folders, "folder", true, &found),
			 -ESHUTDOWN);
	assert_null(found);
}

/* Who does not say what is in a file does not say that it is another. */
static void a_digest_that_does_not_come(void **state)
{
	(void)state;
	has(0, "a", S_IFREG, 10, 7);
	has(3, "a", S_IFREG, 10, 7);
	fakes[0].digest_error = -EIO;
	look();
	check("a", 0, 0);
	assert_int_equal(said_count, 0);
	fakes[0].digest_error = 0;
	look();
	check("a", 0, 3);
	assert_int_equal(said_count, 0);
}

/* ---- freshness ----------------------------------------------------------- */

static void what_was_just_looked_at(void **state)
{
	const struct timespec over = { 1, 50000000 };
	struct union_folder *again;

	(void)state;
	has(0, "a", S_IFREG, 10, 7);
	look();
	assert_int_equal(fakes[0].lists, 1);
	assert_int_equal(union_folders_get(folders, "folder", false, &again), 0);
	assert_ptr_equal(again, found);
	assert_int_equal(fakes[0].lists, 1);
	put(again);
	nanosleep(&over, NULL);
	assert_int_equal(union_folders_get(folders, "folder", false, &again), 0);
	assert_ptr_not_equal(again, found);
	assert_int_equal(fakes[0].lists, 2);
	put(again);
	/* The old one stays as it was. */
	check("a", 0, 0);
	/* Another folder is another one. */
	assert_int_equal(union_folders_get(folders, "", false, &again), 0);
	assert_int_equal(fakes[0].lists, 3);
	put(again);
}

static void finding(void **state)
{
	const struct store_entry *entry;
	struct union_folder *at = NULL;

	(void)state;
	has(0, "a", S_IFREG, 10, 7);
	assert_int_equal(union_folders_find(folders, "folder/a", &at, &entry), 0);
	assert_string_equal(entry->name, "a");
	assert_string_equal(at->path, "folder");
	assert_int_equal(union_folders_find(folders, "folder/b", &at, &entry),
			 -ENOENT);
	assert_int_equal(fakes[0].lists, 1);
	assert_int_equal(union_folders_find(folders, "a", &at, &entry), 0);
	assert_string_equal(at->path, "");
	assert_int_equal(fakes[0].lists, 2);
	put(at);
}

static void *look_often(void *wrong)
{
	struct union_folder *mine;
	unsigned i;

	for (i = 0; i < 300; i++) {
		if (union_folders_get(folders, i % 2 ? "x" : "folder", i % 3 == 0,
			       &mine)) {
			*(bool *)wrong = true;
			return NULL;
		}
		*(bool *)wrong |= mine->list.count != 1 ||
				  !store_list_find(&mine->list, "a");
		put(mine);
	}
	return NULL;
}

static void many_threads(void **state)
{
	pthread_t threads[4];
	bool wrong[4] = { false };
	unsigned i;

	(void)state;
	peers.count = 1;
	has(0, "a", S_IFREG, 10, 7);
	for (i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, look_often,
						&wrong[i]), 0);
	for (i = 0; i < COUNT_OF(threads); i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_false(wrong[i]);
	}
}

int main(void)
{
#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, union_setup, union_teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_it_had_at_the_last_look),
		TEST(who_never_answered),
		TEST(what_others_remember),
		TEST(asked_for_what_it_remembers),
		TEST(this_rank_is_ending),
		TEST(a_digest_that_does_not_come),
		TEST(what_was_just_looked_at),
		TEST(finding),
		TEST(many_threads),
	};

	return cmocka_run_group_tests_name("union_looks", tests, NULL, NULL);
}
