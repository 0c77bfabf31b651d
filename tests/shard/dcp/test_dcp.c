/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata as its writers make it, read into a catalog. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/metadata_out.h"

#include <stdlib.h>
#include <string.h>

static struct notes notes;

static struct catalog *read_one(struct metadata *metadata)
{
	struct array text = { .data = NULL };

	metadata_finish(metadata, &text);
	return metadata_read(&text, 1, false, &notes);
}

/* Shard @index of tensor @name lies at @offset of @path. */
static void check_shard(const struct catalog *catalog, const char *name,
			uint64_t index, const char *path, uint64_t offset)
{
	int64_t found = catalog_find_tensor(catalog, name, strlen(name));
	const struct catalog_shard *shard;

	assert_true(found >= 0);
	shard = catalog_shard(catalog,
			      catalog_entry(catalog, (uint64_t)found), index);
	assert_string_equal(catalog_text(catalog,
		catalog_file(catalog, shard->file)->path), path);
	assert_int_equal(shard->offset, offset);
}

/* Two tensors in three shards, and an object. */
static void fill_sample(struct metadata *m)
{
	const struct box shape = BOX2(0, 0, 4, 6), scalar = { .ndim = 0 };
	const struct box low = BOX2(0, 0, 2, 6), high = BOX2(2, 0, 2, 6);

	metadata_begin(m, "model.w", "bfloat16", 2, shape.size);
	metadata_chunk(m, &low);
	metadata_chunk(m, &high);
	metadata_end(m);
	metadata_whole(m, "step", "float32", &scalar,
		       (struct metadata_place){ "__1_0.distcp", 77, 5 });
	metadata_object(m, "lr");
	metadata_item(m, "model.w", &high,
		      (struct metadata_place){ "__1_0.distcp", 0, 77 });
	metadata_item(m, "lr", NULL,
		      (struct metadata_place){ "__0_0.distcp", 0, 9 });
	metadata_item(m, "model.w", &low,
		      (struct metadata_place){ "__0_0.distcp", 9,
					       INT64_C(5000000000) });
}

static void check_sample(struct metadata *m)
{
	const struct catalog_entry *entry;
	struct catalog *catalog;

	fill_sample(m);
	catalog = read_one(m);
	assert_int_equal(notes.count, 0);
	assert_int_equal(catalog->tensor_count, 2);
	assert_int_equal(catalog->object_count, 1);
	assert_int_equal(catalog->file_count, 2);
	entry = catalog_entry(catalog, 0);
	assert_int_equal(entry->dtype, DTYPE_BF16);
	assert_int_equal(entry->size, 48);
	assert_int_equal(entry->flags, 0);
	check_shard(catalog, "model.w", 0, "__0_0.distcp", 9);
	check_shard(catalog, "model.w", 1, "__1_0.distcp", 0);
	check_shard(catalog, "step", 0, "__1_0.distcp", 77);
	assert_true(catalog_shard(catalog, entry, 0)->size ==
		    UINT64_C(5000000000));
	assert_int_equal(catalog_entry(catalog, 1)->ndim, 0);
	assert_int_equal(catalog_find_object(catalog, "lr", 2), 2);
	assert_int_equal(catalog_entry(catalog, 2)->size, 9);
	catalog_put(catalog);
}

static void as_torch_writes_it(void **state)
{
	unsigned protocol;

	(void)state;
	for (protocol = 2; protocol <= 5; protocol++) {
		struct metadata metadata = { .protocol = protocol };

		check_sample(&metadata);
	}
}

static void modules_of_torch_1_13(void **state)
{
	struct metadata metadata = { .protocol = 4, .old = true };

	(void)state;
	check_sample(&metadata);
}

static void extra_attributes_of_megatron(void **state)
{
	struct metadata metadata = { .megatron = true };

	(void)state;
	check_sample(&metadata);
}

static void transformed_items_are_marked(void **state)
{
	struct metadata metadata = { .transform = "stream.zstd/1" };
	struct catalog *catalog;

	(void)state;
	fill_sample(&metadata);
	catalog = read_one(&metadata);
	assert_int_equal(catalog_shard(catalog, catalog_entry(catalog, 0),
				       0)->flags, CATALOG_TRANSFORMED);
	catalog_put(catalog);
}

static void empty_checkpoint(void **state)
{
	struct metadata metadata = { .protocol = 4 };
	struct catalog *catalog = read_one(&metadata);

	(void)state;
	assert_int_equal(catalog->tensor_count, 0);
	assert_int_equal(catalog->object_count, 0);
	catalog_put(catalog);
}

static void unknown_type_keeps_its_name(void **state)
{
	struct metadata metadata = { .protocol = 4 };
	const struct box shape = BOX1(0, 4);
	const struct catalog_entry *entry;
	struct catalog *catalog;

	(void)state;
	metadata_whole(&metadata, "w", "int3", &shape,
		       (struct metadata_place){ "f", 0, 9 });
	catalog = read_one(&metadata);
	entry = catalog_entry(catalog, 0);
	assert_int_equal(entry->dtype, DTYPE_UNKNOWN);
	assert_int_equal(entry->type_name_size, 4);
	assert_memory_equal(catalog_text(catalog, entry->type_name), "int3",
			    4);
	catalog_put(catalog);
}

