/* SPDX-License-Identifier: Apache-2.0 */
/* Stored files and views of one rank and of several, as a kernel sees them. */
#include "support/test.h"
#include "support/mounts.h"
#include "support/sample.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

static void put_sample(unsigned rank, const char *path, unsigned char first)
{
	struct test_folder folder = mounts_folder(rank, path);

	sample_write(&folder, false, first);
	close(folder.fd);
}

/* All of the view file @path at @rank is "w". */
static void check_w(unsigned rank, const char *path, unsigned char first)
{
	struct kernel *kernel = mounts_kernel(rank);
	unsigned char *bytes = malloc(SAMPLE_SIZE + 4096);
	struct fuse_entry_out entry;
	struct fuse_open_out open;
	size_t got;
	unsigned i;

	assert_non_null(bytes);
	assert_int_equal(kernel_walk(kernel, path, &entry), 0);
	assert_int_equal(entry.attr.size, SAMPLE_SIZE);
	assert_int_equal(kernel_open(kernel, entry.nodeid, &open), 0);
	assert_int_equal(kernel_read(kernel, entry.nodeid, open.fh, 0,
				     SAMPLE_SIZE + 4096, bytes, &got), 0);
	assert_int_equal(got, SAMPLE_SIZE);
	for (i = 0; i < SAMPLE_SIZE; i++)
		assert_int_equal(bytes[i], sample_byte(first, i));
	kernel_release(kernel, entry.nodeid, open.fh);
	kernel_forget(kernel, entry.nodeid, 1);
	free(bytes);
}

static void one_rank(void **state)
{
	const struct mounts_options options = { .count = 1 };
	char *names;

	(void)state;
	mounts_prepare(1);
	put_sample(0, "run/step", 1);
	mounts_start(&options);
	assert_int_equal(kernel_list(mounts_kernel(0), "run/step", &names), 0);
	assert_string_equal(names, ".metadata\n__0_0.distcp\n__1_0.distcp\n"
			    "f32\nhf\nnpy\nobjects\nsafetensors\n"
			    "tensors\ntensors.json\n");
	free(names);
	check_w(0, ".ckptfs/views/run/step/tensors/w", 1);
}

static void two_ranks(void **state)
{
	const struct mounts_options options = { .count = 2 };
	char *names;

	(void)state;
	mounts_prepare(2);
	put_sample(1, "step", 3);
	mounts_start(&options);
	assert_int_equal(kernel_list(mounts_kernel(0), "", &names), 0);
	assert_string_equal(names, "step\n");
	free(names);
	check_w(0, ".ckptfs/views/step/tensors/w", 3);
	check_w(1, ".ckptfs/views/step/tensors/w", 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(one_rank, stop),
		cmocka_unit_test_teardown(two_ranks, stop),
	};

	return cmocka_run_group_tests_name("stored_union", tests, NULL, NULL);
}
