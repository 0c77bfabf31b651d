/* SPDX-License-Identifier: Apache-2.0 */
/* Folders of the union that are held while their names go, and what checkpoints
 * want of them. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/homes.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- folders that are held ----------------------------------------------- */

static void a_folder_that_is_moved(void **state)
{
	struct store_folder *held, *below;
	struct stat before, status;
	struct store_found got;

	(void)state;
	homes_folder(OWN, "a");
	homes_folder(OWN, "a/b");
	homes_write(OWN, "a/file", "old");
	homes_write(OWN, "a/b/file", "below");
	assert_int_equal(fstatat(homes[OWN].fd, "a", &before, 0), 0);
	held = storing_folder(united, "a");
	storing_check_names(held, "b\nfile\n");
	homes_rename(OWN, "a", "moved");
	homes_folder(OWN, "a");
	homes_write(OWN, "a/new", "new");
	homes_later(1000);
	storing_check_names(held, "b\nfile\n");
	homes_check_in(held, "file", OWN, "old");
	homes_check_in(held, "b/file", OWN, "below");
	homes_check_in_error(held, "new", -ENOENT);
	storing_check(united, store_path_in(held, "file"), "old");
	assert_int_equal(united->find(united, store_path_in(held, ""), &got),
			 0);
	assert_int_equal(got.status.st_ino, before.st_ino);
	assert_int_equal(united->status(united, store_path_in(held, "file"),
					OWN, &status), 0);
	assert_int_equal(status.st_size, 3);
	assert_int_equal(united->open_folder(united, store_path_in(held, "b"),
					     &below), 0);
	storing_check_names(below, "file\n");
	store_folder_put(below);
	store_folder_put(held);
	/* Its name is the new one's. */
	homes_check("a/new", "new");
	assert_int_equal(homes_find_error("a/file"), -ENOENT);
	homes_check("moved/file", "old");
}

static void a_folder_that_is_removed(void **state)
{
	struct store_folder *held;
	struct store_list *list;

	(void)state;
	homes_folder(FAR, "far");
	homes_folder(NEAR, "near");
	homes_write(NEAR, "near/file", "text");
	held = storing_folder(united, "near");
	storing_check_names(held, "file\n");
	homes_remove(NEAR, "near/file", 0);
	homes_remove(NEAR, "near", AT_REMOVEDIR);
	homes_later(1000);
	storing_check_names(held, "");
	homes_check_in_error(held, "file", -ENOENT);
	store_folder_put(held);
	/* Of another host only its name is known. */
	held = storing_folder(united, "far");
	storing_check_names(held, "");
	homes_remove(FAR, "far", AT_REMOVEDIR);
	homes_later(1000);
	assert_int_equal(united->list(held, false, &list), -ENOENT);
	store_folder_put(held);
}

/* ---- for checkpoints ----------------------------------------------------- */

static void placing(void **state)
{
	static const char *const names[] = { "everywhere", "far", "none",
					     "b" };
	struct catalog *catalog = catalog_out_files(names, COUNT_OF(names));
	const struct replica *replicas;
	struct placement *placement;
	struct store_folder *folder;
	uint64_t bad = 99;
	unsigned i;

	(void)state;
	for (i = 0; i < RANKS; i++) {
		homes_folder(i, "a");
		homes_write(i, "a/everywhere", "text");
	}
	homes_write(FAR, "a/far", "of the far one");
	homes_folder(FAR, "a/b");
	folder = storing_folder(united, "a");
	assert_int_equal(united->place(folder, catalog, &placement, &bad), 0);
	/* The nearest first, then by their numbers. */
	assert_int_equal(placement->files[0].count, RANKS);
	replicas = placement_replicas(placement, 0);
	assert_int_equal(replicas[0].rank, OWN);
	assert_int_equal(replicas[1].rank, NEAR);
	assert_int_equal(replicas[2].rank, 0);
	assert_int_equal(replicas[3].rank, FAR);
	assert_int_equal(placement->owners[0], 0);
	assert_ptr_equal(placement_local(placement, 0), &replicas[0]);
	assert_int_equal(placement->files[1].count, 1);
	assert_int_equal(placement->owners[1], FAR);
	assert_int_equal(placement_pin(placement, 1)->size, 14);
	assert_null(placement_local(placement, 1));
	assert_int_equal(placement->files[2].error, -ENOENT);
	assert_int_equal(placement->files[3].error, -EINVAL);
	assert_int_equal(placement->folders[0], -1);
	assert_int_equal(placement->folders[FAR], -1);
	assert_true(placement->folders[NEAR] >= 0);
	assert_int_equal(faccessat(placement->folders[OWN], "everywhere",
				   F_OK, 0), 0);
	placement_destroy(placement);
	store_folder_put(folder);
	catalog_put(catalog);
}

