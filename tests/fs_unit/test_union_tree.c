/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all ranks show of what one of them has: stored files and links, and who
 * is said to be there.
 */
#include "support/test.h"
#include "support/cat.h"
#include "support/ways.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RANKS = 3 };

/* ---- stored files -------------------------------------------------------- */

static void files_of_all(void **state)
{
	struct fuse_entry_out entry;
	struct fuse_attr_out attr;
	struct stat status;
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put(0, "a", "one", "1");
	ways_put(1, "a", "two", "of rank 1");
	ways_put(1, "b/deep/er", "three", "");
	close(mounts_folder(2, "c").fd);
	assert_int_equal(fchmodat(mounts_stores[1].fd, "a/two", 0640, 0), 0);
	assert_int_equal(fstatat(mounts_stores[1].fd, "a/two", &status, 0), 0);
	ways_start(state, RANKS);
	for (rank = 0; rank < RANKS; rank++) {
		struct kernel *kernel = mounts_kernel(rank);

		cat_check_list(kernel, "", "a\nb\nc\n");
		cat_check_list(kernel, "a", "one\ntwo\n");
		cat_check_list(kernel, "b/deep/er", "three\n");
		cat_check_list(kernel, "c", "");
		cat_check_text(kernel, "a/one", "1");
		cat_check_text(kernel, "a/two", "of rank 1");
		cat_check_text(kernel, "b/deep/er/three", "");
		assert_int_equal(kernel_walk(kernel, "a/two", &entry), 0);
		assert_int_equal(kernel_getattr(kernel, entry.nodeid, &attr),
				 0);
		assert_int_equal(attr.attr.mode, S_IFREG | 0640);
		assert_int_equal(attr.attr.mtime, status.st_mtim.tv_sec);
		assert_int_equal(attr.attr.mtimensec, status.st_mtim.tv_nsec);
		kernel_forget(kernel, entry.nodeid, 1);
		assert_int_equal(kernel_walk(kernel, "a/three", &entry),
				 -ENOENT);
	}
}

/* One that differs is that of the lowest rank; each rank says so, once. */
static void same_path(void **state)
{
	unsigned rank, look;

	mounts_prepare(RANKS);
	ways_put(0, "d", "same", "same content");
	ways_put(2, "d", "same", "same content");
	ways_put(1, "d", "other", "rank 1 says");
	ways_put(2, "d", "other", "rank 2 says");
	ways_put(0, "", "file", "is a file");
	ways_put(1, "file", "inside", "of a folder");
	ways_put(0, "folder", "inside", "of a folder");
	ways_put(1, "", "folder", "is a file");
	ways_start(state, RANKS);
	for (look = 0; look < 2; look++) {
		for (rank = 0; rank < RANKS; rank++) {
			struct kernel *kernel = mounts_kernel(rank);

			cat_check_list(kernel, "", "d\nfile\nfolder\n");
			cat_check_list(kernel, "d", "other\nsame\n");
			cat_check_text(kernel, "d/same", "same content");
			cat_check_text(kernel, "d/other", "rank 1 says");
			cat_check_text(kernel, "file", "is a file");
			assert_int_equal(cat_error(kernel, "file/inside"),
					 -ENOTDIR);
			cat_check_text(kernel, "folder/inside", "of a folder");
		}
		mounts_later(1000);
	}
	assert_int_equal(mounts_count_log("d/other: differs between rank 1 "
					  "and rank 2"), RANKS);
	assert_int_equal(mounts_count_log("file: differs between rank 0"),
			 RANKS);
	assert_int_equal(mounts_count_log("folder: differs between rank 0"),
			 RANKS);
	assert_int_equal(mounts_count_log("same"), 0);
}

/* Over 16 MiB nothing is compared: that of the lowest rank is used. */
static void large_files(void **state)
{
	const off_t size = 16 * 1024 * 1024 + 1;
	struct fuse_entry_out entry;
	struct fuse_open_out open;
	char byte;
	size_t got;
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put(1, "d", "large", "1");
	ways_put(2, "d", "large", "2");
	for (rank = 1; rank < RANKS; rank++) {
		struct test_folder folder = mounts_folder(rank, "d");
		int fd = openat(folder.fd, "large", O_WRONLY);

		assert_int_equal(ftruncate(fd, size), 0);
		close(fd);
		close(folder.fd);
	}
	ways_start(state, RANKS);
	for (rank = 0; rank < RANKS; rank++) {
		struct kernel *kernel = mounts_kernel(rank);

		assert_int_equal(kernel_walk(kernel, "d/large", &entry), 0);
		assert_int_equal(entry.attr.size, size);
		assert_int_equal(kernel_open(kernel, entry.nodeid, &open), 0);
		assert_int_equal(kernel_read(kernel, entry.nodeid, open.fh, 0,
					     1, &byte, &got), 0);
		assert_int_equal(byte, '1');
		kernel_release(kernel, entry.nodeid, open.fh);
		kernel_forget(kernel, entry.nodeid, 1);
	}
	assert_int_equal(mounts_count_log("d/large: rank 1 and rank 2 have it, "
					  "too large"), RANKS);
}

