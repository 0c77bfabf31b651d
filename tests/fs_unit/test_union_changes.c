/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores that change while all ranks show them. What is open then fails or
 * goes on, but never mixes old and new; what is looked up a second later is
 * new.
 */
#include "support/test.h"
#include "support/cat.h"
#include "support/sample.h"
#include "support/ways.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RANKS = 3, OWNER = 1 };

/* What each rank has open. */
static struct {
	struct fuse_entry_out entry;
	struct fuse_open_out open;
} opened[RANKS];

static void open_all(const char *path)
{
	unsigned rank;

	for (rank = 0; rank < RANKS; rank++) {
		struct kernel *kernel = mounts_kernel(rank);

		assert_int_equal(kernel_walk(kernel, path,
					     &opened[rank].entry), 0);
		assert_int_equal(kernel_open(kernel,
					     opened[rank].entry.nodeid,
					     &opened[rank].open), 0);
	}
}

static void close_all(void)
{
	unsigned rank;

	for (rank = 0; rank < RANKS; rank++) {
		struct kernel *kernel = mounts_kernel(rank);

		kernel_release(kernel, opened[rank].entry.nodeid,
			       opened[rank].open.fh);
		kernel_forget(kernel, opened[rank].entry.nodeid, 1);
	}
}

/* @size bytes at @offset of what @rank has open: their number, or -errno. */
static int read_open(unsigned rank, uint64_t offset, size_t size, void *data)
{
	size_t got;
	int error = kernel_read(mounts_kernel(rank),
				opened[rank].entry.nodeid,
				opened[rank].open.fh, offset, size, data,
				&got);

	return error ? error : (int)got;
}

/* To open what is looked up, once more. */
static int open_again(unsigned rank)
{
	struct fuse_open_out open;
	int error = kernel_open(mounts_kernel(rank),
				opened[rank].entry.nodeid, &open);

	if (!error)
		kernel_release(mounts_kernel(rank),
			       opened[rank].entry.nodeid, open.fh);
	return error;
}

static int getattr(unsigned rank, struct fuse_attr_out *attr)
{
	return kernel_getattr(mounts_kernel(rank), opened[rank].entry.nodeid,
			      attr);
}

/* Put the file over the one of that name, as a writer does who is careful. */
static void replace(unsigned rank, const char *path, const char *name,
		    const char *text)
{
	struct test_folder folder = mounts_folder(rank, path);

	folder_write(&folder, ".new", text, strlen(text));
	assert_int_equal(renameat(folder.fd, ".new", folder.fd, name), 0);
	close(folder.fd);
}

static void remove_file(unsigned rank, const char *path)
{
	assert_int_equal(unlinkat(mounts_stores[rank].fd, path, 0), 0);
}

/* ---- stored files -------------------------------------------------------- */

static void files_come_and_go(void **state)
{
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put(0, "d", "first", "1");
	ways_start(state, RANKS);
	for (rank = 0; rank < RANKS; rank++) {
		cat_check_list(mounts_kernel(rank), "d", "first\n");
		assert_int_equal(cat_error(mounts_kernel(rank), "d/new"),
				 -ENOENT);
	}
	ways_put(1, "d", "new", "2");
	ways_put(2, "e/f", "deep", "3");
	mounts_later(1000);
	for (rank = 0; rank < RANKS; rank++) {
		cat_check_list(mounts_kernel(rank), "", "d\ne\n");
		cat_check_list(mounts_kernel(rank), "d", "first\nnew\n");
		cat_check_text(mounts_kernel(rank), "d/new", "2");
		cat_check_text(mounts_kernel(rank), "e/f/deep", "3");
	}
	remove_file(1, "d/new");
	remove_file(2, "e/f/deep");
	assert_int_equal(unlinkat(mounts_stores[2].fd, "e/f", AT_REMOVEDIR),
			 0);
	mounts_later(1000);
	for (rank = 0; rank < RANKS; rank++) {
		cat_check_list(mounts_kernel(rank), "d", "first\n");
		assert_int_equal(cat_error(mounts_kernel(rank), "d/new"),
				 -ENOENT);
		cat_check_list(mounts_kernel(rank), "e", "");
	}
}

