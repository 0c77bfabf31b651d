/* SPDX-License-Identifier: Apache-2.0 */
#include "support/gallery.h"

#include "support/placing.h"

#include "support/test.h"
#include "support/item_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- elements ------------------------------------------------------------ */

struct format {
	enum dtype dtype;
	unsigned mantissa;	/* bits */
	unsigned bias;
};

static const struct format formats[] = {
	{ DTYPE_F64, 52, 1023 },
	{ DTYPE_F32, 23, 127 },
	{ DTYPE_F16, 10, 15 },
	{ DTYPE_BF16, 7, 127 },
	{ DTYPE_F8_E4M3, 3, 7 },
	{ DTYPE_F8_E5M2, 2, 15 },
	{ DTYPE_F8_E4M3FNUZ, 3, 8 },
	{ DTYPE_F8_E5M2FNUZ, 2, 16 },
};

static const struct format *find_format(enum dtype dtype)
{
	unsigned i;

	for (i = 0; i < COUNT_OF(formats); i++)
		if (formats[i].dtype == dtype)
			return &formats[i];
	return NULL;
}

bool gallery_has_numbers(enum dtype dtype)
{
	return find_format(dtype) != NULL;
}

/* @number, -8 to 8, by the fields of its format: there is one spelling. */
static void put_float(enum dtype dtype, int number, unsigned char *to)
{
	const struct format *format = find_format(dtype);
	unsigned size = dtype_info(dtype)->size, exponent = 0, i;
	uint64_t magnitude = (uint64_t)abs(number), bits = 0;

	assert_non_null(format);
	while (magnitude >> (exponent + 1))
		exponent++;
	if (magnitude > 0) {
		bits = (uint64_t)(exponent + format->bias) << format->mantissa;
		bits |= (magnitude << format->mantissa >> exponent) -
			(UINT64_C(1) << format->mantissa);
	}
	if (number < 0)
		bits |= UINT64_C(1) << (8 * size - 1);
	for (i = 0; i < size; i++)
		to[i] = (unsigned char)(bits >> 8 * i);
}

/* The element at @flat of tensor @index as @dtype: as stored, or a number. */
static void put_element(const struct gallery_tensor *tensor, uint64_t index,
			uint64_t flat, enum dtype dtype, unsigned char *to)
{
	uint64_t any = dice_mix(dice_mix(index) + flat);
	unsigned i;

	if (tensor->numbers) {
		put_float(dtype, (int)(any % 17) - 8, to);
		return;
	}
	assert_int_equal(dtype, tensor->world->dtype);
	for (i = 0; i < dtype_info(dtype)->size; i++)
		to[i] = (unsigned char)(dice_mix(any + i / 8) >> 8 * (i % 8));
}

bool gallery_expect(const struct gallery *gallery, uint64_t index,
		    const struct box *selection, enum dtype dtype,
		    struct array *out)
{
	const struct gallery_tensor *tensor = &gallery->tensors[index];
	uint64_t element = dtype_info(dtype)->size, i;
	uint64_t at[LIMIT_NDIM] = { 0 }, where[LIMIT_NDIM];
	bool whole = true;

	if (box_volume(selection) == 0)
		return true;
	do {
		unsigned char *to = array_add(out, element);

		assert_non_null(to);
		memset(to, 0, element);
		for (i = 0; i < selection->ndim; i++)
			where[i] = selection->offset[i] + at[i];
		if (world_owner(tensor->world, where) >= 0)
			put_element(tensor, index,
				    world_flat(selection->ndim,
					       tensor->world->shape.size,
					       where), dtype, to);
		else
			whole = false;
	} while (world_step(selection, at));
	return whole;
}

/* ---- making -------------------------------------------------------------- */

void gallery_init(struct gallery *gallery, bool stored)
{
	*gallery = (struct gallery){ .stored = stored };
	gallery->builder = catalog_out_create(&gallery->notes);
	if (stored)
		folder_make(&gallery->folder);
}

