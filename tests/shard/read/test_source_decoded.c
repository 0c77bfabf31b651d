/* SPDX-License-Identifier: Apache-2.0 */
/* Items behind stream extensions, read through a cache. */
#include "support/test.h"
#include "support/coded.h"
#include "support/zstd_out.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct dice dice;
static struct coded coded;

/* ---- random tensors ------------------------------------------------------ */

static struct coded_form any_form(struct dice *any, unsigned part)
{
	(void)part;
	return (struct coded_form){ .depth = (unsigned)dice_below(any, 4),
				    .forms = (unsigned)dice_below(any, 4) };
}

static void check_random_ranges(const struct coded *c, unsigned count)
{
	uint64_t element = dtype_info(c->store.world.dtype)->size;

	while (count-- > 0) {
		struct box selection;
		uint64_t whole, offset, size;

		world_pick(&dice, &c->store.world.shape, &selection);
		whole = box_volume(&selection) * element;
		offset = dice_below(&dice, whole + 1);
		size = dice_below(&dice, whole - offset + 1);
		if (size == 0)
			offset -= offset % element;
		if (size > LIMIT_READ_SIZE)
			size = LIMIT_READ_SIZE;
		coded_check(c, &selection, offset, size);
	}
}

/* @plain in a small cache: other layouts may take ten times as much. */
static void check_worlds(const struct world_limits *limits, unsigned worlds,
			 uint64_t cache_size, bool plain)
{
	unsigned before = folder_count_descriptors();
	struct decoded_cache *cache = decoded_cache_create(cache_size);
	unsigned i;

	assert_non_null(cache);
	for (i = 0; i < worlds; i++) {
		struct world world;

		world_make(&world, limits, &dice);
		coded_make(&coded, &world, plain, &dice, any_form);
		coded_open(&coded, cache);
		check_random_ranges(&coded, 15);
		coded_free(&coded);
	}
	decoded_cache_destroy(cache);
	assert_int_equal(folder_count_descriptors(), before);
}

static void small_tensors(void **state)
{
	const struct world_limits limits = {
		.ndim = 5, .volume = 300, .holes = 10, .overlaps = 15,
	};

	(void)state;
	check_worlds(&limits, 60, 1 << 22, false);
	check_worlds(&limits, 30, 30000, true);
}

static void large_tensors(void **state)
{
	const struct world_limits limits = {
		.ndim = 3, .volume = 60000, .holes = 10, .overlaps = 10,
	};

	(void)state;
	check_worlds(&limits, 6, 1 << 26, false);
	check_worlds(&limits, 6, 1 << 20, true);
}

/* ---- one tensor ---------------------------------------------------------- */

/* Part 0 is stored as it is, 1 and 3 are compressed once, 2 is compressed
 * twice. */
static struct coded_form usual_form(struct dice *any, unsigned part)
{
	static const struct coded_form forms[CODED_PARTS] = {
		{ .depth = 0 }, { .depth = 1, .forms = ZSTD_OUT_CHECKED },
		{ .depth = 2 }, { .depth = 1 },
	};

	(void)any;
	return forms[part];
}

static struct decoded_cache *the_cache;

static int setup(void **state)
{
	(void)state;
	coded_rows(&coded, &dice, usual_form);
	the_cache = decoded_cache_create(1 << 20);
	assert_non_null(the_cache);
	coded_open(&coded, the_cache);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	coded_free(&coded);
	decoded_cache_destroy(the_cache);
	return 0;
}

static void parts_side_by_side(void **state)
{
	(void)state;
	coded_check(&coded, NULL, 0, CODED_PARTS * CODED_PART_SIZE);
	coded_check(&coded, NULL, CODED_PART_SIZE - 3, 2 * CODED_PART_SIZE + 5);
	assert_int_equal(coded_read_part(&coded, 0), 0);
	assert_int_equal(coded_read_part(&coded, 1), 0);
}

static void nowait_decodes_nothing(void **state)
{
	struct reply *reply = coded.store.reply;

	(void)state;
	reply->nowait = true;
	assert_int_equal(coded_read_part(&coded, 1), -EAGAIN);
	reply->nowait = false;
	coded_check_part(&coded, 1);
	reply->nowait = true;
	coded_check_part(&coded, 1);
	assert_int_equal(coded_read_part(&coded, 2), -EAGAIN);
	assert_int_equal(reply->fault.error, 0);
	reply->nowait = false;
	coded_check_part(&coded, 2);
	/* Nor when the file is open: that of part 0 is that of part 3. */
	assert_string_equal(coded_path(&coded, 0), coded_path(&coded, 3));
	coded_check_part(&coded, 0);
	reply->nowait = true;
	coded_check_part(&coded, 0);
	assert_int_equal(coded_read_part(&coded, 3), -EAGAIN);
}

