/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks that do not answer, are gone, or have left, as the kernels of the
 * others see it: what needs them fails, at once when that is known, and
 * nothing else does.
 */
#include "support/test.h"
#include "support/cat.h"
#include "support/sample.h"
#include "support/ways.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define W WAYS_VIEWS "tensors/w"

enum { RANKS = 4, DEADLINE_MS = 300 };

enum loss { PAUSED, KILLED, LEFT };

/* Who is lost. */
static unsigned lost = 1;

static const struct {
	enum peer_state state;
	const char *name;
} states[] = {
	[PAUSED] = { PEER_SUSPECT, "suspect" },
	[KILLED] = { PEER_LOST, "lost" },
	[LEFT] = { PEER_LEFT, "left" },
};

static const enum loss paused = PAUSED, killed = KILLED, left = LEFT;

/* ---- losing -------------------------------------------------------------- */

static void start(bool direct)
{
	const struct mounts_options options = {
		.count = RANKS, .deadline_ms = DEADLINE_MS, .direct = direct,
	};

	mounts_start(&options);
}

static void lose(enum loss loss)
{
	if (loss == PAUSED)
		ranks_pause(&mounts_ranks, lost);
	else if (loss == KILLED)
		ranks_kill(&mounts_ranks, lost);
	else
		mounts_leave(lost);
}

/* All others know of it: each has asked. */
static void await_lost(enum loss loss)
{
	unsigned rank;

	for (rank = 0; rank < RANKS; rank++)
		if (rank != lost)
			assert_int_equal(cat_error(mounts_kernel(rank),
						   ".ckptfs/status.json"), 0);
	for (rank = 0; rank < RANKS; rank++)
		if (rank != lost)
			ranks_await_state(&mounts_ranks, rank, lost,
					  states[loss].state);
}

/* As the others see it; what it thinks of them may take a moment more. */
static void come_back(void)
{
	unsigned rank;

	fake_net_resume(mounts_ranks.net, lost);
	for (rank = 0; rank < RANKS; rank++)
		if (rank != lost)
			ranks_await_state(&mounts_ranks, rank, lost, PEER_UP);
}

/* Of "step", rank 0 has the metadata and a shard, the lost rank the other
 * one. */
static void put_step(void)
{
	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	mounts_move(0, lost, "step", "__1_0.distcp");
	ways_put(lost, "d", "file", "of the lost");
	ways_put(2, "d", "other", "of rank 2");
}

/* ---- what goes on -------------------------------------------------------- */

static void check_said(unsigned rank, enum loss loss)
{
	char line[128], *text;
	size_t size;

	assert_int_equal(cat_file(mounts_kernel(rank), ".ckptfs/status.json",
				  &text, &size), 0);
	snprintf(line, sizeof(line), "{\"rank\": %u, \"host\": \"host%u\", "
		 "\"state\": \"%s\"", lost, lost, states[loss].name);
	assert_non_null(strstr(text, line));
	free(text);
}

/* All that does not need the lost rank; then what does. */
static void check_rest(unsigned rank)
{
	struct kernel *kernel = mounts_kernel(rank);
	char *shards;

	cat_check_list(kernel, "", "d\nstep\n");
	cat_check_list(kernel, "d", "file\nother\n");
	cat_check_list(kernel, "step", ".metadata\n__0_0.distcp\n"
		       "__1_0.distcp\nf32\nhf\nnpy\nobjects\nsafetensors\n"
		       "tensors\ntensors.json\n");
	cat_check_list(kernel, WAYS_VIEWS "tensors", "s\nw\n");
	cat_check_text(kernel, "d/other", "of rank 2");
	cat_check_sample(kernel, W "[0:32]", 1, 0, WAYS_HALF);
	cat_check(kernel, WAYS_VIEWS "tensors/s", "\0\0\0", 4);
	shards = cat_attribute(kernel, W, "user.ckptfs.shards");
	assert_non_null(strstr(shards,
			       "\"rank\":1,\"file\":\"__1_0.distcp\""));
	free(shards);
	assert_int_equal(cat_error(kernel, W "[32:64]"), -EIO);
	assert_int_equal(cat_error(kernel, W), -EIO);
	assert_int_equal(cat_error(kernel, "d/file"), -EIO);
	assert_int_equal(cat_error(kernel, "step/__1_0.distcp"), -EIO);
}

/* All that is left can be read by all that are left. */
static void check_all(void)
{
	unsigned rank;

	for (rank = 0; rank < RANKS; rank++)
		if (rank != lost)
			cat_check_sample(mounts_kernel(rank), W, 1, 0,
					 SAMPLE_SIZE);
}