/* It hides that of rank 1, and shows it again when it goes. */
static void file_of_a_lower_rank(void **state)
{
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put(1, "d", "file", "of rank 1");
	ways_start(state, RANKS);
	for (rank = 0; rank < RANKS; rank++)
		cat_check_text(mounts_kernel(rank), "d/file", "of rank 1");
	ways_put(0, "d", "file", "rank 0");
	mounts_later(1000);
	for (rank = 0; rank < RANKS; rank++)
		cat_check_text(mounts_kernel(rank), "d/file", "rank 0");
	remove_file(0, "d/file");
	mounts_later(1000);
	for (rank = 0; rank < RANKS; rank++)
		cat_check_text(mounts_kernel(rank), "d/file", "of rank 1");
}

/* What is open is the old one, whoever has it. */
static void replaced_file(void **state)
{
	struct fuse_entry_out entry;
	struct fuse_attr_out attr;
	char data[64];
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put(OWNER, "d", "file", "old");
	ways_start(state, RANKS);
	open_all("d/file");
	replace(OWNER, "d", "file", "much newer");
	for (rank = 0; rank < RANKS; rank++) {
		assert_int_equal(read_open(rank, 0, sizeof(data), data), 3);
		assert_memory_equal(data, "old", 3);
		assert_int_equal(open_again(rank), -ESTALE);
		assert_int_equal(getattr(rank, &attr), 0);
		assert_int_equal(attr.attr.size, 3);
	}
	mounts_later(1000);
	for (rank = 0; rank < RANKS; rank++) {
		cat_check_text(mounts_kernel(rank), "d/file", "much newer");
		assert_int_equal(kernel_walk(mounts_kernel(rank), "d/file",
					     &entry), 0);
		assert_int_not_equal(entry.nodeid, opened[rank].entry.nodeid);
		kernel_forget(mounts_kernel(rank), entry.nodeid, 1);
	}
	close_all();
}

static void removed_file(void **state)
{
	char data[64];
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put(OWNER, "d", "file", "old");
	ways_start(state, RANKS);
	open_all("d/file");
	remove_file(OWNER, "d/file");
	for (rank = 0; rank < RANKS; rank++) {
		assert_int_equal(read_open(rank, 0, sizeof(data), data), 3);
		assert_memory_equal(data, "old", 3);
		assert_int_equal(open_again(rank), -ESTALE);
	}
	mounts_later(1000);
	for (rank = 0; rank < RANKS; rank++)
		assert_int_equal(cat_error(mounts_kernel(rank), "d/file"),
				 -ENOENT);
	close_all();
}

/* A log that is written, or begun anew: still the same file. */
static void file_of_another_size(void **state)
{
	static const char *const texts[] = {
		"one line\n", "one line\ntwo lines\n", "short",
	};
	struct fuse_entry_out entry;
	struct fuse_attr_out attr;
	char data[64];
	unsigned rank;
	size_t i;

	mounts_prepare(RANKS);
	ways_put(OWNER, "d", "file", texts[0]);
	ways_start(state, RANKS);
	open_all("d/file");
	for (i = 0; i < COUNT_OF(texts); i++) {
		ways_put(OWNER, "d", "file", texts[i]);
		for (rank = 0; rank < RANKS; rank++) {
			int size = (int)strlen(texts[i]);

			assert_int_equal(read_open(rank, 0, sizeof(data),
						   data), size);
			assert_memory_equal(data, texts[i], size);
			assert_int_equal(getattr(rank, &attr), 0);
			assert_int_equal(attr.attr.size, size);
			assert_int_equal(open_again(rank), 0);
		}
		mounts_later(1000);
		for (rank = 0; rank < RANKS; rank++) {
			assert_int_equal(kernel_walk(mounts_kernel(rank),
						     "d/file", &entry), 0);
			assert_int_equal(entry.attr.size, strlen(texts[i]));
			assert_int_equal(entry.nodeid,
					 opened[rank].entry.nodeid);
			kernel_forget(mounts_kernel(rank), entry.nodeid, 1);
		}
	}
	close_all();
}

