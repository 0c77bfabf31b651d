/* SPDX-License-Identifier: Apache-2.0 */
/* Reads from ranks that cannot, do not know, or must not be waited for. */
#include "support/test.h"
#include "support/peer_store.h"

#include <errno.h>

/* ---- no bytes ------------------------------------------------------------ */

static void who_must_not_wait(void **state)
{
	struct world world = rows_world(4, 16);

	(void)state;
	open_store(&world, true, 2);
	store.reply->nowait = true;
	assert_int_equal(read_range(0, 4096), -EAGAIN);
	assert_int_equal(store.reply->rank, 2);
	store.reply->nowait = false;
	assert_int_equal(read_range(0, 4096), 0);
	close_store();
}

static void a_dead_rank(void **state)
{
	struct world world = rows_world(4, 16);
	uint64_t began;

	(void)state;
	open_store(&world, true, 1);
	ranks_stop(&ranks, 1);
	ranks_await_state(&ranks, 0, 1, PEER_LEFT);
	began = ranks_now_ms();
	assert_int_equal(read_range(0, 4096), -EIO);
	store.reply->nowait = true;
	assert_int_equal(read_range(0, 4096), -EIO);
	assert_true(ranks_now_ms() - began < 1000);
	store.reply->nowait = false;
	close_store();
	/* All that others have is there. */
	open_store(&world, true, 2);
	assert_int_equal(read_range(0, store.size), 0);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	close_store();
	open_store(&world, true, 0);
	assert_int_equal(read_range(0, store.size), 0);
	close_store();
}

static void who_does_not_know_the_catalog(void **state)
{
	struct world world = rows_world(4, 16);

	(void)state;
	open_store(&world, true, 1);
	atomic_store(&knows[1], false);
	assert_int_equal(read_range(0, store.size), 0);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	assert_int_equal(atomic_load(&lessons), 1);
	assert_int_equal(read_range(0, store.size), 0);
	assert_int_equal(atomic_load(&lessons), 1);
	/* It does not help: once, not for ever. */
	atomic_store(&knows[1], false);
	atomic_store(&learns, false);
	assert_int_equal(read_range(0, store.size), -ESTALE);
	assert_int_equal(atomic_load(&lessons), 2);
	assert_true(atomic_load(&stale));
	/* It has another one. */
	atomic_store(&stale, false);
	atomic_store(&learn_error, -ESTALE);
	assert_int_equal(read_range(0, store.size), -ESTALE);
	assert_true(atomic_load(&stale));
	close_store();
}

/* Rank 1 has the first part and rank 2 some of the others; neither has looked.
 * Whom the next reads will ask is told to while the first one is read. */
static void who_will_be_asked_next(void **state)
{
	struct world world = rows_world(40, 1);
	const struct catalog_entry *entry;

	(void)state;
	open_store(&world, true, 2);
	entry = catalog_entry(store.catalog, 0);
	first_of(catalog_shard(store.catalog, entry, 0)->file)->rank = 1;
	atomic_store(&knows[1], false);
	atomic_store(&knows[2], false);
	assert_int_equal(read_range(0, 4096), 0);
	assert_true(is_right(store.reply, NULL, 0, 4096));
	/* Each once; its slot is free when it has been answered. */
	reply_release(store.reply);
	ranks_await_free(&ranks, 0);
	assert_int_equal(atomic_load(&lessons), 2);
	assert_true(atomic_load(&knows[2]));
	assert_int_equal(read_range(0, store.size), 0);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	assert_int_equal(atomic_load(&lessons), 2);
	/* And not again. */
	atomic_store(&knows[1], false);
	assert_int_equal(read_range(0, store.size), 0);
	reply_release(store.reply);
	ranks_await_free(&ranks, 0);
	assert_int_equal(atomic_load(&lessons), 3);
	close_store();
}

static void errors_of_ranks(void **state)
{
	static const struct {
		int theirs, ours;
		bool stale;
	} cases[] = {
		{ -EIO, -EIO, false }, { -EINVAL, -EIO, false },
		{ -EAGAIN, -EIO, false }, { -EACCES, -EIO, false },
		{ -ENOMEM, -ENOMEM, false },
		{ -EOPNOTSUPP, -EOPNOTSUPP, false },
		{ -ESTALE, -ESTALE, true },
	};
	struct world world = rows_world(4, 16);
	unsigned i;

	(void)state;
	open_store(&world, true, 1);
	for (i = 0; i < COUNT_OF(cases); i++) {
		atomic_store(&read_error, cases[i].theirs);
		assert_int_equal(read_range(0, store.size), cases[i].ours);
		assert_int_equal(atomic_load(&stale), cases[i].stale);
		assert_null(store.reply->release);
	}
	atomic_store(&read_error, 0);
	atomic_store(&cut, 1);
	assert_int_equal(read_range(0, store.size), -EIO);
	close_store();
}

/* Its owner has put another one in its place. */
static void a_file_that_is_another(void **state)
{
	struct world world = rows_world(4, 16);

	(void)state;
	open_store(&world, true, 1);
	first_of(0)->pin.size++;
	assert_int_equal(read_range(0, store.size), -ESTALE);
	assert_true(atomic_load(&stale));
	close_store();
	/* Nobody had it: it is for the source below to say so. */
	open_store(&world, true, 1);
	placed->files[0].count = store.placement->files[0].count = 0;
	assert_int_equal(read_range(0, store.size), -EIO);
	close_store();
}

