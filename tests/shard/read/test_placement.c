/* SPDX-License-Identifier: Apache-2.0 */
/* Where the files of a catalog are, and which copy is read. */
#include "support/test.h"
#include "support/folder.h"

#include "shard/read/placement.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct replica make_replica(unsigned rank, uint64_t inode)
{
	return (struct replica){ rank, { .device = 1, .inode = inode } };
}

static void nobody_has_them(void **state)
{
	struct placement *placement = placement_create(3, 2, 0);
	unsigned i;

	(void)state;
	assert_non_null(placement);
	assert_int_equal(placement->ranks, 3);
	assert_int_equal(placement->file_count, 2);
	for (i = 0; i < 3; i++)
		assert_int_equal(placement->folders[i], -1);
	for (i = 0; i < 2; i++) {
		assert_int_equal(placement->files[i].count, 0);
		assert_int_equal(placement_pin(placement, i)->inode, 0);
		assert_null(placement_local(placement, i));
	}
	placement_destroy(placement);
}

/* A checkpoint may have no files at all. */
static void no_files(void **state)
{
	struct placement *placement = placement_create(1, 0, 0);

	(void)state;
	assert_non_null(placement);
	assert_int_equal(placement->file_count, 0);
	placement_destroy(placement);
	placement_destroy(NULL);
}

/* Three copies of file 0, none of file 1, one of file 2. */
static struct placement *make_placement(void)
{
	struct placement *placement = placement_create(4, 3, 4);

	assert_non_null(placement);
	placement->replicas[0] = make_replica(3, 30);
	placement->replicas[1] = make_replica(0, 31);
	placement->replicas[2] = make_replica(2, 32);
	placement->replicas[3] = make_replica(1, 40);
	placement->files[0] = (struct placed_file){ .first = 0, .count = 3 };
	placement->files[1] = (struct placed_file){ .first = 3,
						    .error = -ENOENT };
	placement->files[2] = (struct placed_file){ .first = 3, .count = 1 };
	return placement;
}

static void the_nearest(void **state)
{
	struct placement *placement = make_placement();

	(void)state;
	assert_int_equal(placement_replicas(placement, 0)[1].rank, 0);
	assert_int_equal(placement_pin(placement, 0)->inode, 30);
	assert_int_equal(placement_replicas(placement, 2)->rank, 1);
	assert_int_equal(placement_pin(placement, 2)->inode, 40);
	/* Its neighbour's copies are not those of a file that is nowhere. */
	assert_int_equal(placement_pin(placement, 1)->inode, 0);
	placement_destroy(placement);
}

/* The nearest of those that can be opened here, which may be another one than
 * the nearest of all. */
static void what_is_open_here(void **state)
{
	struct placement *placement = make_placement();
	unsigned descriptors = folder_count_descriptors();

	(void)state;
	assert_null(placement_local(placement, 0));
	placement->folders[2] = open("/", O_RDONLY | O_CLOEXEC);
	assert_int_equal(placement_local(placement, 0)->pin.inode, 32);
	placement->folders[0] = open("/", O_RDONLY | O_CLOEXEC);
	assert_int_equal(placement_local(placement, 0)->rank, 0);
	placement->folders[1] = open("/", O_RDONLY | O_CLOEXEC);
	assert_int_equal(placement_local(placement, 0)->rank, 0);
	assert_int_equal(placement_local(placement, 2)->rank, 1);
	assert_null(placement_local(placement, 1));
	placement->folders[3] = open("/", O_RDONLY | O_CLOEXEC);
	assert_int_equal(placement_local(placement, 0)->rank, 3);
	placement_destroy(placement);
	assert_int_equal(folder_count_descriptors(), descriptors);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_has_them),
		cmocka_unit_test(no_files),
		cmocka_unit_test(the_nearest),
		cmocka_unit_test(what_is_open_here),
	};

	return cmocka_run_group_tests_name("placement", tests, NULL, NULL);
}