/* What was known of all ranks stays so while one of them is lost. */
static void what_stays(void **state)
{
	enum loss loss = *(const enum loss *)*state;
	unsigned rank, look;

	put_step();
	start(false);
	for (rank = 0; rank < RANKS; rank++) {
		cat_check_text(mounts_kernel(rank), "d/file", "of the lost");
		cat_check_list(mounts_kernel(rank), "", "d\nstep\n");
	}
	ways_check_sample(RANKS, 1);
	lose(loss);
	await_lost(loss);
	for (look = 0; look < 2; look++) {
		for (rank = 0; rank < RANKS; rank++)
			if (rank != lost) {
				check_rest(rank);
				check_said(rank, loss);
			}
		mounts_later(1000);
	}
	if (loss != PAUSED)
		return;
	come_back();
	mounts_later(1000);
	check_all();
	cat_check_text(mounts_kernel(0), "d/file", "of the lost");
}

/* On one host the others go on reading its store themselves. */
static void store_stays_here(void **state)
{
	enum loss loss = *(const enum loss *)*state;
	unsigned rank;

	put_step();
	start(true);
	lose(loss);
	await_lost(loss);
	for (rank = 0; rank < RANKS; rank++)
		if (rank != lost) {
			struct kernel *kernel = mounts_kernel(rank);

			cat_check_sample(kernel, W, 1, 0, SAMPLE_SIZE);
			cat_check_text(kernel, "d/file", "of the lost");
			check_said(rank, loss);
		}
}

/* ---- who makes catalogs -------------------------------------------------- */

/* Rank 0 is lost before anybody has looked: the next one does its work. */
static void builder_is_lost(void **state)
{
	enum loss loss = *(const enum loss *)*state;

	lost = 0;
	mounts_prepare(RANKS);
	ways_put_sample(1, false, 1);
	mounts_move(1, 2, "step", "__0_0.distcp");
	mounts_move(1, 3, "step", "__1_0.distcp");
	start(false);
	lose(loss);
	await_lost(loss);
	check_all();
	cat_check_list(mounts_kernel(3), "step", ".metadata\n__0_0.distcp\n"
		       "__1_0.distcp\nf32\nhf\nnpy\nobjects\nsafetensors\n"
		       "tensors\ntensors.json\n");
}

/* The lost rank has the metadata, and no shards. */
static void put_metadata(void)
{
	unsigned other = lost ? 0 : 1;

	mounts_prepare(RANKS);
	ways_put_sample(other, false, 1);
	mounts_move(other, 2, "step", "__1_0.distcp");
	mounts_move(other, lost, "step", ".metadata");
}

/* What @rank alone has shown of it is shown by all that are left. */
static void lose_metadata(enum loss loss, unsigned rank)
{
	unsigned look;

	put_metadata();
	start(false);
	cat_check_list(mounts_kernel(rank), WAYS_VIEWS "tensors", "s\nw\n");
	lose(loss);
	await_lost(loss);
	for (look = 0; look < 2; look++) {
		check_all();
		mounts_later(1000);
	}
}

/* Who makes catalogs has it. */
static void metadata_is_lost(void **state)
{
	lose_metadata(*(const enum loss *)*state, 0);
}

/* Who makes catalogs is lost with the metadata, and the next one has not seen
 * it: what came to rank 3 by way of rank 2 is still there. */
static void both_are_lost(void **state)
{
	lost = 0;
	lose_metadata(*(const enum loss *)*state, 3);
}

/* What nobody has shown is not there, until the rank is. */
static void metadata_was_not_seen(void **state)
{
	unsigned rank;

	(void)state;
	put_metadata();
	start(false);
	lose(PAUSED);
	await_lost(PAUSED);
	for (rank = 0; rank < RANKS; rank++)
		if (rank != lost) {
			cat_check_list(mounts_kernel(rank), "step",
				       "__0_0.distcp\n__1_0.distcp\n");
			assert_int_equal(cat_error(mounts_kernel(rank), W),
					 -ENOENT);
		}
	come_back();
	mounts_later(1000);
	check_all();
}

static int stop(void **state)
{
	lost = 1;
	return ways_stop(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define EACH(test, loss) \
	{ #test " " #loss, test, NULL, stop, (void *)&loss }
		EACH(what_stays, paused), EACH(what_stays, killed),
		EACH(what_stays, left), EACH(store_stays_here, killed),
		EACH(store_stays_here, left),
		EACH(builder_is_lost, paused), EACH(builder_is_lost, killed),
		EACH(builder_is_lost, left), EACH(metadata_is_lost, paused),
		EACH(metadata_is_lost, killed), EACH(metadata_is_lost, left),
		EACH(both_are_lost, paused), EACH(both_are_lost, killed),
		EACH(both_are_lost, left),
		cmocka_unit_test_teardown(metadata_was_not_seen, stop),
	};

	return cmocka_run_group_tests_name("union_lost", tests, NULL, NULL);
}
