/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"
#include "support/dice.h"

#include "shard/read/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char letters[] = "abcdefghijklmnopqrstuvwxyz";

static int setup(void **state)
{
	*state = reply_create();
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	reply_destroy(*state);
	return 0;
}

/* The bytes of the reply are those of @expected. */
static void check(struct reply *reply, uint64_t skip, const char *expected)
{
	size_t size = strlen(expected), at = 0;
	unsigned i;

	assert_int_equal(reply_finish(reply, skip, size), 0);
	for (i = 0; i < reply->iov_count; i++) {
		assert_true(reply->iov[i].iov_len > 0);
		assert_true(at + reply->iov[i].iov_len <= size);
		assert_memory_equal(reply->iov[i].iov_base, expected + at,
				    reply->iov[i].iov_len);
		at += reply->iov[i].iov_len;
	}
	assert_int_equal(at, size);
}

static void segments_in_any_order(void **state)
{
	struct reply *reply = *state;

	reply_begin(reply, 9);
	assert_int_equal(reply_borrow(reply, 6, "ghi", 3), 0);
	assert_int_equal(reply_borrow(reply, 0, "abc", 3), 0);
	assert_int_equal(reply_borrow(reply, 3, "def", 3), 0);
	check(reply, 0, "abcdefghi");
	assert_int_equal(reply->iov_count, 3);
}

static void neighbours_are_one_segment(void **state)
{
	struct reply *reply = *state;
	unsigned i;

	reply_begin(reply, 26);
	for (i = 0; i < 26; i++)
		assert_int_equal(reply_borrow(reply, i, letters + i, 1), 0);
	assert_int_equal(reply->segment_count, 1);
	check(reply, 0, letters);
	assert_int_equal(reply->iov_count, 1);
}

static void part_of_the_range(void **state)
{
	struct reply *reply = *state;

	reply_begin(reply, 9);
	assert_int_equal(reply_borrow(reply, 0, "abc", 3), 0);
	assert_int_equal(reply_borrow(reply, 3, "dxf", 3), 0);
	check(reply, 1, "bcdx");
	check(reply, 4, "x");
	check(reply, 3, "");
}

static void gaps_come_from_the_buffer(void **state)
{
	struct reply *reply = *state;
	unsigned char *buffer;

	reply_begin(reply, 8);
	buffer = reply_buffer(reply);
	assert_non_null(buffer);
	memcpy(buffer, "ABCDEFGH", 8);
	assert_int_equal(reply_borrow(reply, 5, "fg", 2), 0);
	assert_int_equal(reply_borrow(reply, 1, "bc", 2), 0);
	check(reply, 0, "AbcDEfgH");
	check(reply, 4, "EfgH");
	reply_begin(reply, 8);
	reply_buffer(reply);
	check(reply, 0, "ABCDEFGH");
}

static void gap_without_a_buffer_is_an_error(void **state)
{
	struct reply *reply = *state;

	reply_begin(reply, 4);
	assert_int_equal(reply_finish(reply, 0, 4), -EIO);
	assert_int_equal(reply_borrow(reply, 1, "bcd", 3), 0);
	assert_int_equal(reply_finish(reply, 0, 4), -EIO);
	assert_int_equal(reply_finish(reply, 1, 3), 0);
	assert_int_equal(reply_finish(reply, 1, 4), -EIO);
}

/* What an earlier range left in the buffer is not the next one's. */
static void buffer_of_the_last_range_is_void(void **state)
{
	struct reply *reply = *state;

	reply_begin(reply, 4);
	memcpy(reply_buffer(reply), "abcd", 4);
	check(reply, 0, "abcd");
	reply_begin(reply, 4);
	assert_int_equal(reply_finish(reply, 0, 4), -EIO);
}

static void too_many_segments(void **state)
{
	struct reply *reply = *state;
	unsigned i;

	reply_begin(reply, 4 * LIMIT_SEGMENTS);
	for (i = 0; i < LIMIT_SEGMENTS; i++)
		assert_int_equal(reply_borrow(reply, 2 * i, letters, 1), 0);
	assert_int_equal(reply_borrow(reply, 2 * i, letters, 1), -ENOBUFS);
	/* Gaps in between need room, too. */
	assert_non_null(reply_buffer(reply));
	assert_int_equal(reply_finish(reply, 0, 2 * LIMIT_SEGMENTS), -ENOBUFS);
	assert_int_equal(reply_finish(reply, 0, LIMIT_SEGMENTS), 0);
	assert_true(reply->iov_count <= LIMIT_SEGMENTS);
}

static unsigned released[LIMIT_SEGMENTS + 2];

static void release(void *context, uint64_t index)
{
	assert_ptr_equal(context, released);
	released[index]++;
}

static void holds_are_released_once(void **state)
{
	struct reply *reply = *state;
	unsigned i;

	memset(released, 0, sizeof(released));
	reply_begin(reply, 1);
	for (i = 0; i < LIMIT_SEGMENTS; i++)
		assert_int_equal(reply_hold(reply, release, released, i), 0);
	assert_int_equal(reply_hold(reply, release, released, i), -ENOBUFS);
	reply_release(reply);
	reply_release(reply);
	reply_begin(reply, 1);
	for (i = 0; i < LIMIT_SEGMENTS; i++)
		assert_int_equal(released[i], 1);
	assert_int_equal(released[LIMIT_SEGMENTS], 0);
	assert_int_equal(reply_hold(reply, release, released, 0), 0);
	reply_begin(reply, 1);
	assert_int_equal(released[0], 2);
}

static void random_segments(void **state)
{
	static char text[2000], expected[2001];
	struct reply *reply = *state;
	struct dice dice = dice_make();
	unsigned i, j, round;

	for (round = 0; round < 500; round++) {
		size_t size = 1 + dice_below(&dice, sizeof(text)), at = 0;
		uint64_t cuts[100][2];
		unsigned count = 0;

		for (i = 0; i < size; i++)
			text[i] = letters[dice_below(&dice, 26)];
		reply_begin(reply, size);
		memcpy(reply_buffer(reply), text, size);
		while (at < size && count < 100) {
			uint64_t step = 1 + dice_below(&dice, 60);

			step = step < size - at ? step : size - at;
			cuts[count][0] = at;
			cuts[count++][1] = step;
			at += step;
		}
		for (i = count; i > 0; i--) {
			j = (unsigned)dice_below(&dice, i);
			if (dice_chance(&dice, 70))
				assert_int_equal(reply_borrow(reply,
					cuts[j][0], text + cuts[j][0],
					cuts[j][1]), 0);
			memcpy(cuts[j], cuts[i - 1], sizeof(cuts[j]));
		}
		at = dice_below(&dice, size);
		j = (unsigned)dice_below(&dice, size - at);
		memcpy(expected, text + at, j);
		expected[j] = '\0';
		check(reply, at, expected);
	}
}

static void null_may_be_destroyed(void **state)
{
	(void)state;
	reply_destroy(NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(segments_in_any_order),
		TEST(neighbours_are_one_segment),
		TEST(part_of_the_range),
		TEST(gaps_come_from_the_buffer),
		TEST(gap_without_a_buffer_is_an_error),
		TEST(buffer_of_the_last_range_is_void),
		TEST(too_many_segments),
		TEST(holds_are_released_once),
		TEST(random_segments),
		TEST(null_may_be_destroyed),
	};

	return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
