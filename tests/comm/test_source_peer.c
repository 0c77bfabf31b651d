/* SPDX-License-Identifier: Apache-2.0 */
/* Reads whose shards are on three ranks, against the bytes they were made of. */
#include "support/test.h"
#include "support/peer_store.h"

#include <errno.h>
#include <stdlib.h>

static bool has_hole(const struct box *selection, uint64_t offset,
		     uint64_t size)
{
	unsigned char *expected = malloc(size + 1);
	bool whole;

	assert_non_null(expected);
	whole = test_store_expect(&store, selection, offset, size, expected);
	free(expected);
	return !whole;
}

/* False: something is wrong. */
static bool check_random_range(struct dice *d, struct reply *reply)
{
	uint64_t element = dtype_info(store.world.dtype)->size;
	uint64_t whole, offset, size;
	struct box selection;
	bool right;
	int error;

	world_pick(d, &store.world.shape, &selection);
	whole = box_volume(&selection) * element;
	offset = dice_below(d, whole + 1);
	size = dice_below(d, whole - offset + 1);
	if (size == 0)
		offset -= offset % element;
	if (size > LIMIT_READ_SIZE)
		size = LIMIT_READ_SIZE;
	reply->takes_loans = dice_chance(d, 50);
	error = read_into(reply, &selection, offset, size);
	right = has_hole(&selection, offset, size) ? error == -EIO :
		error == 0 && is_right(reply, &selection, offset, size);
	reply_release(reply);
	return right;
}

static void check_worlds(const struct world_limits *limits, unsigned worlds,
			 unsigned ranges)
{
	struct world world;
	unsigned i;

	while (worlds-- > 0) {
		world_make(&world, limits, &dice);
		open_store(&world, dice_chance(&dice, 50), -1);
		for (i = 0; i < ranges; i++)
			assert_true(check_random_range(&dice, store.reply));
		close_store();
	}
}

static void small_tensors(void **state)
{
	const struct world_limits limits = {
		.ndim = 6, .volume = 300, .holes = 10, .overlaps = 20,
	};

	(void)state;
	check_worlds(&limits, 30, 8);
}

static void large_tensors(void **state)
{
	const struct world_limits limits = {
		.ndim = 3, .volume = 100000, .holes = 10, .overlaps = 20,
	};

	(void)state;
	check_worlds(&limits, 6, 5);
}

/* What the kernel gets is what has arrived. */
static void all_of_a_reply_is_lent(void **state)
{
	struct world world = rows_world(4, 16);
	struct engine_counters counters;

	(void)state;
	open_store(&world, true, 1);
	store.reply->takes_loans = true;
	assert_int_equal(read_range(0, store.size), 0);
	assert_non_null(store.reply->release);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	engine_count(ranks.rank[0].engine, &counters);
	assert_int_equal(counters.slots, 1);
	reply_release(store.reply);
	ranks_await_free(&ranks, 0);
	/* Whoever wants it in memory of his own has it there. */
	store.reply->takes_loans = false;
	assert_int_equal(read_range(0, store.size), 0);
	assert_null(store.reply->release);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	ranks_await_free(&ranks, 0);
	close_store();
}

/* Columns of 512 bytes. */
static void short_runs_are_not_lent(void **state)
{
	struct world world = { .dtype = DTYPE_F32, .part_count = 8 };
	unsigned i;

	(void)state;
	world.shape = BOX2(0, 0, 64, 1024);
	for (i = 0; i < 8; i++)
		world.parts[i] = BOX2(0, 128 * i, 64, 128);
	open_store(&world, true, 1);
	store.reply->takes_loans = true;
	assert_int_equal(read_range(0, store.size), 0);
	assert_null(store.reply->release);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	close_store();
}

/* The later part counts, whoever has it. */
static void overlaps_in_their_order(void **state)
{
	struct world world = { .dtype = DTYPE_F32, .part_count = 3 };
	unsigned i;

	(void)state;
	world.shape = BOX2(0, 0, 64, 1024);
	world.parts[0] = BOX2(0, 0, 64, 1024);
	world.parts[1] = BOX2(16, 0, 32, 1024);
	world.parts[2] = BOX2(24, 256, 8, 512);
	for (i = 0; i < 20; i++) {
		open_store(&world, true, -1);
		atomic_store(&spoils, true);
		assert_int_equal(read_range(0, store.size), 0);
		assert_true(is_right(store.reply, NULL, 0, store.size));
		close_store();
	}
}

struct reader {
	pthread_t thread;
	struct dice dice;
	bool right;
};

static void *run_reader(void *argument)
{
	struct reader *reader = argument;
	struct reply *reply = reply_create();
	unsigned i;

	reader->right = reply != NULL;
	for (i = 0; i < 15 && reader->right; i++)
		reader->right = check_random_range(&reader->dice, reply);
	reply_destroy(reply);
	return NULL;
}

static void many_threads(void **state)
{
	const struct world_limits limits = { .ndim = 3, .volume = 30000,
					     .overlaps = 20 };
	struct reader readers[6];
	struct world world;
	unsigned i;

	(void)state;
	world_make(&world, &limits, &dice);
	open_store(&world, true, -1);
	/* Only some know it yet. */
	atomic_store(&knows[1], false);
	for (i = 0; i < COUNT_OF(readers); i++) {
		readers[i].dice.state = dice_any(&dice);
		assert_int_equal(pthread_create(&readers[i].thread, NULL,
						run_reader, &readers[i]), 0);
	}
	for (i = 0; i < COUNT_OF(readers); i++) {
		assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
		assert_true(readers[i].right);
	}
	close_store();
}

int main(void)
{
#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, peer_store_start, peer_store_stop)
	const struct CMUnitTest tests[] = {
		TEST(small_tensors),
		TEST(large_tensors),
		TEST(all_of_a_reply_is_lent),
		TEST(short_runs_are_not_lent),
		TEST(overlaps_in_their_order),
		TEST(many_threads),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("source_peer", tests, NULL, NULL);
}
