/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is open here is kept by the rank that has it, for as long: until it is
 * closed, or who has it open is gone.
 */
#include "support/test.h"
#include "support/cat.h"
#include "support/sample.h"
#include "support/ways.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RANKS = 2, OWNER = 1 };

struct opened {
	uint64_t node, handle;
};

static int start(void **state)
{
	const struct mounts_options options = { .count = RANKS,
						.deadline_ms = 500 };

	(void)state;
	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	mounts_move(0, OWNER, "step", "__1_0.distcp");
	ways_put(OWNER, "d", "file", "of rank 1");
	mounts_start(&options);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

static struct opened open_path(const char *path)
{
	struct kernel *kernel = mounts_kernel(0);
	struct fuse_entry_out entry;
	struct fuse_open_out open;

	assert_int_equal(kernel_walk(kernel, path, &entry), 0);
	assert_int_equal(kernel_open(kernel, entry.nodeid, &open), 0);
	return (struct opened){ entry.nodeid, open.fh };
}

static void close_opened(const struct opened *opened)
{
	struct kernel *kernel = mounts_kernel(0);

	kernel_release(kernel, opened->node, opened->handle);
	kernel_forget(kernel, opened->node, 1);
}

static void check_text(const struct opened *opened, const char *text)
{
	struct fuse_attr_out attr;
	char data[64];
	size_t got;

	assert_int_equal(kernel_read(mounts_kernel(0), opened->node,
				     opened->handle, 0, sizeof(data), data,
				     &got), 0);
	assert_int_equal(got, strlen(text));
	assert_memory_equal(data, text, got);
	assert_int_equal(kernel_getattr(mounts_kernel(0), opened->node, &attr),
			 0);
	assert_int_equal(attr.attr.size, got);
}

/* Nobody waits for a rank to be told that it need not keep something. */
static void await_holds(unsigned count)
{
	const struct timespec nap = { 0, 1000000 };
	unsigned i;

	for (i = 0; i < 20000 && mounts_count_holds(OWNER) != count; i++)
		nanosleep(&nap, NULL);
	assert_int_equal(mounts_count_holds(OWNER), count);
}

static void remove_file(const char *path)
{
	assert_int_equal(unlinkat(mounts_stores[OWNER].fd, path, 0), 0);
}

static void a_file_until_it_is_closed(void **state)
{
	struct opened one = open_path("d/file"), other = open_path("d/file");

	(void)state;
	assert_int_equal(mounts_count_holds(OWNER), 2);
	remove_file("d/file");
	check_text(&one, "of rank 1");
	close_opened(&one);
	await_holds(1);
	check_text(&other, "of rank 1");
	close_opened(&other);
	await_holds(0);
}

/* A file that may grow is what it is now. */
static void a_file_that_grows(void **state)
{
	struct opened opened = open_path("d/file");

	(void)state;
	ways_put(OWNER, "d", "file", "of rank 1, and more");
	check_text(&opened, "of rank 1, and more");
	close_opened(&opened);
}

/* Once for all of its views. */
static void a_checkpoint_until_all_is_closed(void **state)
{
	struct opened one = open_path(WAYS_VIEWS "tensors/w");
	struct opened other = open_path(WAYS_VIEWS "npy/w[40].npy");
	struct opened here = open_path(WAYS_VIEWS "tensors/w[0:32]");

	(void)state;
	assert_int_equal(mounts_count_holds(OWNER), 1);
	close_opened(&one);
	close_opened(&other);
	/* Which files a part of a tensor is in is not looked at. */
	close_opened(&here);
	await_holds(0);
	one = open_path(WAYS_VIEWS "tensors/w");
	assert_int_equal(mounts_count_holds(OWNER), 1);
	close_opened(&one);
	await_holds(0);
}

static void until_who_wants_it_is_gone(void **state)
{
	(void)state;
	open_path("d/file");
	open_path(WAYS_VIEWS "tensors/w");
	assert_int_equal(mounts_count_holds(OWNER), 2);
	mounts_leave(0);
	await_holds(0);
}

/* While it does not answer, it cannot be told; it is later. */
static void a_rank_that_does_not_answer(void **state)
{
	struct opened one = open_path("d/file"), other;

	(void)state;
	ranks_pause(&mounts_ranks, OWNER);
	mounts_peers(0)->probe(mounts_peers(0));
	ranks_await_state(&mounts_ranks, 0, OWNER, PEER_SUSPECT);
	close_opened(&one);
	fake_net_resume(mounts_ranks.net, OWNER);
	ranks_await_state(&mounts_ranks, 0, OWNER, PEER_UP);
	assert_int_equal(mounts_count_holds(OWNER), 1);
	other = open_path("d/file");
	assert_int_equal(mounts_count_holds(OWNER), 2);
	close_opened(&other);
	await_holds(0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_file_until_it_is_closed),
		TEST(a_file_that_grows),
		TEST(a_checkpoint_until_all_is_closed),
		TEST(until_who_wants_it_is_gone),
		TEST(a_rank_that_does_not_answer),
	};

	return cmocka_run_group_tests_name("union_holds", tests, NULL, NULL);
}
