/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/catalog_zoo.h"

#include "shard/base/name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static void check_box(const struct catalog *catalog, uint64_t tensor,
		      uint64_t shard, struct box expected)
{
	struct box box;

	catalog_box(catalog, catalog_entry(catalog, tensor), shard, &box);
	assert_int_equal(box.ndim, expected.ndim);
	assert_memory_equal(box.offset, expected.offset,
			    box.ndim * sizeof(uint64_t));
	assert_memory_equal(box.size, expected.size,
			    box.ndim * sizeof(uint64_t));
}

/* Three tensors: small numbers, an odd count of them, and large ones. */
static struct catalog *make_sample(void)
{
	const uint64_t big = UINT64_C(1) << 33;
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct box small = BOX2(0, 0, 4, 6), scalar = { .ndim = 0 };
	const struct box large = BOX2(0, 0, big, 2);

	catalog_out_begin(builder, "small", DTYPE_F32, &small);
	catalog_out_shard(builder, BOX2(2, 0, 2, 6), "a", 10, 11);
	catalog_out_shard(builder, BOX2(0, 0, 2, 6), "b", 20, 21);
	catalog_out_end(builder);
	catalog_out_begin(builder, "scalar", DTYPE_I64, &scalar);
	catalog_out_shard(builder, scalar, "a", 30, 31);
	catalog_out_end(builder);
	catalog_out_begin(builder, "large", DTYPE_U8, &large);
	catalog_out_shard(builder, BOX2(0, 0, big - 1, 2), "c", 40, 41);
	catalog_out_shard(builder, BOX2(big - 1, 0, 1, 2), "a", 50, 51);
	catalog_out_end(builder);
	return catalog_out_finish(builder);
}

static void check_sample(const struct catalog *catalog)
{
	const uint64_t big = UINT64_C(1) << 33;
	const struct catalog_entry *entry;
	struct box shape;

	assert_int_equal(catalog->tensor_count, 3);
	assert_int_equal(catalog->shard_count, 5);
	assert_int_equal(catalog->file_count, 3);
	assert_int_equal(catalog_find_tensor(catalog, "small", 5), 0);
	assert_int_equal(catalog_find_tensor(catalog, "scalar", 6), 1);
	assert_int_equal(catalog_find_tensor(catalog, "large", 5), 2);
	assert_int_equal(catalog_find_tensor(catalog, "larg", 4), -1);
	assert_int_equal(catalog_find_tensor(catalog, "", 0), -1);
	assert_int_equal(catalog_find_object(catalog, "small", 5), -1);
	entry = catalog_entry(catalog, 0);
	assert_int_equal(entry->width, 4);
	assert_int_equal(entry->size, 4 * 6 * 4);
	check_box(catalog, 0, 0, BOX2(0, 0, 2, 6));
	check_box(catalog, 0, 1, BOX2(2, 0, 2, 6));
	assert_int_equal(catalog_shard(catalog, entry, 0)->offset, 20);
	assert_string_equal(catalog_text(catalog, catalog_file(catalog,
		catalog_shard(catalog, entry, 0)->file)->path), "b");
	entry = catalog_entry(catalog, 1);
	assert_int_equal(entry->size, 8);
	catalog_shape(catalog, entry, &shape);
	assert_int_equal(shape.ndim, 0);
	entry = catalog_entry(catalog, 2);
	assert_int_equal(entry->width, 8);
	assert_true(entry->size == 2 * big);
	catalog_shape(catalog, entry, &shape);
	assert_true(shape.size[0] == big && shape.offset[0] == 0);
	check_box(catalog, 2, 0, BOX2(0, 0, big - 1, 2));
	check_box(catalog, 2, 1, BOX2(big - 1, 0, 1, 2));
}

static void shapes_and_boxes(void **state)
{
	struct catalog *catalog = make_sample();

	(void)state;
	check_sample(catalog);
	catalog_put(catalog);
}

/* Flat: what another rank gets is the same bytes somewhere else. */
static void blob_can_be_moved(void **state)
{
	struct catalog *catalog = make_sample();
	uint64_t size = catalog->size;
	char *blob = malloc(size + 64);

	(void)state;
	assert_non_null(blob);
	memcpy(blob + 8, catalog, size);
	memset(catalog, 0xaa, size);
	catalog_put(catalog);
	check_sample((const struct catalog *)(void *)(blob + 8));
	free(blob);
}