static void changed_file_is_stale(void **state)
{
	(void)state;
	coded_check_part(&coded, 1);
	coded_check_part(&coded, 0);
	folder_poke(&coded.store.folder, coded_path(&coded, 1), 10, 'x');
	assert_int_equal(coded_read_part(&coded, 1), -ESTALE);
	assert_true(atomic_load(&coded.stale));
	/* That of part 0 has not changed. */
	coded_check_part(&coded, 0);
	assert_int_equal(coded_read_part(&coded, 1), -ESTALE);
}

static void file_changed_before_the_first_read(void **state)
{
	(void)state;
	folder_poke(&coded.store.folder, coded_path(&coded, 2), 10, 'x');
	assert_int_equal(coded_read_part(&coded, 2), -ESTALE);
	assert_int_equal(coded.store.reply->fault.error, 0);
}

/* ---- caches that are shared ---------------------------------------------- */

static struct coded_form compressed(struct dice *any, unsigned part)
{
	(void)part;
	return (struct coded_form){ .depth = 1 + dice_chance(any, 20) };
}

/* Sources come and go; their items go with them. */
static void sources_that_go_away(void **state)
{
	struct decoded_cache *cache = decoded_cache_create(1 << 22);
	struct coded *other = calloc(1, sizeof(*other));
	unsigned i;

	(void)state;
	assert_true(cache && other);
	coded_open(&coded, cache);
	coded_check(&coded, NULL, 0, CODED_PARTS * CODED_PART_SIZE);
	for (i = 0; i < 5; i++) {
		unsigned before = folder_count_descriptors();

		coded_make(other, &coded.store.world, true, &dice, compressed);
		coded_open(other, cache);
		coded_check(other, NULL, 0, CODED_PARTS * CODED_PART_SIZE);
		coded_check(&coded, NULL, 0, CODED_PARTS * CODED_PART_SIZE);
		coded_free(other);
		assert_int_equal(folder_count_descriptors(), before);
	}
	coded_open(&coded, the_cache);
	decoded_cache_destroy(cache);
	free(other);
}

/* Each with a reply of its own; errors as a count. */
static void *read_any(void *argument)
{
	struct dice mine = { dice_mix((uintptr_t)argument) };
	struct reply *reply = reply_create();
	uint64_t whole = coded.store.size;
	uintptr_t wrong = !reply;
	unsigned i;

	for (i = 0; i < 150 && !wrong; i++) {
		uint64_t offset = dice_below(&mine, whole);
		uint64_t size = 1 + dice_below(&mine, 20000);

		if (size > whole - offset)
			size = whole - offset;
		reply->nowait = dice_chance(&mine, 20);
		if (coded_read(&coded, reply, NULL, offset, size)) {
			wrong += !reply->nowait;
			continue;
		}
		wrong += memcmp(reply->data, coded.store.bytes + offset, size) !=
			 0;
	}
	reply_destroy(reply);
	return (void *)wrong;
}

static void read_in_threads(void)
{
	pthread_t threads[8];
	uintptr_t i, wrong = 0;
	void *result;

	for (i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_any,
						(void *)(i + dice.state)), 0);
	for (i = 0; i < COUNT_OF(threads); i++) {
		assert_int_equal(pthread_join(threads[i], &result), 0);
		wrong += (uintptr_t)result;
	}
	assert_int_equal(wrong, 0);
}

/* Items are evicted, and decoded again, while others are read. */
static void many_threads_and_little_room(void **state)
{
	struct world world = { .dtype = DTYPE_F32, .part_count = 32 };
	uint64_t size;
	unsigned i;

	(void)state;
	coded_free(&coded);
	world.shape = BOX2(0, 0, 64, 1024);
	for (i = 0; i < 32; i++)
		world.parts[i] = BOX2(2 * i, 0, 2, 1024);
	coded_make(&coded, &world, true, &dice, compressed);
	/* Room for one item, for five, for all. */
	for (size = 1 << 14; size <= 1 << 20; size *= 4) {
		struct decoded_cache *cache = decoded_cache_create(size);

		assert_non_null(cache);
		coded_open(&coded, cache);
		read_in_threads();
		coded_open(&coded, the_cache);
		decoded_cache_destroy(cache);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_tensors),
		cmocka_unit_test(large_tensors),
		TEST(parts_side_by_side),
		TEST(nowait_decodes_nothing),
		TEST(changed_file_is_stale),
		TEST(file_changed_before_the_first_read),
		TEST(sources_that_go_away),
		TEST(many_threads_and_little_room),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("source_decoded", tests, NULL,
					   NULL);
}