/* ---- checkpoints --------------------------------------------------------- */

/* A file of a checkpoint is one that does not change. */
static void stored_file_of_a_checkpoint(void **state)
{
	struct fuse_attr_out attr;
	char data[64];
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	ways_put(OWNER, "step", "notes", "as it was saved");
	ways_start(state, RANKS);
	open_all("step/notes");
	ways_put(OWNER, "step", "notes", "overwritten");
	for (rank = 0; rank < RANKS; rank++) {
		assert_int_equal(read_open(rank, 0, sizeof(data), data),
				 -ESTALE);
		assert_int_equal(open_again(rank), -ESTALE);
		assert_int_equal(getattr(rank, &attr), -ESTALE);
	}
	mounts_later(1000);
	for (rank = 0; rank < RANKS; rank++)
		cat_check_text(mounts_kernel(rank), "step/notes",
			       "overwritten");
	close_all();
}

/* What changes from now on has another time: the clock of a file system
 * ticks. */
static void await_tick(void)
{
	struct timespec began, now;

	clock_gettime(CLOCK_REALTIME_COARSE, &began);
	do
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
	while (now.tv_sec == began.tv_sec && now.tv_nsec == began.tv_nsec);
}

/* The shard of OWNER that begins at 9 comes in place of what it had. */
static void replace_shard(void)
{
	struct test_folder next = mounts_folder(OWNER, "next");

	await_tick();
	sample_write(&next, false, 9);
	close(next.fd);
	assert_int_equal(renameat(mounts_stores[OWNER].fd,
				  "next/__1_0.distcp",
				  mounts_stores[OWNER].fd,
				  "step/__1_0.distcp"), 0);
}

/* What is open is the old checkpoint, what is found the new one. */
static void replaced_shard(void **state)
{
	char data[WAYS_ROW], before[WAYS_ROW];
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	mounts_move(0, OWNER, "step", "__1_0.distcp");
	ways_start(state, RANKS);
	open_all(WAYS_VIEWS "tensors/w");
	assert_int_equal(read_open(0, WAYS_HALF, WAYS_ROW, before), WAYS_ROW);
	replace_shard();
	mounts_later(1000);
	for (rank = 0; rank < RANKS; rank++) {
		struct kernel *kernel = mounts_kernel(rank);

		cat_check_sample(kernel, WAYS_VIEWS "tensors/w[0:32]", 1, 0,
				 WAYS_HALF);
		cat_check_sample(kernel, WAYS_VIEWS "tensors/w[32:64]", 9,
				 WAYS_HALF, WAYS_HALF);
		assert_int_equal(read_open(rank, WAYS_HALF, WAYS_ROW, data),
				 WAYS_ROW);
		assert_memory_equal(data, before, WAYS_ROW);
		assert_int_equal(open_again(rank), -ESTALE);
	}
	close_all();
}

/* Retention: all of it goes, on each rank, while it is open. */
static void removed_checkpoint(void **state)
{
	char data[WAYS_ROW], before[2][WAYS_ROW];
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	mounts_move(0, OWNER, "step", "__1_0.distcp");
	ways_start(state, RANKS);
	open_all(WAYS_VIEWS "tensors/w");
	assert_int_equal(read_open(0, 0, WAYS_ROW, before[0]), WAYS_ROW);
	assert_int_equal(read_open(0, WAYS_HALF, WAYS_ROW, before[1]),
			 WAYS_ROW);
	remove_file(0, "step/.metadata");
	remove_file(0, "step/__0_0.distcp");
	remove_file(OWNER, "step/__1_0.distcp");
	mounts_later(1000);
	for (rank = 0; rank < RANKS; rank++) {
		assert_int_equal(cat_error(mounts_kernel(rank),
					   WAYS_VIEWS "tensors/w"), -ENOENT);
		assert_int_equal(read_open(rank, 0, WAYS_ROW, data), WAYS_ROW);
		assert_memory_equal(data, before[0], WAYS_ROW);
		assert_int_equal(read_open(rank, WAYS_HALF, WAYS_ROW, data),
				 WAYS_ROW);
		assert_memory_equal(data, before[1], WAYS_ROW);
	}
	close_all();
}

