/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole read path on real files: random tensors in random layouts, read
 * in random ranges, against the bytes they were made of. And the loop itself
 * over a source that fails.
 */
#include "support/test.h"
#include "support/reading.h"
#include "support/test_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct dice dice;

/* Read and compare; the oracle says whether a hole is met. */
static void check_range(struct test_store *store, const struct box *selection,
			uint64_t offset, uint64_t size)
{
	unsigned char *expected = malloc(size + 1), *found = malloc(size + 1);
	int error = test_store_read(store, selection, offset, size);

	assert_true(expected && found);
	if (test_store_expect(store, selection, offset, size, expected)) {
		if (error)
			fail_msg("error %d: %s", error,
				 store->reply->fault.error ?
				 store->reply->fault.reason : "no fault");
		test_store_copy(store, found);
		assert_memory_equal(found, expected, size);
	} else {
		assert_int_equal(error, -EIO);
	}
	free(expected);
	free(found);
}

static void check_random_ranges(struct test_store *store, unsigned count)
{
	uint64_t element = dtype_info(store->world.dtype)->size;

	while (count-- > 0) {
		struct box selection;
		uint64_t whole, offset, size;

		world_pick(&dice, &store->world.shape, &selection);
		whole = box_volume(&selection) * element;
		offset = dice_below(&dice, whole + 1);
		size = dice_below(&dice, whole - offset + 1);
		if (size == 0)
			offset -= offset % element;
		if (size > LIMIT_READ_SIZE)
			size = LIMIT_READ_SIZE;
		check_range(store, &selection, offset, size);
	}
}

static void check_worlds(const struct world_limits *limits, unsigned worlds,
			 unsigned ranges, bool plain)
{
	unsigned i;

	for (i = 0; i < worlds; i++) {
		struct world world;
		struct test_store store;

		world_make(&world, limits, &dice);
		test_store_make(&store, &world, plain, &dice);
		check_random_ranges(&store, ranges);
		test_store_free(&store);
	}
}

static void small_tensors_in_any_layout(void **state)
{
	const struct world_limits limits = {
		.ndim = 6, .volume = 300, .holes = 10, .overlaps = 10,
	};

	(void)state;
	check_worlds(&limits, 150, 20, false);
}

static void large_tensors_in_any_layout(void **state)
{
	const struct world_limits limits = {
		.ndim = 4, .volume = 100000, .holes = 10, .overlaps = 10,
	};

	(void)state;
	check_worlds(&limits, 10, 8, false);
}

static void large_row_major_tensors(void **state)
{
	const struct world_limits limits = {
		.ndim = 2, .volume = 100000, .holes = 10, .overlaps = 10,
	};

	(void)state;
	check_worlds(&limits, 10, 8, true);
}

/* Row-major and in long runs: each is read by one call. */
static void long_runs(void **state)
{
	struct world world = { .dtype = DTYPE_F32, .part_count = 2 };
	struct test_store store;

	(void)state;
	world.shape = BOX2(0, 0, 100, 1000);
	world.parts[0] = BOX2(0, 0, 50, 1000);
	world.parts[1] = BOX2(50, 0, 50, 1000);
	test_store_make(&store, &world, true, &dice);
	check_range(&store, NULL, 0, 400000);
	check_range(&store, NULL, 1, 399998);
	test_store_free(&store);
}

/* Columns of 1 KiB: 1024 runs in 1 MiB, more than one call has vectors. */
static void more_runs_than_vectors(void **state)
{
	struct world world = { .dtype = DTYPE_F32, .part_count = 4 };
	struct test_store store;
	unsigned i;

	(void)state;
	world.shape = BOX2(0, 0, 512, 1024);
	for (i = 0; i < 4; i++)
		world.parts[i] = BOX2(0, 256 * i, 512, 256);
	test_store_make(&store, &world, true, &dice);
	check_range(&store, NULL, 0, LIMIT_READ_SIZE);
	check_range(&store, NULL, 512, LIMIT_READ_SIZE);
	check_range(&store, NULL, LIMIT_READ_SIZE, LIMIT_READ_SIZE);
	check_range(&store, NULL, 0, LIMIT_READ_SIZE / 2);
	test_store_free(&store);
}

