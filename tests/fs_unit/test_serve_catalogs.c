/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Catalogs and shards that ranks have from each other: the lowest rank makes a
 * catalog when it is asked for, and a rank that is read from learns of the
 * checkpoint by that.
 */
#include "support/test.h"
#include "support/cat.h"
#include "support/mounts.h"
#include "support/peer_calls.h"
#include "support/sample.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VIEWS ".ckptfs/views/step/"

enum { RANKS = 4, ROW = 64 * 4 };

static int stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

/* The metadata is rank 1's, a shard each of ranks 2 and 3: who makes catalogs
 * has none of it. */
static void start(void)
{
	const struct mounts_options options = { .count = RANKS };
	struct test_folder folder;

	mounts_prepare(RANKS);
	folder = mounts_folder(1, "step");
	sample_write(&folder, false, 1);
	close(folder.fd);
	mounts_move(1, 2, "step", "__0_0.distcp");
	mounts_move(1, 3, "step", "__1_0.distcp");
	mounts_start(&options);
}

/* Another checkpoint in its place: at rank 1 only. */
static void replace_metadata(void)
{
	struct test_folder next = mounts_folder(1, "next");

	sample_write_coded(&next, 9);
	close(next.fd);
	assert_int_equal(renameat(mounts_stores[1].fd, "next/.metadata",
				  mounts_stores[1].fd, "step/.metadata"), 0);
}

/* What @rank knows by its status.json: the checkpoint with this hash and no
 * other, or, if it is NULL, none. */
static void check_known(unsigned rank, const char *hash)
{
	char *text, *begin, *end, *path;
	size_t size;

	assert_int_equal(cat_file(mounts_kernel(rank), ".ckptfs/status.json",
				  &text, &size), 0);
	begin = strstr(text, "\"catalogs\": [");
	assert_non_null(begin);
	end = strchr(begin + strlen("\"catalogs\": ["), ']');
	assert_non_null(end);
	*end = '\0';
	path = strstr(begin, "\"path\": \"step\"");
	if (hash) {
		assert_non_null(path);
		assert_non_null(strstr(path, hash));
		assert_null(strstr(path + 1, "\"path\""));
	} else {
		assert_null(path);
	}
	free(text);
}

/* ---- catalogs ------------------------------------------------------------ */

/* Asked for by any rank, it is made by the lowest, for all the same. */
static void made_when_asked_for(void **state)
{
	char hash[33], other[33];
	uint64_t signature;
	unsigned rank;

	(void)state;
	start();
	signature = mounts_signature(3, "step");
	assert_true(signature);
	for (rank = 0; rank < RANKS; rank++)
		check_known(rank, NULL);
	assert_int_equal(peer_calls_catalog(3, "step", signature, false,
					    hash), 0);
	check_known(0, hash);
	/* It has come by way of rank 2; nobody needed it at rank 1. */
	check_known(2, hash);
	check_known(1, NULL);
	for (rank = 1; rank < RANKS; rank++) {
		assert_int_equal(mounts_signature(rank, "step"), signature);
		assert_int_equal(peer_calls_catalog(rank, "step", signature,
						    false, other), 0);
		assert_string_equal(other, hash);
	}
	/* What a mount shows is that one. */
	cat_check_sample(mounts_kernel(1), VIEWS "tensors/w", 1, 0,
			 SAMPLE_SIZE);
	check_known(1, hash);
}

/* Who only wants what is there makes nobody read. */
static void kept_by_whoever_has_it(void **state)
{
	char hash[33];
	uint64_t signature;
	unsigned rank;

	(void)state;
	start();
	signature = mounts_signature(3, "step");
	for (rank = 0; rank < RANKS; rank++)
		assert_int_equal(peer_calls_catalog(rank, "step", signature,
						    true, hash), -ESTALE);
	for (rank = 0; rank < RANKS; rank++)
		check_known(rank, NULL);
	/* The views of rank 3 have it from above: from 2, and that from 0. */
	cat_check_list(mounts_kernel(3), VIEWS "tensors", "s\nw\n");
	assert_int_equal(peer_calls_catalog(0, "step", signature, true, hash),
			 0);
	check_known(3, hash);
	assert_int_equal(peer_calls_catalog(1, "step", signature, true, hash),
			 0);
	check_known(3, hash);
}

