/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "shard/read/reply.h"

#include <pthread.h>
#include <string.h>

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

static void memory_of_who_asks(void **state)
{
	struct reply *reply = *state;
	unsigned char room[10];

	assert_int_equal(reply_begin(reply, room, sizeof(room)), 0);
	assert_ptr_equal(reply->data, room);
	assert_int_equal(reply->size, sizeof(room));
	assert_null(reply->buffer);
}

static void memory_of_its_own_stays(void **state)
{
	struct reply *reply = *state;
	unsigned char *first, room[10];

	assert_int_equal(reply_begin(reply, NULL, LIMIT_READ_SIZE), 0);
	first = reply->data;
	memset(first, 1, LIMIT_READ_SIZE);
	memset(reply_window(reply), 2, LIMIT_READ_SIZE);
	memset(reply_elements(reply), 3, LIMIT_READ_SIZE);
	assert_int_equal(first[LIMIT_READ_SIZE - 1], 1);
	assert_int_equal(reply_window(reply)[LIMIT_READ_SIZE - 1], 2);
	assert_int_equal(reply_begin(reply, room, sizeof(room)), 0);
	assert_int_equal(reply_begin(reply, NULL, 1), 0);
	assert_ptr_equal(reply->data, first);
}

/* What one read says is gone with the next. */
static void nothing_stays_of_the_last_one(void **state)
{
	struct reply *reply = *state;

	assert_int_equal(reply_begin(reply, NULL, 8), 0);
	reply->base = 4;
	reply->rank = 3;
	reply->fault.error = -5;
	assert_int_equal(reply_begin(reply, NULL, 8), 0);
	assert_int_equal(reply->base, 0);
	assert_int_equal(reply->rank, REPLY_LOCAL);
	assert_int_equal(reply->fault.error, 0);
}

static void count(void *context, void *loan)
{
	assert_string_equal(loan, "lent");
	++*(unsigned *)context;
}

/* Given back once, whoever ends the reading. */
static void loans(void **state)
{
	struct reply *reply = *state, *other = reply_create();
	char lent[] = "lent";
	unsigned back = 0;

	assert_non_null(other);
	reply->takes_loans = other->takes_loans = true;
	assert_int_equal(reply_begin(reply, NULL, 4), 0);
	reply_lend(reply, lent, count, &back, lent);
	assert_ptr_equal(reply->data, lent);
	assert_int_equal(back, 0);
	reply_release(reply);
	reply_release(reply);
	assert_int_equal(back, 1);
	reply_lend(reply, lent, count, &back, lent);
	assert_int_equal(reply_begin(reply, NULL, 4), 0);
	assert_ptr_not_equal(reply->data, lent);
	assert_int_equal(back, 2);
	reply_lend(other, lent, count, &back, lent);
	reply_destroy(other);
	assert_int_equal(back, 3);
	/* Nobody waits for it. */
	reply_lend(reply, lent, NULL, NULL, NULL);
	reply_release(reply);
}

static void *find_own(void *unused)
{
	struct reply *reply = reply_of_thread();

	(void)unused;
	assert_non_null(reply);
	assert_int_equal(reply_begin(reply, NULL, 1), 0);
	assert_ptr_equal(reply_of_thread(), reply);
	return reply;
}

/* The sanitizer sees whether it is freed. */
static void one_for_each_thread(void **state)
{
	struct reply *reply = reply_of_thread();
	pthread_t thread;
	void *other;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, find_own, NULL), 0);
	assert_int_equal(pthread_join(thread, &other), 0);
	assert_ptr_equal(reply_of_thread(), reply);
	assert_ptr_not_equal(other, reply);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(memory_of_who_asks),
		TEST(memory_of_its_own_stays),
		TEST(nothing_stays_of_the_last_one),
		TEST(loans),
		TEST(one_for_each_thread),
	};

	return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