static void make_bytes(struct gallery *gallery, uint64_t index)
{
	struct gallery_tensor *tensor = &gallery->tensors[index];
	uint64_t element = dtype_info(tensor->world->dtype)->size, i;
	uint64_t volume = box_volume(&tensor->world->shape);

	tensor->bytes = malloc(volume * element + 1);
	assert_non_null(tensor->bytes);
	for (i = 0; i < volume; i++)
		put_element(tensor, index, i, tensor->world->dtype,
			    tensor->bytes + i * element);
}

/* Part @number in a storage of its own, which is what @spec says. What a later
 * part overlaps is something else here. */
static void fill_storage(const struct gallery_tensor *tensor, unsigned number,
			 const struct item_spec *spec, unsigned char *storage)
{
	const struct box *part = &tensor->world->parts[number];
	const struct dtype_info *info = dtype_info(spec->dtype);
	bool big = spec->byte_order && *spec->byte_order == 'b';
	uint64_t at[LIMIT_NDIM] = { 0 }, where[LIMIT_NDIM];
	unsigned i;

	if (box_volume(part) == 0)
		return;
	do {
		const unsigned char *from;
		unsigned char wrong;
		uint64_t to = 0;

		for (i = 0; i < part->ndim; i++) {
			where[i] = part->offset[i] + at[i];
			to += at[i] * spec->stride[i];
		}
		from = tensor->bytes + info->size *
		       world_flat(part->ndim, tensor->world->shape.size, where);
		wrong = world_owner(tensor->world, where) == (int)number ? 0 :
									   255;
		for (i = 0; i < info->size; i++)
			storage[to * info->size + i] = wrong ^
				from[big ? i ^ (info->component - 1u) : i];
	} while (world_step(part, at));
}

static void write_item(const struct gallery_tensor *tensor, unsigned number,
		       struct dice *dice, struct array *out)
{
	const struct box *part = &tensor->world->parts[number];
	struct item_spec spec = item_spec_make(tensor->world->dtype, part->ndim,
					       part->size);
	unsigned char *storage = calloc(1, spec.storage_size + 1);
	uint64_t stride = 1;
	unsigned i;

	assert_non_null(storage);
	if (dice_chance(dice, 30))
		for (i = 0; i < part->ndim; i++) {
			spec.stride[i] = stride;
			stride *= part->size[i];
		}
	if (dice_chance(dice, 30))
		spec.byte_order = "big";
	fill_storage(tensor, number, &spec, storage);
	spec.storage = storage;
	item_out(out, &spec);
	free(storage);
}

/* Each tensor has a file of its own, up to a number of them. */
static void store_parts(struct gallery *gallery, uint64_t index,
			struct dice *dice)
{
	const struct gallery_tensor *tensor = &gallery->tensors[index];
	uint64_t file = index % GALLERY_FILES, start;
	struct array items = { .data = NULL };
	char name[32];
	unsigned i;
	int fd;