/* Let go of what was built, for something else in its place. */
static void store_forget(struct test_store *store)
{
	source_file_destroy(store->source);
	store->source = NULL;
	catalog_put(store->catalog);
}

/* A store of one tensor whose only item is @item. */
static void make_single(struct test_store *store, const struct world *world,
			const struct array *item)
{
	struct notes notes;
	struct catalog_builder *builder;

	test_store_make(store, world, true, &dice);
	store_forget(store);
	builder = catalog_out_create(&notes);
	catalog_out_begin(builder, "w", world->dtype, &world->shape);
	catalog_out_shard(builder, world->parts[0], "single", 0, item->size);
	catalog_out_end(builder);
	store->catalog = catalog_out_finish(builder);
	folder_write(&store->folder, "single", item->data, item->size);
	test_store_open(store);
}

/* One row for all, by a stride of 0. */
static void expanded_tensor(void **state)
{
	static unsigned char row[5000];
	const struct box shape = BOX2(0, 0, 60, sizeof(row));
	struct item_spec spec = item_spec_make(DTYPE_U8, 2, shape.size);
	struct world world = { .dtype = DTYPE_U8, .shape = shape,
			       .part_count = 1, .parts = { shape } };
	struct array item = { .data = NULL };
	struct test_store store;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(row); i++)
		row[i] = (unsigned char)dice_any(&dice);
	spec.stride[0] = 0;
	spec.storage = row;
	spec.storage_size = sizeof(row);
	item_out(&item, &spec);
	make_single(&store, &world, &item);
	for (i = 0; i < store.size; i++)
		store.bytes[i] = row[i % sizeof(row)];
	check_range(&store, NULL, 0, store.size);
	check_random_ranges(&store, 20);
	test_store_free(&store);
	array_finish(&item);
}

/* Where shards overlap the one that is listed last is seen. */
static void last_of_overlapping_shards(void **state)
{
	struct world world = { .dtype = DTYPE_U8, .part_count = 3 };
	struct item_spec spec;
	struct array item = { .data = NULL };
	struct notes notes;
	struct catalog_builder *builder;
	unsigned char storage[40], found[60];
	struct test_store store;
	unsigned i;

	(void)state;
	world.shape = BOX1(0, 60);
	world.parts[0] = BOX1(20, 40);
	world.parts[1] = BOX1(0, 30);
	world.parts[2] = BOX1(10, 15);
	test_store_make(&store, &world, true, &dice);
	store_forget(&store);
	builder = catalog_out_create(&notes);
	catalog_out_begin(builder, "w", DTYPE_U8, &world.shape);
	for (i = 0; i < 3; i++) {
		uint64_t start = item.size;

		memset(storage, 'a' + (int)i, sizeof(storage));
		spec = item_spec_make(DTYPE_U8, 1, world.parts[i].size);
		spec.storage = storage;
		item_out(&item, &spec);
		catalog_out_shard(builder, world.parts[i], "single", start,
				  item.size - start);
	}
	catalog_out_end(builder);
	store.catalog = catalog_out_finish(builder);
	folder_write(&store.folder, "single", item.data, item.size);
	test_store_open(&store);
	assert_int_equal(test_store_read(&store, NULL, 0, 60), 0);
	test_store_copy(&store, found);
	for (i = 0; i < 60; i++)
		assert_int_equal(found[i], i >= 10 && i < 25 ? 'c' :
					   i < 30 ? 'b' : 'a');
	test_store_free(&store);
	array_finish(&item);
}

/* Then volumes do not say whether a range is all there. */
static void holes_beside_overlaps(void **state)
{
	struct world world = { .dtype = DTYPE_U8, .part_count = 3 };
	struct test_store store;
	uint64_t offset, size;

	(void)state;
	world.shape = BOX2(0, 0, 4, 6);
	world.parts[0] = BOX2(0, 0, 2, 4);
	world.parts[1] = BOX2(0, 2, 3, 4);
	world.parts[2] = BOX2(3, 0, 1, 5);
	test_store_make(&store, &world, true, &dice);
	assert_int_equal(catalog_entry(store.catalog, 0)->flags,
			 CATALOG_HOLES | CATALOG_OVERLAP);
	for (offset = 0; offset < 24; offset++)
		for (size = 0; size <= 24 - offset; size++)
			check_range(&store, NULL, offset, size);
	test_store_free(&store);
}

