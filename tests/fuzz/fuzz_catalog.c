/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Catalogs of any boxes, without a pickle around them, which mutations seldom
 * keep whole: tiles, holes, overlaps, and plans over them.
 *
 * Input: for each tensor the number of axes and a byte for the size of each,
 * then for each shard a byte that says that there is one, the file, and two
 * bytes for each axis.
 */
#include "tests/fuzz/catalog_check.h"
#include "tests/fuzz/fuzz.h"

#include "shard/catalog/catalog_builder.h"

#include <errno.h>

enum { AXES_MAX = 4, LENGTH_MAX = 20 };

struct reader {
	const uint8_t *data;
	size_t size;
};

static unsigned take(struct reader *r)
{
	if (r->size == 0)
		return 0;
	r->size--;
	return *r->data++;
}

/* A box that is mostly inside of @shape. */
static struct box take_box(struct reader *r, const struct box *shape)
{
	struct box box = { .ndim = shape->ndim };
	unsigned i;

	for (i = 0; i < box.ndim; i++) {
		unsigned offset = take(r), size = take(r);

		box.offset[i] = offset == 255 ? UINT64_MAX / 2 :
				offset % (shape->size[i] + 1);
		box.size[i] = size == 255 ? UINT64_MAX :
			      size >= 250 ? shape->size[i] :
			      size % (shape->size[i] - offset %
				      (shape->size[i] + 1) + 1);
	}
	return box;
}

static bool is_inside(const struct box *box, const struct box *shape)
{
	bool inside = true;
	unsigned i;

	for (i = 0; i < box->ndim; i++) {
		if (box->size[i] == 0)
			return true;
		inside &= box->offset[i] <= shape->size[i] &&
			  box->size[i] <= shape->size[i] - box->offset[i];
	}
	return inside;
}

static int add_shard(struct catalog_builder *builder, struct reader *r,
		     const struct box *shape)
{
	unsigned number = take(r) % 3;
	char path[] = { 'f', (char)('0' + number) };
	struct catalog_item item = { .offset = number, .size = 1 };
	struct box box = take_box(r, shape);
	struct fault fault = { .error = 0 };
	int error = catalog_builder_file(builder, path, sizeof(path),
					 &item.file);

	CHECK(error == 0);
	error = catalog_builder_shard(builder, &box, &item, &fault);
	CHECK(error == (is_inside(&box, shape) ? 0 : -EBADMSG));
	CHECK(fault.error == error);
	return error;
}

static int add_tensor(struct catalog_builder *builder, struct reader *r,
		      unsigned index)
{
	char name[] = { 't', (char)('0' + index) };
	struct catalog_tensor tensor = {
		.name = name, .name_size = sizeof(name), .dtype = DTYPE_I16,
	};
	struct fault fault = { .error = 0 };
	unsigned i;
	int error;

	tensor.shape.ndim = take(r) % (AXES_MAX + 1);
	for (i = 0; i < tensor.shape.ndim; i++)
		tensor.shape.size[i] = take(r) % (LENGTH_MAX + 1);
	error = catalog_builder_begin(builder, &tensor, &fault);
	CHECK(error == 0);
	while (!error && take(r) % 16)
		error = add_shard(builder, r, &tensor.shape);
	if (error)
		return error;
	error = catalog_builder_end(builder, &fault);
	CHECK(error == 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct notes *notes = calloc(1, sizeof(*notes));
	struct catalog_builder *builder = catalog_builder_create(notes);
	struct reader reader = { data, size };
	struct catalog *catalog;
	unsigned index = 0;
	int error = 0;

	CHECK(notes && builder);
	while (reader.size > 0 && index < 8 && !error)
		error = add_tensor(builder, &reader, index++);
	if (!error) {
		CHECK(catalog_builder_finish(builder, &catalog) == 0);
		CHECK(catalog->tensor_count == index);
		check_catalog(catalog);
		catalog_put(catalog);
	}
	catalog_builder_destroy(builder);
	free(notes);
	return 0;
}