/* From the entries to the names: not the hash tables, which are seeded. */
static void hash_is_that_of_the_content(void **state)
{
	struct catalog *catalog = make_sample();
	const uint64_t start = catalog->entries;
	XXH128_hash_t hash = XXH3_128bits((const char *)catalog + start,
					  catalog->tensor_slots - start);

	(void)state;
	assert_true(catalog->hash[0] == hash.low64);
	assert_true(catalog->hash[1] == hash.high64);
	catalog_put(catalog);
}

static void find_many(void **state)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct box scalar = { .ndim = 0 };
	struct catalog *catalog;
	char name[300], encoded[NAME_ENCODED_MAX];
	int64_t i;

	(void)state;
	for (i = 0; i < 20000; i++) {
		/* Every third is cut and hashed, every fifth escaped. */
		snprintf(name, sizeof(name), "%s%0*d", i % 5 ? "" : "a/",
			 i % 3 ? 1 : 200, (int)i);
		catalog_out_begin(builder, name, DTYPE_F32, &scalar);
		catalog_out_shard(builder, scalar, "f", (uint64_t)i, 1);
		catalog_out_end(builder);
	}
	catalog = catalog_out_finish(builder);
	for (i = 0; i < 20000; i++) {
		size_t size;

		snprintf(name, sizeof(name), "%s%0*d", i % 5 ? "" : "a/",
			 i % 3 ? 1 : 200, (int)i);
		size = name_encode(name, strlen(name), encoded);
		assert_int_equal(catalog_find_tensor(catalog, encoded, size),
				 i);
		if (strcmp(name, encoded) != 0)
			assert_int_equal(catalog_find_tensor(catalog, name,
							     strlen(name)),
					 -1);
		assert_int_equal(catalog_find_tensor(catalog, encoded,
						     size - 1) == i, 0);
	}
	catalog_put(catalog);
}

static void empty_catalog(void **state)
{
	struct notes notes;
	struct catalog *catalog =
		catalog_out_finish(catalog_out_create(&notes));

	(void)state;
	assert_int_equal(catalog->tensor_count, 0);
	assert_int_equal(catalog->object_count, 0);
	assert_int_equal(catalog_find_tensor(catalog, "w", 1), -1);
	assert_int_equal(catalog_find_object(catalog, "", 0), -1);
	catalog_put(catalog);
}

/* The case of design.md: tensors of 2 axes over many ranks. */
static void memory_per_shard(void **state)
{
	enum { TENSORS = 50, RANKS = 256 };
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct box shape = BOX2(0, 0, 4 * RANKS, 16);
	struct catalog *catalog;
	uint64_t i, j, names = 0;
	char name[40];

	(void)state;
	for (i = 0; i < TENSORS; i++) {
		names += (uint64_t)snprintf(name, sizeof(name), "layer.%d",
					    (int)i);
		catalog_out_begin(builder, name, DTYPE_F32, &shape);
		for (j = 0; j < RANKS; j++) {
			char file[40];

			snprintf(file, sizeof(file), "__%d_0.distcp", (int)j);
			catalog_out_shard(builder, BOX2(4 * j, 0, 4, 16),
					  file, 1000 * i, 1000);
		}
		catalog_out_end(builder);
	}
	catalog = catalog_out_finish(builder);
	assert_true((catalog->size - names) / catalog->shard_count <= 100);
	catalog_put(catalog);
}

/* Whoever puts it last frees it: the sanitizer sees that. */
static void shared_by_reference(void **state)
{
	struct catalog *catalog = catalog_zoo(), *other;

	(void)state;
	other = catalog_get(catalog);
	assert_ptr_equal(other, catalog);
	catalog_put(catalog);
	assert_int_equal(catalog_entry(other, ZOO_PLAIN)->ndim, 2);
	catalog_put(other);
	catalog_put(NULL);
	assert_null(catalog_create(UINT64_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shared_by_reference),
		cmocka_unit_test(shapes_and_boxes),
		cmocka_unit_test(blob_can_be_moved),
		cmocka_unit_test(hash_is_that_of_the_content),
		cmocka_unit_test(find_many),
		cmocka_unit_test(empty_catalog),
		cmocka_unit_test(memory_per_shard),
	};

	return cmocka_run_group_tests_name("catalog", tests, NULL, NULL);
}
