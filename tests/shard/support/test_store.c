/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test_store.h"

#include "support/test.h"
#include "support/placing.h"
#include "support/reading.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The logical bytes of the element at @flat of the tensor. */
static void make_element(unsigned char *to, uint64_t flat, uint64_t size)
{
	uint64_t i;

	for (i = 0; i < size; i++)
		to[i] = (unsigned char)(dice_mix(flat * 2 + i / 8) >>
					8 * (i % 8));
}

static void make_bytes(struct test_store *store)
{
	uint64_t element = dtype_info(store->world.dtype)->size, i;
	uint64_t count = box_volume(&store->world.shape);

	store->size = count * element;
	store->bytes = calloc(1, store->size + 1);
	assert_non_null(store->bytes);
	for (i = 0; i < count; i++)
		make_element(store->bytes + i * element, i, element);
}

/* A dense permutation of the axes, or one with steps and a start. */
static void choose_layout(struct item_spec *spec, bool plain,
			  struct dice *dice)
{
	unsigned order[LIMIT_NDIM], i;
	uint64_t stride = 1, element = dtype_info(spec->dtype)->size;
	bool complex = dtype_info(spec->dtype)->kind == DTYPE_KIND_COMPLEX;

	for (i = 0; i < spec->ndim; i++)
		order[i] = spec->ndim - 1 - i;
	for (i = spec->ndim; i > 1 && !plain; i--) {
		unsigned j = (unsigned)dice_below(dice, i), swap = order[j];

		order[j] = order[i - 1];
		order[i - 1] = swap;
	}
	for (i = 0; i < spec->ndim; i++) {
		if (!plain && dice_chance(dice, 20))
			stride *= 1 + dice_below(dice, 3);
		spec->stride[order[i]] = stride;
		stride *= spec->size[order[i]];
	}
	if (!plain && dice_chance(dice, 20))
		spec->first = dice_below(dice, 5);
	spec->storage_size = (spec->first + stride) * element;
	if (plain)
		return;
	spec->byte_order = dice_chance(dice, 25) ? "big" : "little";
	spec->conj = complex && dice_chance(dice, 30);
	spec->neg = complex && dice_chance(dice, 20);
}

/* From logical to stored bytes of one element. */
static void store_element(const struct item_spec *spec, unsigned char *to,
			  const unsigned char *from)
{
	const struct dtype_info *info = dtype_info(spec->dtype);
	bool big = spec->byte_order && spec->byte_order[0] == 'b';
	unsigned width = info->component, part, i;

	for (part = 0; part < info->size / width; part++) {
		bool flip = spec->neg != (spec->conj && part == 1);

		for (i = 0; i < width; i++) {
			unsigned at = part * width +
				      (big ? width - 1 - i : i);

			to[at] = from[part * width + i];
			if (flip && i == width - 1)
				to[at] ^= 0x80;
		}
	}
}

static void fill_storage(const struct test_store *store, const struct box *part,
			 const struct item_spec *spec, unsigned char *storage)
{
	uint64_t element = dtype_info(spec->dtype)->size;
	uint64_t index[LIMIT_NDIM] = { 0 }, where[LIMIT_NDIM];
	unsigned i;

	if (box_volume(part) == 0)
		return;
	do {
		uint64_t at = spec->first;

		for (i = 0; i < part->ndim; i++) {
			where[i] = part->offset[i] + index[i];
			at += index[i] * spec->stride[i];
		}
		store_element(spec, storage + at * element, store->bytes +
			      element * world_flat(part->ndim,
						   store->world.shape.size,
						   where));
	} while (world_step(part, index));
}

static void write_item(const struct test_store *store, const struct box *part,
		       bool plain, struct dice *dice, struct array *out)
{
	struct item_spec spec = item_spec_make(store->world.dtype, part->ndim,
					       part->size);
	unsigned char *storage;

	choose_layout(&spec, plain, dice);
	storage = malloc(spec.storage_size + 1);
	assert_non_null(storage);
	memset(storage, 0xee, spec.storage_size);
	fill_storage(store, part, &spec, storage);
	spec.storage = storage;
	item_out(out, &spec);
	free(storage);
}

static void file_name(unsigned file, char name[32])
{
	snprintf(name, 32, "__%u_0.distcp", file);
}

void test_store_make(struct test_store *store, const struct world *world, bool plain,
		struct dice *dice)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct array files[STORE_FILES] = { { .data = NULL } };
	char name[32];
	unsigned i;

	*store = (struct test_store){ .world = *world };
	folder_make(&store->folder);
	make_bytes(store);
	catalog_out_begin(builder, "w", world->dtype, &world->shape);
	for (i = 0; i < world->part_count; i++) {
		unsigned file = (unsigned)dice_below(dice, STORE_FILES);
		uint64_t start = files[file].size;

		write_item(store, &world->parts[i], plain, dice, &files[file]);
		file_name(file, name);
		catalog_out_shard(builder, world->parts[i], name, start,
				  files[file].size - start);
	}
	catalog_out_end(builder);
	store->catalog = catalog_out_finish(builder);
	for (i = 0; i < STORE_FILES; i++) {
		file_name(i, name);
		folder_write(&store->folder, name, files[i].data,
			     files[i].size);
		array_finish(&files[i]);
	}
	store->reply = reply_create();
	assert_non_null(store->reply);
	test_store_open(store);
}

void test_store_open(struct test_store *store)
{
	reply_release(store->reply);
	source_file_destroy(store->source);
	placement_destroy(store->placement);
	store->placement = placing_folder(store->folder.fd, store->catalog);
	atomic_store(&store->stale, false);
	store->source = source_file_create(store->placement, store->catalog,
					   &store->stale);
	assert_non_null(store->source);
}

void test_store_free(struct test_store *store)
{
	reply_destroy(store->reply);
	source_file_destroy(store->source);
	placement_destroy(store->placement);
	catalog_put(store->catalog);
	free(store->bytes);
	folder_remove(&store->folder);
}

int test_store_read(struct test_store *store, const struct box *selection,
	       uint64_t offset, uint64_t size)
{
	const struct transfer transfer = {
		.source = source_file_source(store->source),
		.catalog = store->catalog,
		.entry = catalog_entry(store->catalog, 0),
		.selection = selection ? selection : &store->world.shape,
		.offset = offset, .size = size,
	};

	return reading(&transfer, store->reply);
}

void test_store_copy(const struct test_store *store, unsigned char *to)
{
	memcpy(to, store->reply->data, store->reply->size);
}

bool test_store_expect(const struct test_store *store, const struct box *selection,
		  uint64_t offset, uint64_t size, unsigned char *to)
{
	uint64_t element = dtype_info(store->world.dtype)->size;
	const struct box *box = selection ? selection : &store->world.shape;
	uint64_t index[LIMIT_NDIM] = { 0 }, where[LIMIT_NDIM], at = 0, i;
	bool whole = true;

	if (size == 0 || box_volume(box) == 0)
		return true;
	do {
		uint64_t flat;

		if (at + element <= offset || at >= offset + size) {
			at += element;
			continue;
		}
		for (i = 0; i < box->ndim; i++)
			where[i] = box->offset[i] + index[i];
		whole &= world_owner(&store->world, where) >= 0;
		flat = world_flat(box->ndim, store->world.shape.size, where);
		for (i = 0; i < element; i++, at++)
			if (at >= offset && at < offset + size)
				to[at - offset] =
					store->bytes[flat * element + i];
	} while (world_step(box, index));
	return whole;
}
