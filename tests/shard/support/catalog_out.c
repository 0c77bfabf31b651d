/* SPDX-License-Identifier: Apache-2.0 */
#include "support/catalog_out.h"

#include "support/test.h"

#include <string.h>

struct catalog_builder *catalog_out_create(struct notes *notes)
{
	struct catalog_builder *builder;

	memset(notes, 0, sizeof(*notes));
	builder = catalog_builder_create(notes);
	assert_non_null(builder);
	return builder;
}

void catalog_out_begin(struct catalog_builder *builder, const char *name,
		       enum dtype dtype, const struct box *shape)
{
	const struct catalog_tensor tensor = {
		.name = name, .name_size = strlen(name), .dtype = dtype,
		.shape = *shape,
	};
	struct fault fault;

	assert_int_equal(catalog_builder_begin(builder, &tensor, &fault), 0);
}

void catalog_out_shard(struct catalog_builder *builder, struct box box,
		       const char *file, uint64_t offset, uint64_t size)
{
	struct catalog_item item = { .offset = offset, .size = size };
	struct fault fault;

	assert_int_equal(catalog_builder_file(builder, file, strlen(file),
					      &item.file), 0);
	assert_int_equal(catalog_builder_shard(builder, &box, &item, &fault),
			 0);
}

void catalog_out_end(struct catalog_builder *builder)
{
	struct fault fault;

	assert_int_equal(catalog_builder_end(builder, &fault), 0);
}

struct catalog *catalog_out_finish(struct catalog_builder *builder)
{
	struct catalog *catalog;

	assert_int_equal(catalog_builder_finish(builder, &catalog), 0);
	catalog_builder_destroy(builder);
	return catalog;
}

struct catalog *catalog_out_files(const char *const *names, unsigned count)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	uint32_t index;
	unsigned i;

	for (i = 0; i < count; i++)
		assert_int_equal(catalog_builder_file(builder, names[i],
						      strlen(names[i]),
						      &index), 0);
	return catalog_out_finish(builder);
}

struct catalog *catalog_out_world(const struct world *world)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	unsigned i;

	catalog_out_begin(builder, "w", world->dtype, &world->shape);
	for (i = 0; i < world->part_count; i++)
		catalog_out_shard(builder, world->parts[i], "part", i, 1);
	catalog_out_end(builder);
	return catalog_out_finish(builder);
}

struct box catalog_out_box(unsigned ndim, const uint64_t *offset,
			   const uint64_t *size)
{
	struct box box = { .ndim = ndim };
	unsigned i;

	for (i = 0; i < ndim; i++) {
		box.offset[i] = offset[i];
		box.size[i] = size[i];
	}
	return box;
}