	snprintf(name, sizeof(name), "%u", (unsigned)file);
	fd = openat(gallery->folder.fd, name,
		    O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	start = (uint64_t)lseek(fd, 0, SEEK_END);
	for (i = 0; i < tensor->world->part_count; i++) {
		uint64_t before = items.size;

		write_item(tensor, i, dice, &items);
		catalog_out_shard(gallery->builder, tensor->world->parts[i],
				  name, start + before, items.size - before);
	}
	assert_int_equal(write(fd, items.data, items.size), items.size);
	close(fd);
	array_finish(&items);
}

void gallery_add(struct gallery *gallery, const char *name,
		 const struct world *world, bool numbers, struct dice *dice)
{
	uint64_t index = gallery->count++;
	struct gallery_tensor *tensor;
	unsigned i;

	/* Doubled at each power of two. */
	if ((index & (index - 1)) == 0)
		gallery->tensors = realloc(gallery->tensors, (2 * index + 1) *
					   sizeof(*gallery->tensors));
	assert_non_null(gallery->tensors);
	tensor = &gallery->tensors[index];
	*tensor = (struct gallery_tensor){
		.name = strdup(name), .world = world, .numbers = numbers,
	};
	assert_non_null(tensor->name);
	make_bytes(gallery, index);
	catalog_out_begin(gallery->builder, name, world->dtype, &world->shape);
	if (gallery->stored)
		store_parts(gallery, index, dice);
	else
		for (i = 0; i < world->part_count; i++)
			catalog_out_shard(gallery->builder, world->parts[i],
					  "shelf", i, 1);
	catalog_out_end(gallery->builder);
}

static int read_shelf(struct source *source, const struct plan *plan,
		      const struct piece *pieces, unsigned count,
		      struct reply *reply);

void gallery_finish(struct gallery *gallery)
{
	gallery->catalog = catalog_out_finish(gallery->builder);
	gallery->shelf = (struct shelf){ .base.read = read_shelf,
					 .gallery = gallery };
	if (!gallery->stored)
		return;
	gallery->placement = placing_folder(gallery->folder.fd,
					    gallery->catalog);
	gallery->file = source_file_create(gallery->placement,
					   gallery->catalog, &gallery->stale);
	assert_non_null(gallery->file);
}

void gallery_free(struct gallery *gallery)
{
	uint64_t i;

	source_file_destroy(gallery->file);
	placement_destroy(gallery->placement);
	catalog_put(gallery->catalog);
	for (i = 0; i < gallery->count; i++) {
		free(gallery->tensors[i].name);
		free(gallery->tensors[i].bytes);
	}
	free(gallery->tensors);
	if (gallery->stored)
		folder_remove(&gallery->folder);
}

struct source *gallery_source(struct gallery *gallery)
{
	return gallery->stored ? source_file_source(gallery->file) :
				 &gallery->shelf.base;
}

/* ---- the shelf ----------------------------------------------------------- */

/* A run is as long as the last axis of the piece. */
static void read_piece(const struct shelf *shelf, const struct plan *plan,
		      const struct piece *piece, struct reply *reply)
{
	uint64_t tensor = (uint64_t)(plan->entry -
				     catalog_entry(plan->catalog, 0));
	const unsigned char *bytes = shelf->gallery->tensors[tensor].bytes;
	uint64_t element = dtype_info(plan->entry->dtype)->size, run = 1;
	struct box rows = { .ndim = plan->entry->ndim }, shape, box;
	uint64_t at[LIMIT_NDIM] = { 0 }, where[LIMIT_NDIM], target;
	unsigned i;

	catalog_shape(plan->catalog, plan->entry, &shape);
	catalog_box(plan->catalog, plan->entry, piece->shard, &box);
	memcpy(rows.size, piece->count, rows.ndim * sizeof(*rows.size));
	if (rows.ndim > 0) {
		run = rows.size[rows.ndim - 1];
		rows.size[rows.ndim - 1] = 1;
	}
	do {
		target = piece->target;
		for (i = 0; i < rows.ndim; i++) {
			where[i] = box.offset[i] + piece->offset[i] + at[i];
			target += at[i] * plan->stride[i];
		}
		memcpy(reply->data + reply->base + target * element,
		       bytes + element *
			       world_flat(rows.ndim, shape.size, where),
		       run * element);
	} while (world_step(&rows, at));
}

static int read_shelf(struct source *source, const struct plan *plan,
		      const struct piece *pieces, unsigned count,
		      struct reply *reply)
{
	struct shelf *shelf = (struct shelf *)source;
	unsigned i;

	shelf->calls++;
	if (shelf->countdown > 0 && --shelf->countdown == 0)
		return shelf->error;
	for (i = 0; i < count; i++)
		read_piece(shelf, plan, &pieces[i], reply);
	return 0;
}