/* A shard that is written over in its place: old and new must not be mixed. */
static void shard_written_over(void **state)
{
	struct kernel_notice notice;
	struct test_folder step;
	char data[WAYS_ROW];
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	mounts_move(0, OWNER, "step", "__1_0.distcp");
	ways_start(state, RANKS);
	open_all(WAYS_VIEWS "tensors/w");
	for (rank = 0; rank < RANKS; rank++)
		assert_int_equal(read_open(rank, WAYS_HALF, WAYS_ROW, data),
				 WAYS_ROW);
	await_tick();
	step = mounts_folder(OWNER, "step");
	folder_poke(&step, "__1_0.distcp", 0, 'P');
	close(step.fd);
	for (rank = 0; rank < RANKS; rank++) {
		assert_int_equal(read_open(rank, WAYS_HALF, WAYS_ROW, data),
				 -ESTALE);
		/* What is in another file has not changed. */
		assert_int_equal(read_open(rank, 0, WAYS_ROW, data), WAYS_ROW);
	}
	mounts_later(1000);
	for (rank = 0; rank < RANKS; rank++) {
		struct kernel *kernel = mounts_kernel(rank);

		cat_check_sample(kernel, WAYS_VIEWS "tensors/w[0:32]", 1, 0,
				 WAYS_HALF);
		/* Its pages must not be read any more. */
		kernel_next_notice(kernel, &notice);
		assert_int_equal(notice.code, FUSE_NOTIFY_INVAL_INODE);
		assert_int_equal(notice.node, opened[rank].entry.nodeid);
	}
	close_all();
}

/* Also where nobody has met the old one. */
static void shard_replaced_unnoticed(void **state)
{
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	mounts_move(0, OWNER, "step", "__1_0.distcp");
	ways_start(state, RANKS);
	ways_check_sample(RANKS, 1);
	replace_shard();
	mounts_later(1000);
	for (rank = 0; rank < RANKS; rank++)
		cat_check_sample(mounts_kernel(rank),
				 WAYS_VIEWS "tensors/w[32:64]", 9, WAYS_HALF,
				 WAYS_HALF);
}

/* Views come with the metadata, go with it, and come again. */
static void metadata_comes_and_goes(void **state)
{
	static const char stored[] = "__0_0.distcp\n__1_0.distcp\n";
	unsigned rank, round;

	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	mounts_move(0, 2, "step", ".metadata");
	assert_int_equal(renameat(mounts_stores[2].fd, "step/.metadata",
				  mounts_stores[2].fd, "away"), 0);
	ways_start(state, RANKS);
	for (round = 0; round < 2; round++) {
		for (rank = 0; rank < RANKS; rank++) {
			cat_check_list(mounts_kernel(rank), "step", stored);
			assert_int_equal(cat_error(mounts_kernel(rank),
						   WAYS_VIEWS "tensors/w"),
					 -ENOENT);
		}
		assert_int_equal(renameat(mounts_stores[2].fd, "away",
					  mounts_stores[2].fd,
					  "step/.metadata"), 0);
		mounts_later(1000);
		ways_check_sample(RANKS, 1);
		assert_int_equal(renameat(mounts_stores[2].fd,
					  "step/.metadata",
					  mounts_stores[2].fd, "away"), 0);
		mounts_later(1000);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WAYS_BOTH(files_come_and_go), WAYS_BOTH(file_of_a_lower_rank),
		WAYS_BOTH(replaced_file), WAYS_BOTH(removed_file),
		WAYS_BOTH(file_of_another_size),
		WAYS_BOTH(stored_file_of_a_checkpoint),
		WAYS_BOTH(replaced_shard), WAYS_BOTH(removed_checkpoint),
		WAYS_BOTH(shard_written_over),
		WAYS_BOTH(shard_replaced_unnoticed),
		WAYS_BOTH(metadata_comes_and_goes),
	};

	return cmocka_run_group_tests_name("union_changes", tests, NULL,
					   NULL);
}