static void links(void **state)
{
	static const char *const links[][2] = {
		{ "latest", "step" }, { "file", "step/__1_0.distcp" },
		{ "dangling", "nowhere" }, { "both", "step" },
	};
	struct fuse_entry_out entry;
	char target[4096];
	unsigned rank;
	size_t i;

	mounts_prepare(RANKS);
	for (i = 0; i < COUNT_OF(links); i++)
		assert_int_equal(symlinkat(links[i][1],
					   mounts_stores[i % RANKS].fd,
					   links[i][0]), 0);
	assert_int_equal(symlinkat("step", mounts_stores[1].fd, "both"), 0);
	ways_start(state, RANKS);
	for (rank = 0; rank < RANKS; rank++)
		for (i = 0; i < COUNT_OF(links); i++) {
			struct kernel *kernel = mounts_kernel(rank);

			assert_int_equal(kernel_walk(kernel, links[i][0],
						     &entry), 0);
			assert_true(S_ISLNK(entry.attr.mode));
			assert_int_equal(kernel_readlink(kernel, entry.nodeid,
							 target), 0);
			assert_string_equal(target, links[i][1]);
			kernel_forget(kernel, entry.nodeid, 1);
		}
	assert_int_equal(mounts_count_log("differs"), 0);
}

/* ---- mirrors and reports ------------------------------------------------- */

/* A mirror has the folders of all ranks, and nothing else that is stored. */
static void mirrors(void **state)
{
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put(0, "run", "file", "stored");
	close(mounts_folder(1, "run/inner").fd);
	ways_put(2, "run/step", "file", "stored");
	ways_start(state, RANKS);
	for (rank = 0; rank < RANKS; rank++) {
		struct kernel *kernel = mounts_kernel(rank);

		cat_check_list(kernel, ".ckptfs/views", "run\n");
		cat_check_list(kernel, ".ckptfs/views/run", "inner\nstep\n");
		cat_check_list(kernel, ".ckptfs/views/run/step", "");
		assert_int_equal(cat_error(kernel, ".ckptfs/views/run/file"),
				 -ENOENT);
		assert_int_equal(cat_error(kernel, ".ckptfs/views/other"),
				 -ENOENT);
	}
}

static void check_status(unsigned rank, const char *store)
{
	char *text, line[128];
	size_t size;
	unsigned other;

	assert_int_equal(cat_file(mounts_kernel(rank), ".ckptfs/status.json",
				  &text, &size), 0);
	assert_non_null(strstr(text, "\"state\": \"serving\""));
	snprintf(line, sizeof(line), "\"rank\": %u, \"host\": ", rank);
	assert_non_null(strstr(text, line));
	for (other = 0; other < RANKS; other++) {
		snprintf(line, sizeof(line), "{\"rank\": %u, \"host\": "
			 "\"host%u\", \"state\": \"%s\", \"store\": \"%s\"}",
			 other, other, other == rank ? "self" : "up",
			 other == rank ? "self" : store);
		assert_non_null(strstr(text, line));
	}
	free(text);
}

static void check_metrics(unsigned rank)
{
	char *text, line[128];
	size_t size;
	unsigned other;

	assert_int_equal(cat_file(mounts_kernel(rank), ".ckptfs/metrics",
				  &text, &size), 0);
	for (other = 0; other < RANKS; other++) {
		snprintf(line, sizeof(line), "ckptfs_rank_up{rank=\"%u\","
			 "host=\"host%u\",state=\"%s\"} 1\n", other, other,
			 other == rank ? "self" : "up");
		assert_non_null(strstr(text, line));
	}
	free(text);
}

static void who_is_there(void **state)
{
	unsigned rank;

	mounts_prepare(RANKS);
	ways_start(state, RANKS);
	for (rank = 0; rank < RANKS; rank++) {
		check_status(rank, ways_is_direct(state) ? "direct" : "peer");
		check_metrics(rank);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WAYS_BOTH(files_of_all), WAYS_BOTH(same_path),
		WAYS_BOTH(large_files), WAYS_BOTH(links),
		WAYS_BOTH(mirrors), WAYS_BOTH(who_is_there),
	};

	return cmocka_run_group_tests_name("union_tree", tests, NULL, NULL);
}
