/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/refusal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct notes notes;

/* The catalog of one tensor of @shape; shard N is stored at offset N. */
static struct catalog *build(const struct box *shape, unsigned count,
			     const struct box *boxes)
{
	struct catalog_builder *builder = catalog_out_create(&notes);
	unsigned i;

	catalog_out_begin(builder, "the.name", DTYPE_F32, shape);
	for (i = 0; i < count; i++)
		catalog_out_shard(builder, boxes[i], "f", i, 1);
	catalog_out_end(builder);
	return catalog_out_finish(builder);
}

/* The shards that were kept, by the order in which they were given; 9: hole. */
static void check_order(const struct catalog *catalog, const char *expected)
{
	const struct catalog_entry *entry = catalog_entry(catalog, 0);
	char order[32] = "";
	uint64_t i;

	assert_true(entry->shard_count + entry->hole_count < sizeof(order));
	for (i = 0; i < entry->shard_count + entry->hole_count; i++) {
		const struct catalog_shard *shard =
			catalog_shard(catalog, entry, i);

		order[i] = shard->file == CATALOG_NO_FILE ? '9' :
			   (char)('0' + shard->offset);
	}
	assert_string_equal(order, expected);
}

static void tiles_are_sorted(void **state)
{
	const struct box shape = BOX2(0, 0, 4, 4);
	const struct box boxes[] = { BOX2(2, 2, 2, 2), BOX2(0, 2, 2, 2),
				     BOX2(2, 0, 2, 2), BOX2(0, 0, 2, 2) };
	struct catalog *catalog = build(&shape, 4, boxes);
	const struct catalog_entry *entry = catalog_entry(catalog, 0);

	(void)state;
	check_order(catalog, "3120");
	assert_int_equal(entry->flags, 0);
	assert_int_equal(catalog_shard(catalog, entry, 1)->reach, 2);
	assert_int_equal(catalog_shard(catalog, entry, 3)->reach, 4);
	assert_int_equal(notes.count, 0);
	catalog_put(catalog);
}

static void reach_is_the_largest_end_so_far(void **state)
{
	const struct box shape = BOX2(0, 0, 4, 2);
	const struct box boxes[] = { BOX2(0, 0, 4, 1), BOX2(0, 1, 1, 1),
				     BOX2(1, 1, 3, 1) };
	struct catalog *catalog = build(&shape, 3, boxes);
	const struct catalog_entry *entry = catalog_entry(catalog, 0);
	uint64_t i;

	(void)state;
	for (i = 0; i < 3; i++)
		assert_int_equal(catalog_shard(catalog, entry, i)->reach, 4);
	catalog_put(catalog);
}

static void same_shard_twice_counts_once(void **state)
{
	const struct box shape = BOX1(0, 4);
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct catalog *catalog;

	(void)state;
	catalog_out_begin(builder, "w", DTYPE_F32, &shape);
	catalog_out_shard(builder, BOX1(2, 2), "f", 1, 5);
	catalog_out_shard(builder, BOX1(0, 2), "f", 0, 5);
	catalog_out_shard(builder, BOX1(2, 2), "f", 1, 5);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	check_order(catalog, "01");
	assert_int_equal(catalog_entry(catalog, 0)->flags, 0);
	catalog_put(catalog);
}

static void overlapping_shards_keep_their_order(void **state)
{
	const struct box shape = BOX1(0, 10);
	const struct box boxes[] = { BOX1(6, 4), BOX1(0, 5), BOX1(4, 3) };
	struct catalog *catalog = build(&shape, 3, boxes);

	(void)state;
	check_order(catalog, "012");
	assert_int_equal(catalog_entry(catalog, 0)->flags, CATALOG_OVERLAP);
	assert_int_equal(notes.count, 1);
	assert_non_null(strstr(notes.line[0], "the.name"));
	assert_non_null(strstr(notes.line[0], "overlap"));
	catalog_put(catalog);
}

static void holes_stand_at_the_end(void **state)
{
	const struct box shape = BOX1(0, 10);
	const struct box boxes[] = { BOX1(6, 2), BOX1(1, 3) };
	struct catalog *catalog = build(&shape, 2, boxes);
	const struct catalog_entry *entry = catalog_entry(catalog, 0);
	bool missing[10] = { false };
	struct box box;
	uint64_t i, j;

	(void)state;
	assert_int_equal(entry->flags, CATALOG_HOLES);
	assert_int_equal(entry->hole_count, 3);
	assert_int_equal(entry->shard_count, 2);
	check_order(catalog, "10999");
	for (i = 2; i < 5; i++) {
		catalog_box(catalog, entry, i, &box);
		for (j = 0; j < box.size[0]; j++)
			missing[box.offset[0] + j] = true;
	}
	for (i = 0; i < 10; i++)
		assert_int_equal(missing[i], i < 1 || (i >= 4 && i < 6) ||
					     i >= 8);
	assert_int_equal(notes.count, 1);
	assert_non_null(strstr(notes.line[0], "the.name"));
	assert_non_null(strstr(notes.line[0], "missing"));
	catalog_put(catalog);
}

