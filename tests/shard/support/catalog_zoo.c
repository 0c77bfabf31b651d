/* SPDX-License-Identifier: Apache-2.0 */
#include "support/catalog_zoo.h"

#include "support/test.h"

#include <string.h>

#define BOX0 catalog_out_box(0, NULL, NULL)

static void add_whole(struct catalog_builder *builder, const char *name,
		      enum dtype dtype, struct box shape)
{
	catalog_out_begin(builder, name, dtype, &shape);
	catalog_out_shard(builder, shape, "a", 1000, 100);
	catalog_out_end(builder);
}

static void add_object(struct catalog_builder *builder, const char *name)
{
	struct catalog_item item = { .offset = 3000, .size = 77 };
	struct fault fault;

	assert_int_equal(catalog_builder_file(builder, "a", 1, &item.file), 0);
	assert_int_equal(catalog_builder_object(builder, name, strlen(name),
						&item, &fault), 0);
}

/* What catalog_out.h has no call for: @tensor, whose only shard is @item. */
static void add_special(struct catalog_builder *builder,
			struct catalog_tensor *tensor,
			struct catalog_item *item)
{
	struct fault fault;

	tensor->name_size = strlen(tensor->name);
	assert_int_equal(catalog_builder_file(builder, "dir/c", 5,
					      &item->file), 0);
	assert_int_equal(catalog_builder_begin(builder, tensor, &fault), 0);
	assert_int_equal(catalog_builder_shard(builder, &tensor->shape, item,
					       &fault), 0);
	assert_int_equal(catalog_builder_end(builder, &fault), 0);
}

static void add_deep(struct catalog_builder *builder)
{
	static const uint32_t ends[] = { 9, 15 };
	struct catalog_tensor tensor = {
		.name = "app.model.layer.w", .name_size = 17,
		.dtype = DTYPE_BF16, .shape = BOX2(0, 0, 3, 6),
		.path = ends, .depth = 3,
	};
	struct fault fault;

	assert_int_equal(catalog_builder_begin(builder, &tensor, &fault), 0);
	catalog_out_shard(builder, BOX2(0, 4, 3, 2), "b", 500, 50);
	catalog_out_shard(builder, BOX2(0, 0, 3, 4), "a", 500, 50);
	catalog_out_end(builder);
}

static void add_large(struct catalog_builder *builder)
{
	const uint64_t rows = UINT64_C(1) << 33;
	const struct box shape = BOX2(0, 0, rows, 2);

	catalog_out_begin(builder, "large", DTYPE_U8, &shape);
	catalog_out_shard(builder, BOX2(0, 0, rows - 1, 2), "a", 1 << 20,
			  2 * rows);
	catalog_out_shard(builder, BOX2(rows - 1, 0, 1, 2), "b", 700, 10);
	catalog_out_end(builder);
}

static void add_packed(struct catalog_builder *builder)
{
	static const uint64_t written[] = { 5, 2, 3 };
	struct catalog_tensor tensor = {
		.name = "packed", .dtype = DTYPE_F4, .written = written,
		.shape = { .ndim = 3, .size = { 5, 1, 3 } },
	};
	struct catalog_item item = { .flags = CATALOG_RAW, .size = 15 };

	add_special(builder, &tensor, &item);
}

static void add_unknown(struct catalog_builder *builder)
{
	struct catalog_tensor tensor = {
		.name = "unknown", .shape = BOX1(0, 2),
		.type_name = "weird", .type_name_size = 5,
	};
	struct catalog_item item = { .offset = 200, .size = 20 };

	add_special(builder, &tensor, &item);
}

static void add_coded(struct catalog_builder *builder)
{
	static const char chain[] = "stream.zstd/1\n";
	struct catalog_tensor tensor = {
		.name = "coded", .dtype = DTYPE_F32, .shape = BOX1(0, 4),
	};
	struct catalog_item item = { .offset = 300, .size = 9 };

	assert_int_equal(catalog_builder_transform(builder, chain,
						   strlen(chain),
						   &item.flags), 0);
	add_special(builder, &tensor, &item);
}

struct catalog *catalog_zoo(void)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct box plain = BOX2(0, 0, 4, 6), bare = BOX2(0, 0, 3, 0);
	const struct box four = BOX1(0, 4);

	catalog_out_begin(builder, "plain", DTYPE_F32, &plain);
	catalog_out_shard(builder, BOX2(2, 0, 2, 6), "b", 64, 148);
	catalog_out_shard(builder, BOX2(0, 0, 2, 6), "a", 64, 148);
	catalog_out_end(builder);
	add_whole(builder, "scalar", DTYPE_I64, BOX0);
	add_object(builder, "first.object");
	add_deep(builder);
	add_large(builder);
	add_whole(builder, "empty", DTYPE_F32, BOX2(0, 0, 0, 5));
	catalog_out_begin(builder, "bare", DTYPE_F32, &bare);
	catalog_out_end(builder);
	catalog_out_begin(builder, "hole", DTYPE_F32, &four);
	catalog_out_shard(builder, BOX1(0, 2), "a", 900, 10);
	catalog_out_end(builder);
	add_packed(builder);
	add_object(builder, "second");
	add_unknown(builder);
	add_coded(builder);
	catalog_out_begin(builder, "overlap", DTYPE_F32, &four);
	catalog_out_shard(builder, BOX1(1, 3), "a", 950, 10);
	catalog_out_shard(builder, BOX1(0, 3), "b", 950, 10);
	catalog_out_end(builder);
	return catalog_out_finish(builder);
}
