/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Items behind stream extensions are read while the n-th call of a sort
 * fails, n going up until none does. Each time: the right errno, nothing half
 * made in the cache, no descriptor lost, nothing remembered that was not the
 * item's fault.
 */
#include "support/test.h"
#include "support/coded.h"
#include "support/fail.h"
#include "support/zstd_out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS = 3, PART_SIZE = 64 * 1024, TOO_MANY = 1000 };

static struct dice dice;
static struct coded coded;
static struct decoded_cache *cache;

static struct coded_form form(struct dice *any, unsigned part)
{
	(void)any;
	return (struct coded_form){ .depth = part, .forms = ZSTD_OUT_FRAMES };
}

static int setup(void **state)
{
	struct world world = { .dtype = DTYPE_I16, .part_count = PARTS };
	unsigned i;

	(void)state;
	world.shape = BOX2(0, 0, PARTS * 32, 1024);
	for (i = 0; i < PARTS; i++)
		world.parts[i] = BOX2(i * 32, 0, 32, 1024);
	coded_make(&coded, &world, false, &dice, form);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	coded_free(&coded);
	return 0;
}

/* A source and a cache of which nothing is known yet. */
static void start(void)
{
	cache = decoded_cache_create(1 << 20);
	assert_non_null(cache);
	coded_open(&coded, cache);
}

static void stop(void)
{
	coded_close(&coded);
	decoded_cache_destroy(cache);
}

static int read_all(void)
{
	return coded_read(&coded, coded.store.reply, NULL, 0,
			  PARTS * PART_SIZE);
}

static void check_all(void)
{
	static unsigned char found[PARTS * PART_SIZE];
	int error = read_all();

	if (error)
		fail_msg("after %s: %d", fail_name(), error);
	test_store_copy(&coded.store, found);
	assert_memory_equal(found, coded.store.bytes, sizeof(found));
	reply_release(coded.store.reply);
}

static int ignore_item(void *context, const struct input *input)
{
	(void)context;
	(void)input;
	return 0;
}

static int read_item(void)
{
	return source_decoded_item(coded.source, coded_shard(&coded, 2),
				   ignore_item, NULL);
}

/* @lasting: what fails is taken for a change of the file, once it is open. */
static void fail_each(int (*read)(void), unsigned groups, int expected,
		      bool lasting)
{
	unsigned before = folder_count_descriptors(), n;
	bool hit = true;

	for (n = 1; hit; n++) {
		int error;

		assert_true(n < TOO_MANY);
		start();
		if (lasting)
			source_file_check(coded.files,
					  coded_shard(&coded, 2)->file, false);
		fail_arm(groups, n);
		error = read();
		hit = fail_disarm();
		if (error && error != expected)
			fail_msg("call %u, %s: error %d, expected %d", n,
				 fail_name(), error, expected);
		assert_int_equal(coded.store.reply->fault.error, 0);
		if (lasting && error)
			coded_open(&coded, cache);
		check_all();
		stop();
		assert_int_equal(folder_count_descriptors(), before);
	}
	assert_true(n > 2);
	print_message("%u calls\n", n - 2);
}

static void memory(void **state)
{
	(void)state;
	fail_each(read_all, FAIL_MEMORY, -ENOMEM, false);
	fail_each(read_item, FAIL_MEMORY, -ENOMEM, false);
}

static void reading(void **state)
{
	(void)state;
	fail_each(read_all, FAIL_READ, -EIO, false);
	fail_each(read_item, FAIL_READ, -EIO, false);
}

static void opening(void **state)
{
	(void)state;
	fail_each(read_all, FAIL_OPEN, -EMFILE, false);
	fail_each(read_item, FAIL_OPEN, -EMFILE, false);
}

static void looking(void **state)
{
	(void)state;
	fail_each(read_item, FAIL_STATUS, -ESTALE, true);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(memory),
		TEST(reading),
		TEST(opening),
		TEST(looking),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("decoded_failures", tests, NULL,
					   NULL);
}