static void wrong_signature(void **state)
{
	uint64_t signature, next;
	char hash[33], other[33];

	(void)state;
	start();
	signature = mounts_signature(3, "step");
	assert_int_equal(peer_calls_catalog(3, "step", signature + 2, false,
					    hash), -ESTALE);
	assert_int_equal(peer_calls_catalog(3, "other", signature, false,
					    hash), -ESTALE);
	assert_int_equal(peer_calls_catalog(3, "step", signature, false,
					    hash), 0);
	/* Another one is there, of which rank 0 has just not seen anything yet:
	 * who asks for it makes others look. */
	mounts_later(1000);
	cat_check_list(mounts_kernel(0), VIEWS "tensors", "s\nw\n");
	replace_metadata();
	next = mounts_signature(3, "step");
	assert_int_not_equal(next, signature);
	assert_int_equal(peer_calls_catalog(3, "step", next, false, other), 0);
	assert_string_not_equal(other, hash);
	assert_int_equal(peer_calls_catalog(3, "step", signature, false,
					    hash), -ESTALE);
	check_known(0, other);
}

/* Who makes it refuses it, and the others hear that it is no catalog. */
static void refused(void **state)
{
	struct fuse_entry_out entry;
	uint64_t signature;
	char hash[33];
	unsigned rank;

	(void)state;
	start();
	folder_poke(&mounts_stores[1], "step/.metadata", 0, 'x');
	signature = mounts_signature(3, "step");
	for (rank = 1; rank < RANKS; rank++) {
		assert_int_equal(peer_calls_catalog(rank, "step", signature,
						    false, hash), -EBADMSG);
		assert_int_equal(kernel_walk(mounts_kernel(rank),
					     VIEWS "tensors", &entry),
				 -ENOENT);
		check_known(rank, NULL);
	}
	assert_int_equal(mounts_count_log("step/.metadata: byte 0: not a "
					  "pickle"), 1);
}

/* ---- shards -------------------------------------------------------------- */

/* A rank that is to keep what is read from it learns what that is. */
static void learned_by_reading(void **state)
{
	char hash[33];

	(void)state;
	start();
	cat_check_list(mounts_kernel(1), VIEWS "tensors", "s\nw\n");
	check_known(3, NULL);
	cat_check_sample(mounts_kernel(1), VIEWS "tensors/w[40]", 1, 40 * ROW,
			 ROW);
	assert_int_equal(peer_calls_catalog(1, "step",
					    mounts_signature(1, "step"), true,
					    hash), 0);
	check_known(3, hash);
}

/* A rank cannot learn what is not there any more: nothing is read by the old
 * catalog from who would know only the new one. */
static void learned_too_late(void **state)
{
	struct fuse_entry_out entry;
	struct fuse_open_out open;
	struct kernel *kernel;
	char data[ROW];
	size_t got;

	(void)state;
	start();
	kernel = mounts_kernel(1);
	assert_int_equal(kernel_walk(kernel, VIEWS "tensors/w", &entry), 0);
	check_known(3, NULL);
	replace_metadata();
	assert_int_equal(kernel_open(kernel, entry.nodeid, &open), 0);
	assert_int_equal(kernel_read(kernel, entry.nodeid, open.fh, 40 * ROW,
				     ROW, data, &got), -ESTALE);
	kernel_release(kernel, entry.nodeid, open.fh);
	kernel_forget(kernel, entry.nodeid, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(made_when_asked_for, stop),
		cmocka_unit_test_teardown(kept_by_whoever_has_it, stop),
		cmocka_unit_test_teardown(wrong_signature, stop),
		cmocka_unit_test_teardown(refused, stop),
		cmocka_unit_test_teardown(learned_by_reading, stop),
		cmocka_unit_test_teardown(learned_too_late, stop),
	};

	return cmocka_run_group_tests_name("serve_catalogs", tests, NULL,
					   NULL);
}