static void types_without_bytes_are_not_served(void **state)
{
	struct world world = { .dtype = DTYPE_U8, .part_count = 1 };
	struct test_store store;

	(void)state;
	world.shape = world.parts[0] = BOX1(0, 10);
	test_store_make(&store, &world, true, &dice);
	((struct catalog_entry *)(uintptr_t)
		 catalog_entry(store.catalog, 0))->dtype = DTYPE_QU4X2;
	assert_int_equal(test_store_read(&store, NULL, 0, 5), -EOPNOTSUPP);
	((struct catalog_entry *)(uintptr_t)
		 catalog_entry(store.catalog, 0))->dtype = DTYPE_UNKNOWN;
	assert_int_equal(test_store_read(&store, NULL, 0, 0), -EOPNOTSUPP);
	test_store_free(&store);
}

static void transformed_items_are_not_read(void **state)
{
	struct world world = { .dtype = DTYPE_U8, .part_count = 2 };
	struct test_store store;

	(void)state;
	world.shape = BOX1(0, 20);
	world.parts[0] = BOX1(0, 10);
	world.parts[1] = BOX1(10, 10);
	test_store_make(&store, &world, true, &dice);
	((struct catalog_shard *)(uintptr_t)catalog_shard(store.catalog,
		catalog_entry(store.catalog, 0), 1))->flags =
		CATALOG_TRANSFORMED;
	assert_int_equal(test_store_read(&store, NULL, 0, 20), -EOPNOTSUPP);
	check_range(&store, NULL, 0, 10);
	test_store_free(&store);
}

/* A source around a source: the @countdown-th read fails. */
struct failing {
	struct source base;
	struct source *below;
	unsigned countdown, calls;
	int error;
};

static int failing_read(struct source *source, const struct plan *plan,
			const struct piece *pieces, unsigned count,
			struct reply *reply)
{
	struct failing *failing = (struct failing *)source;

	failing->calls++;
	if (failing->countdown > 0 && --failing->countdown == 0)
		return failing->error;
	return failing->below->read(failing->below, plan, pieces, count,
				    reply);
}

static void nth_read_of_a_source_fails(void **state)
{
	static const int errors[] = { -EIO, -ESTALE, -ENOMEM, -EAGAIN };
	const struct world_limits limits = { .ndim = 3, .volume = 400 };
	unsigned round, n;

	(void)state;
	for (round = 0; round < 40; round++) {
		struct failing failing = { .base.read = failing_read };
		struct transfer transfer = { .source = &failing.base };
		unsigned char *expected, *found;
		struct world world;
		struct test_store store;
		int error = -1;

		world_make(&world, &limits, &dice);
		test_store_make(&store, &world, false, &dice);
		expected = malloc(store.size + 1);
		found = malloc(store.size + 1);
		assert_true(expected && found);
		test_store_expect(&store, NULL, 0, store.size, expected);
		failing.below = source_file_source(store.source);
		failing.error = errors[round % COUNT_OF(errors)];
		transfer.catalog = store.catalog;
		transfer.entry = catalog_entry(store.catalog, 0);
		transfer.selection = &world.shape;
		transfer.size = store.size;
		for (n = 1; error; n++) {
			assert_true(n < 100);
			failing.countdown = n;
			failing.calls = 0;
			error = reading(&transfer, store.reply);
			if (!error)
				break;
			assert_int_equal(error, failing.error);
			/* It stops there. */
			assert_int_equal(failing.calls, n);
		}
		test_store_copy(&store, found);
		assert_memory_equal(found, expected, store.size);
		free(expected);
		free(found);
		test_store_free(&store);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_tensors_in_any_layout),
		cmocka_unit_test(large_tensors_in_any_layout),
		cmocka_unit_test(large_row_major_tensors),
		cmocka_unit_test(long_runs),
		cmocka_unit_test(more_runs_than_vectors),
		cmocka_unit_test(expanded_tensor),
		cmocka_unit_test(last_of_overlapping_shards),
		cmocka_unit_test(holes_beside_overlaps),
		cmocka_unit_test(types_without_bytes_are_not_served),
		cmocka_unit_test(transformed_items_are_not_read),
		cmocka_unit_test(nth_read_of_a_source_fails),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("transfer", tests, NULL, NULL);
}