/* Older writers left the offsets of empty shards undefined. */
static void empty_shards_may_lie_anywhere(void **state)
{
	const struct box shape = BOX2(0, 0, 3, 5);
	const struct box boxes[] = { BOX2(3, 0, 0, 5), BOX2(0, 0, 3, 5),
				     BOX2(UINT64_MAX, 7, 0, 9),
				     BOX2(0, 0, 0, 5) };
	struct catalog *catalog = build(&shape, 4, boxes);
	const struct catalog_entry *entry = catalog_entry(catalog, 0);

	(void)state;
	assert_int_equal(entry->shard_count, 4);
	assert_int_equal(entry->flags, 0);
	assert_int_equal(notes.count, 0);
	catalog_put(catalog);
}

static void shards_out_of_bounds_are_refused(void **state)
{
	const struct box shape = BOX2(0, 0, 4, 4);
	const struct box boxes[] = {
		BOX2(0, 0, 5, 4), BOX2(0, 0, 4, 5), BOX2(1, 0, 4, 4),
		BOX2(0, 4, 1, 1), BOX2(5, 0, 1, 1),
		BOX2(UINT64_MAX, 0, 1, 1), BOX2(UINT64_MAX, 0, 2, 1),
		BOX2(1, 0, UINT64_MAX, 1),
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(boxes); i++) {
		struct catalog_builder *builder = catalog_out_create(&notes);
		const struct catalog_tensor tensor = {
			.name = "out\nof", .name_size = 6,
			.dtype = DTYPE_F32, .shape = shape, .source = 4711,
		};
		const struct catalog_item item = { .size = 1 };
		struct fault fault;

		assert_int_equal(catalog_builder_begin(builder, &tensor,
						       &fault), 0);
		assert_int_equal(catalog_builder_shard(builder, &boxes[i],
						       &item, &fault),
				 -EBADMSG);
		refusal_check("bounds", &fault, -EBADMSG, 4711, "out of the");
		assert_string_equal(fault.detail, "out?of");
		catalog_builder_destroy(builder);
	}
}

static void impossible_shapes_are_refused(void **state)
{
	const struct box shapes[] = {
		BOX1(0, UINT64_MAX),
		BOX1(0, LIMIT_TENSOR_SIZE / 16 + 1),
		BOX2(0, 0, UINT64_C(1) << 32, UINT64_C(1) << 32),
		BOX2(0, 0, UINT64_C(1) << 40, UINT64_C(1) << 40),
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(shapes); i++) {
		struct catalog_builder *builder = catalog_out_create(&notes);
		const struct catalog_tensor tensor = {
			.name = "w", .name_size = 1, .dtype = DTYPE_C128,
			.shape = shapes[i], .source = 5,
		};
		struct fault fault;

		assert_int_equal(catalog_builder_begin(builder, &tensor,
						       &fault), -E2BIG);
		refusal_check("shape", &fault, -E2BIG, 5, "too large");
		catalog_builder_destroy(builder);
	}
}

/* 12 bits times 2^62 are none, to who does not look. */
static void impossible_packed_shapes_are_refused(void **state)
{
	static const uint64_t written[] = { 0, UINT64_C(1) << 62, 3 };
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct catalog_tensor tensor = {
		.name = "w", .name_size = 1, .dtype = DTYPE_F4,
		.shape = { .ndim = 3, .size = { 0, 1, 0 } },
		.written = written, .source = 5,
	};
	struct fault fault;

	(void)state;
	assert_int_equal(catalog_builder_begin(builder, &tensor, &fault),
			 -E2BIG);
	refusal_check("shape", &fault, -E2BIG, 5, "too large");
	catalog_builder_destroy(builder);
}

static void empty_tensors(void **state)
{
	const struct box shape = BOX2(0, 0, 0, 7);
	const struct box boxes[] = { BOX2(0, 0, 0, 7) };
	struct catalog *catalog = build(&shape, 1, boxes);

	(void)state;
	assert_int_equal(catalog_entry(catalog, 0)->size, 0);
	assert_int_equal(catalog_entry(catalog, 0)->flags, 0);
	catalog_put(catalog);
	catalog = build(&shape, 0, NULL);
	assert_int_equal(catalog_entry(catalog, 0)->flags, 0);
	catalog_put(catalog);
}