/* A chunk without an item is a hole; an object without one is left out. */
static void items_that_are_not_there(void **state)
{
	struct metadata metadata = { .protocol = 4 };
	const struct box shape = BOX1(0, 4), low = BOX1(0, 2),
			 high = BOX1(2, 2);
	struct catalog *catalog;

	(void)state;
	metadata_begin(&metadata, "w", "float32", 1, shape.size);
	metadata_chunk(&metadata, &low);
	metadata_chunk(&metadata, &high);
	metadata_end(&metadata);
	metadata_object(&metadata, "o");
	metadata_item(&metadata, "w", &high,
		      (struct metadata_place){ "f", 0, 9 });
	metadata_item(&metadata, "stray", &high,
		      (struct metadata_place){ "g", 0, 9 });
	catalog = read_one(&metadata);
	assert_int_equal(catalog->object_count, 0);
	assert_int_equal(catalog_entry(catalog, 0)->hole_count, 1);
	assert_int_equal(notes.count, 3);
	assert_non_null(strstr(notes.line[0], "w: a shard has no"));
	/* Files that nothing lies in are nobody's. */
	assert_int_equal(catalog->file_count, 1);
	catalog_put(catalog);
}

/* The last of two items with one index is taken, as in a Python dict. */
static void later_item_of_one_file_wins(void **state)
{
	struct metadata metadata = { .protocol = 4 };
	const struct box shape = BOX1(0, 4);
	struct catalog *catalog;

	(void)state;
	metadata_whole(&metadata, "w", "float32", &shape,
		       (struct metadata_place){ "old", 0, 9 });
	metadata_item(&metadata, "w", &shape,
		      (struct metadata_place){ "new", 1, 9 });
	catalog = read_one(&metadata);
	check_shard(catalog, "w", 0, "new", 1);
	catalog_put(catalog);
}

/* Rank-local metadata: each rank has its rows, all have what is replicated. */
static void union_of_ranks(void **state)
{
	const struct box shape = BOX2(0, 0, 6, 2), scalar = { .ndim = 0 };
	struct array texts[3] = { { .data = NULL } };
	static const char *const paths[] = { "__0_0.distcp", "__1_0.distcp",
					     "__2_0.distcp" };
	struct catalog *catalog;
	unsigned rank;

	(void)state;
	for (rank = 0; rank < 3; rank++) {
		struct metadata metadata = { .protocol = 5 };
		const struct box rows = BOX2(2 * rank, 0, 2, 2);

		metadata_begin(&metadata, "w", "float32", 2, shape.size);
		metadata_chunk(&metadata, &rows);
		metadata_end(&metadata);
		metadata_item(&metadata, "w", &rows, (struct metadata_place){
			      paths[rank], 100, 9 });
		metadata_whole(&metadata, "replicated", "float32", &scalar,
			(struct metadata_place){ paths[rank], 7, 9 });
		if (rank == 1)
			metadata_whole(&metadata, "own", "float32", &scalar,
				(struct metadata_place){ paths[rank], 8, 9 });
		metadata_object(&metadata, "o");
		metadata_item(&metadata, "o", NULL, (struct metadata_place){
			      paths[rank], 3, 4 });
		metadata_finish(&metadata, &texts[rank]);
	}
	catalog = metadata_read(texts, 3, true, &notes);
	assert_int_equal(catalog->tensor_count, 3);
	assert_int_equal(catalog->object_count, 1);
	assert_int_equal(notes.count, 0);
	for (rank = 0; rank < 3; rank++)
		check_shard(catalog, "w", rank, paths[rank], 100);
	check_shard(catalog, "replicated", 0, paths[0], 7);
	check_shard(catalog, "own", 0, paths[1], 8);
	assert_int_equal(catalog_entry(catalog, (uint64_t)
		catalog_find_tensor(catalog, "replicated", 10))->shard_count,
		1);
	catalog_put(catalog);
}

static void ranks_that_disagree(void **state)
{
	const struct box four = BOX1(0, 4), five = BOX1(0, 5);
	struct metadata first = { .protocol = 4 }, second = first;
	struct array texts[2] = { { .data = NULL } };
	const struct catalog_entry *entry;
	struct catalog *catalog;

	(void)state;
	metadata_whole(&first, "w", "float32", &four,
		       (struct metadata_place){ "a", 0, 9 });
	metadata_whole(&second, "w", "float32", &five,
		       (struct metadata_place){ "b", 0, 9 });
	metadata_finish(&first, &texts[0]);
	metadata_finish(&second, &texts[1]);
	catalog = metadata_read(texts, 2, true, &notes);
	entry = catalog_entry(catalog, 0);
	assert_int_equal(entry->size, 16);
	check_shard(catalog, "w", 0, "a", 0);
	assert_int_equal(notes.count, 1);
	assert_non_null(strstr(notes.line[0], "disagree"));
	catalog_put(catalog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_torch_writes_it),
		cmocka_unit_test(modules_of_torch_1_13),
		cmocka_unit_test(extra_attributes_of_megatron),
		cmocka_unit_test(transformed_items_are_marked),
		cmocka_unit_test(empty_checkpoint),
		cmocka_unit_test(unknown_type_keeps_its_name),
		cmocka_unit_test(items_that_are_not_there),
		cmocka_unit_test(later_item_of_one_file_wins),
		cmocka_unit_test(union_of_ranks),
		cmocka_unit_test(ranks_that_disagree),
	};

	return cmocka_run_group_tests_name("dcp", tests, NULL, NULL);
}