/* ---- replicas ------------------------------------------------------------- */

static void check_all(void)
{
	assert_int_equal(read_range(0, store.size), 0);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	reply_release(store.reply);
}

static unsigned count_asked(unsigned rank)
{
	return atomic_exchange(&asked[rank], 0);
}

/* The nearest is asked, and nobody else. */
static void the_first_of_several(void **state)
{
	struct world world = rows_world(4, 16);

	(void)state;
	open_store(&world, true, 2);
	also_at(1);
	check_all();
	assert_true(count_asked(2) > 0);
	assert_int_equal(count_asked(1), 0);
	close_store();
}

static void one_that_is_another_now(void **state)
{
	struct world world = rows_world(4, 16);
	uint64_t i;

	(void)state;
	open_store(&world, true, 1);
	also_at(2);
	for (i = 0; i < placed->file_count; i++)
		first_of(i)->pin.ctime++;
	check_all();
	assert_true(count_asked(1) > 0);
	assert_true(count_asked(2) > 0);
	/* Somebody should look again. */
	assert_true(atomic_load(&stale));
	/* Nobody else: what the last one said. */
	for (i = 0; i < placed->file_count; i++)
		first_of(i)[1].pin.ctime++;
	assert_int_equal(read_range(0, store.size), -ESTALE);
	close_store();
}

static void one_that_does_not_know_it(void **state)
{
	struct world world = rows_world(4, 16);

	(void)state;
	open_store(&world, true, 1);
	also_at(2);
	atomic_store(&knows[1], false);
	atomic_store(&learns, false);
	check_all();
	assert_int_equal(atomic_load(&lessons), 1);
	close_store();
}

/* In the middle of a read, and then at once. */
static void one_that_is_gone(void **state)
{
	struct world world = rows_world(4, 16);

	(void)state;
	open_store(&world, true, 1);
	also_at(2);
	/* What it was asked before must not be worked on when all is over. */
	ranks_hold(&ranks, 1, true);
	ranks_kill(&ranks, 1);
	check_all();
	ranks_await_state(&ranks, 0, 1, PEER_LOST);
	count_asked(2);
	check_all();
	assert_true(count_asked(2) > 0);
	store.reply->nowait = true;
	assert_int_equal(read_range(0, store.size), -EAGAIN);
	assert_int_equal(store.reply->rank, 2);
	store.reply->nowait = false;
	ranks_stop(&ranks, 2);
	ranks_await_state(&ranks, 0, 2, PEER_LEFT);
	assert_int_equal(read_range(0, store.size), -EIO);
	close_store();
}

/* The own file was replaced; the other rank's was not. */
static void the_own_copy_is_gone(void **state)
{
	struct world world = rows_world(4, 16);

	(void)state;
	open_store(&world, true, 0);
	also_at(2);
	check_all();
	assert_int_equal(count_asked(2), 0);
	atomic_store(&own_is_gone, true);
	check_all();
	assert_true(count_asked(2) > 0);
	store.reply->nowait = true;
	assert_int_equal(read_range(0, store.size), -EAGAIN);
	store.reply->nowait = false;
	close_store();
	/* Nobody else has it. */
	open_store(&world, true, 0);
	atomic_store(&own_is_gone, true);
	assert_int_equal(read_range(0, store.size), -ESTALE);
	close_store();
}

/* ---- slots --------------------------------------------------------------- */

enum { SLOTS = 96 };

static struct engine_call hogs[SLOTS];

/* All slots but @left wait for rank 2. */
static void hog_slots(unsigned left)
{
	unsigned i;

	ranks_hold(&ranks, 2, true);
	for (i = 0; i < SLOTS - left; i++) {
		hogs[i] = (struct engine_call){
			.rank = 2, .service = SERVICE_LEARN, .payload = "",
			.patient = true,
		};
		assert_int_equal(engine_begin(ranks.rank[0].engine, &hogs[i],
					      1, true), 0);
	}
}

static void free_hogs(unsigned left)
{
	unsigned i;

	for (i = 0; i < SLOTS - left; i++)
		engine_end(ranks.rank[0].engine, &hogs[i]);
	ranks_hold(&ranks, 2, false);
}

/* Whatever is left is enough in the end. */
static void one_slot_is_left(void **state)
{
	struct world world = rows_world(40, 1);

	(void)state;
	open_store(&world, true, 1);
	store.reply->takes_loans = true;
	hog_slots(1);
	assert_int_equal(read_range(0, store.size), 0);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	assert_null(store.reply->release);
	/* What comes by one answer is lent. */
	assert_int_equal(read_range(0, 4096), 0);
	assert_non_null(store.reply->release);
	reply_release(store.reply);
	free_hogs(1);
	ranks_await_free(&ranks, 0);
	assert_int_equal(read_range(0, store.size), 0);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	close_store();
}

int main(void)
{
#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, peer_store_start, peer_store_stop)
	const struct CMUnitTest tests[] = {
		TEST(who_must_not_wait),
		TEST(a_dead_rank),
		TEST(who_does_not_know_the_catalog),
		TEST(who_will_be_asked_next),
		TEST(errors_of_ranks),
		TEST(a_file_that_is_another),
		TEST(the_first_of_several),
		TEST(one_that_is_another_now),
		TEST(one_that_does_not_know_it),
		TEST(one_that_is_gone),
		TEST(the_own_copy_is_gone),
		TEST(one_slot_is_left),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("source_peer_ranks", tests, NULL, NULL);
}