static void unknown_types_keep_their_name(void **state)
{
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct catalog_tensor tensor = {
		.name = "w", .name_size = 1, .dtype = DTYPE_UNKNOWN,
		.type_name = "int3", .type_name_size = 4,
		.shape = { .ndim = 0 },
	};
	const struct catalog_entry *entry;
	struct catalog *catalog;
	struct fault fault;

	(void)state;
	assert_int_equal(catalog_builder_begin(builder, &tensor, &fault), 0);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	entry = catalog_entry(catalog, 0);
	assert_int_equal(entry->size, 0);
	assert_int_equal(entry->type_name_size, 4);
	assert_memory_equal(catalog_text(catalog, entry->type_name), "int3",
			    4);
	catalog_put(catalog);
}

/* A name of no bytes has no place either. */
static void unknown_type_without_a_name(void **state)
{
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct catalog_tensor tensor = {
		.name = "w", .name_size = 1, .dtype = DTYPE_UNKNOWN,
		.type_name = "", .shape = { .ndim = 0 },
	};
	struct catalog *catalog;
	struct fault fault;

	(void)state;
	assert_int_equal(catalog_builder_begin(builder, &tensor, &fault), 0);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	assert_int_equal(catalog_entry(catalog, 0)->type_name_size, 0);
	assert_int_equal(catalog_entry(catalog, 0)->type_name, 0);
	catalog_put(catalog);
}

static void objects_come_after_tensors(void **state)
{
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct catalog_item item = { .offset = 7, .size = 123 };
	const struct box scalar = { .ndim = 0 };
	const struct catalog_entry *entry;
	struct catalog *catalog;
	struct fault fault;

	(void)state;
	assert_int_equal(catalog_builder_file(builder, "f", 1, &item.file),
			 0);
	assert_int_equal(catalog_builder_object(builder, "o", 1, &item,
						&fault), 0);
	catalog_out_begin(builder, "t", DTYPE_F32, &scalar);
	catalog_out_shard(builder, scalar, "f", 0, 1);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	assert_int_equal(catalog->tensor_count, 1);
	assert_int_equal(catalog->object_count, 1);
	assert_int_equal(catalog_find_object(catalog, "o", 1), 1);
	assert_int_equal(catalog_find_tensor(catalog, "o", 1), -1);
	assert_int_equal(catalog_find_object(catalog, "t", 1), -1);
	entry = catalog_entry(catalog, 1);
	assert_int_equal(entry->flags, CATALOG_OBJECT);
	assert_int_equal(entry->size, 123);
	assert_int_equal(catalog_shard(catalog, entry, 0)->offset, 7);
	catalog_put(catalog);
}

static void files_are_known_again(void **state)
{
	struct catalog_builder *builder = catalog_out_create(&notes);
	uint32_t i, file;
	char name[16];

	(void)state;
	for (i = 0; i < 6000; i++) {
		size_t size = 0;
		uint32_t n = i % 3000;

		do
			name[size++] = (char)('a' + n % 26);
		while (n /= 26);
		name[size++] = '.';
		assert_int_equal(catalog_builder_file(builder, name, size,
						      &file), 0);
		assert_int_equal(file, i % 3000);
	}
	catalog_builder_destroy(builder);
}

static void half_built_may_be_destroyed(void **state)
{
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct box shape = BOX1(0, 10);

	(void)state;
	catalog_out_begin(builder, "w", DTYPE_F32, &shape);
	catalog_out_shard(builder, BOX1(0, 5), "f", 0, 1);
	catalog_builder_destroy(builder);
	catalog_builder_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tiles_are_sorted),
		cmocka_unit_test(reach_is_the_largest_end_so_far),
		cmocka_unit_test(same_shard_twice_counts_once),
		cmocka_unit_test(overlapping_shards_keep_their_order),
		cmocka_unit_test(holes_stand_at_the_end),
		cmocka_unit_test(empty_shards_may_lie_anywhere),
		cmocka_unit_test(shards_out_of_bounds_are_refused),
		cmocka_unit_test(impossible_shapes_are_refused),
		cmocka_unit_test(impossible_packed_shapes_are_refused),
		cmocka_unit_test(empty_tensors),
		cmocka_unit_test(unknown_types_keep_their_name),
		cmocka_unit_test(unknown_type_without_a_name),
		cmocka_unit_test(objects_come_after_tensors),
		cmocka_unit_test(files_are_known_again),
		cmocka_unit_test(half_built_may_be_destroyed),
	};

	return cmocka_run_group_tests_name("catalog_builder", tests, NULL,
					   NULL);
}