static void resolving(void **state)
{
	struct store_folder *top = storing_folder(united, "");
	struct replica owner;
	struct stat real;
	struct pin pin;

	(void)state;
	homes_write(FAR, "a", "text");
	homes_write(OWN, "a", "text");
	homes_folder(OWN, "folder");
	assert_int_equal(united->resolve(top, "a", &owner), 0);
	assert_int_equal(owner.rank, FAR);
	assert_int_equal(fstatat(homes[FAR].fd, "a", &real, 0), 0);
	pin = pin_from_stat(&real);
	assert_true(pin_equal(&owner.pin, &pin));
	assert_int_equal(united->resolve(top, "folder", &owner), -EINVAL);
	assert_int_equal(united->resolve(top, "none", &owner), -ENOENT);
	store_folder_put(top);
}

/* A snapshot in Hugging Face's cache, as the store that is one folder has it. */
static void links_to_blobs(void **state)
{
	struct store_folder *folder;

	(void)state;
	homes_folder(OWN, "blobs");
	homes_folder(OWN, "snapshots");
	homes_folder(OWN, "snapshots/1");
	homes_write(OWN, "blobs/0af", "blob");
	assert_int_equal(symlinkat("../../blobs/0af", homes[OWN].fd,
				   "snapshots/1/model"), 0);
	folder = storing_folder(united, "snapshots/1");
	homes_check_in(folder, "model", OWN, "blob");
	store_folder_put(folder);
}

/* The nearest copy is at a rank that is lost, and another one is not. */
static void the_next_copy(void **state)
{
	struct store_folder *top = storing_folder(united, "");

	(void)state;
	homes_write(0, "a", "text");
	homes_write(FAR, "a", "text");
	homes_check_in(top, "a", 0, "text");
	fakes[0].error = -EIO;
	homes_check_in(top, "a", FAR, "text");
	store_folder_put(top);
}

/* Whose it is is lost, and this rank has an equal one. */
static void the_own_copy(void **state)
{
	(void)state;
	homes_write(0, "a", "text");
	homes_write(OWN, "a", "text");
	homes_check("a", "text");
	fakes[0].error = -EIO;
	homes_check("a", "text");
}

static bool builds;

static bool is_builder(struct peers *p)
{
	(void)p;
	return builds;
}

static int catalog(struct peers *p, const struct catalog_wanted *wanted,
		   struct catalog **ret_catalog)
{
	(void)p;
	(void)ret_catalog;
	return wanted->kept ? -ESTALE : -EBADMSG;
}

/* Who makes them asks nobody to do so, but whether one is kept. */
static void catalogs(void **state)
{
	struct catalog_wanted wanted = { .path = "a" };
	struct catalog *none;

	(void)state;
	peers.is_builder = is_builder;
	peers.catalog = catalog;
	builds = true;
	assert_true(united->is_builder(united));
	assert_int_equal(united->get_catalog(united, &wanted, &none),
			 -ENODATA);
	wanted.kept = true;
	assert_int_equal(united->get_catalog(united, &wanted, &none), -ESTALE);
	builds = false;
	assert_false(united->is_builder(united));
	wanted.kept = false;
	assert_int_equal(united->get_catalog(united, &wanted, &none),
			 -EBADMSG);
}

int main(void)
{
#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, homes_setup, homes_teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_folder_that_is_moved),
		TEST(a_folder_that_is_removed),
		TEST(placing),
		TEST(resolving),
		TEST(catalogs),
		TEST(links_to_blobs),
		TEST(the_next_copy),
		TEST(the_own_copy),
	};

	return cmocka_run_group_tests_name("union_store_held", tests, NULL,
					   NULL);
}
