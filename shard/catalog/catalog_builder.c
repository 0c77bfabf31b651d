/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sections of the blob grow side by side as arrays, with offsets relative
 * to their section; finish lays them out one behind the other, as
 * catalog_layout.h draws them. Of the texts in the last of them those of the
 * entries come first, then the paths of files, then the stream extensions.
 *
 * The shards of the tensor at hand wait in `pending` until its end, when all
 * its boxes are known.
 */
#include "shard/catalog/catalog_builder.h"

#include "shard/base/array.h"
#include "shard/base/hash.h"
#include "shard/base/name_table.h"
#include "shard/catalog/catalog_layout.h"
#include "shard/catalog/shard_list.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct catalog_builder {
	struct notes *notes;		/* borrowed */
	struct array tensors, objects;	/* struct catalog_entry */
	struct array shards, dims, names;
	struct name_table files, transforms;
	struct catalog_origin origin;
	struct shard_list pending;	/* of the tensor at hand */
	struct catalog_entry tensor;	/* at hand */
	struct box shape;		/* of it */
	const uint64_t *written;	/* of it; borrowed until its end */
	uint64_t source;
};

struct catalog_builder *catalog_builder_create(struct notes *notes)
{
	struct catalog_builder *builder = calloc(1, sizeof(*builder));

	if (!builder)
		return NULL;
	builder->notes = notes;
	name_table_init(&builder->files, LIMIT_COUNT);
	name_table_init(&builder->transforms, LIMIT_TRANSFORMS);
	/* No name is at offset 0. */
	if (array_append(&builder->names, "", 1) ||
	    shard_list_init(&builder->pending)) {
		catalog_builder_destroy(builder);
		return NULL;
	}
	return builder;
}

void catalog_builder_destroy(struct catalog_builder *builder)
{
	if (!builder)
		return;
	array_finish(&builder->tensors);
	array_finish(&builder->objects);
	array_finish(&builder->shards);
	array_finish(&builder->dims);
	array_finish(&builder->names);
	name_table_finish(&builder->files);
	name_table_finish(&builder->transforms);
	shard_list_finish(&builder->pending);
	free(builder);
}

struct notes *catalog_builder_notes(const struct catalog_builder *builder)
{
	return builder->notes;
}

static uint64_t shard_count(const struct catalog_builder *builder)
{
	return builder->shards.size / sizeof(struct catalog_shard);
}

/* ---- files, origin, transforms ------------------------------------------- */

int catalog_builder_file(struct catalog_builder *builder, const char *path,
			 size_t size, uint32_t *ret_file)
{
	int added = name_table_add(&builder->files, path, size, ret_file);

	return added < 0 ? added : 0;
}

void catalog_builder_origin(struct catalog_builder *builder,
			    const struct catalog_origin *origin)
{
	builder->origin = *origin;
}

int catalog_builder_transform(struct catalog_builder *builder,
			      const char *text, size_t size,
			      uint32_t *ret_flags)
{
	uint32_t index;
	int added = name_table_add(&builder->transforms, text, size, &index);

	if (added < 0)
		return added;
	*ret_flags = CATALOG_TRANSFORMED | index << CATALOG_TRANSFORM_SHIFT;
	return 0;
}

/* ---- entries ------------------------------------------------------------- */

static int add_text(struct catalog_builder *builder, const char *text,
		    size_t size, uint64_t *ret_offset)
{
	*ret_offset = builder->names.size;
	return array_append(&builder->names, text, size);
}

static int add_numbers(struct catalog_builder *builder, unsigned width,
		       const uint64_t *numbers, unsigned count)
{
	uint32_t narrow[2 * LIMIT_NDIM];
	unsigned i;

	if (width == 8)
		return array_append(&builder->dims, numbers, count * 8);
	for (i = 0; i < count; i++)
		narrow[i] = (uint32_t)numbers[i];
	return array_append(&builder->dims, narrow, count * 4);
}

/* Fill @entry's size and width from its type and shape. */
static int measure(struct catalog_entry *entry, const struct box *shape,
		   const uint64_t *written)
{
	uint64_t size = 1, bits = dtype_info(entry->dtype)->bits;
	bool empty = false;
	unsigned i;

	entry->ndim = (uint8_t)shape->ndim;
	entry->width = 4;
	for (i = 0; i < shape->ndim; i++) {
		if (shape->size[i] > UINT32_MAX ||
		    (written && written[i] > UINT32_MAX))
			entry->width = 8;
		if (written && written[i] > 0 &&
		    __builtin_mul_overflow(bits, written[i], &bits))
			return -E2BIG;
		if (shape->size[i] == 0) {
			empty = true;
			continue;
		}
		/* Also of an empty tensor: strides are products, too. */
		if (__builtin_mul_overflow(size, shape->size[i], &size))
			return -E2BIG;
	}
	if (size > LIMIT_TENSOR_SIZE / 16)
		return -E2BIG;
	entry->size = empty ? 0 : size * dtype_info(entry->dtype)->size;
	return 0;
}

int catalog_builder_begin(struct catalog_builder *builder,
			  const struct catalog_tensor *tensor,
			  struct fault *fault)
{
	struct catalog_entry *entry = &builder->tensor;
	int error;

	*entry = (struct catalog_entry){
		.name_size = (uint32_t)tensor->name_size,
		.dtype = (uint8_t)tensor->dtype,
		.first_shard = shard_count(builder),
		.depth = tensor->depth,
		.flags = tensor->written ? CATALOG_PACKED : 0,
	};
	builder->shape = tensor->shape;
	builder->written = tensor->written;
	builder->source = tensor->source;
	shard_list_clear(&builder->pending, tensor->shape.ndim);
	error = measure(entry, &tensor->shape, tensor->written);
	if (error)
		return fault_set_detail(fault, error, tensor->source,
					"tensor too large",
					(struct fault_detail){
						tensor->name,
						tensor->name_size });
	error = add_text(builder, tensor->name, tensor->name_size,
			 &entry->name);
	if (!error && tensor->depth > 1)
		error = array_append(&builder->names, tensor->path,
				     (tensor->depth - 1) *
				     sizeof(*tensor->path));
	if (!error && tensor->type_name_size > 0) {
		entry->type_name_size = (uint32_t)tensor->type_name_size;
		error = add_text(builder, tensor->type_name,
				 tensor->type_name_size, &entry->type_name);
	}
	return error ? fault_set(fault, error, 0, "out of memory") : 0;
}

/* The name of the tensor at hand. */
static struct fault_detail tensor_name(const struct catalog_builder *builder)
{
	return (struct fault_detail){
		builder->names.data + builder->tensor.name,
		builder->tensor.name_size,
	};
}

int catalog_builder_shard(struct catalog_builder *builder,
			  const struct box *box,
			  const struct catalog_item *item,
			  struct fault *fault)
{
	bool inside = true, empty = false;
	struct box clipped = *box;
	unsigned i;

	for (i = 0; i < box->ndim; i++) {
		uint64_t whole = builder->shape.size[i];

		empty |= box->size[i] == 0;
		inside &= box->offset[i] <= whole &&
			  box->size[i] <= whole - box->offset[i];
		clipped.offset[i] = 0;
		if (clipped.size[i] > whole)
			clipped.size[i] = whole;
	}
	if (!inside && !empty)
		return fault_set_detail(fault, -EBADMSG, builder->source,
			"shard out of the bounds of its tensor",
			tensor_name(builder));
	if (item->file == CATALOG_NO_FILE)
		return 0;
	if (shard_list_add(&builder->pending, inside ? box : &clipped, item))
		return fault_set(fault, -ENOMEM, 0, "out of memory");
	return 0;
}

/* @numbers is a box: offsets, sizes. */
static int emit_shard(struct catalog_builder *builder, const uint64_t *numbers,
		      const struct catalog_item *item, uint64_t *reach)
{
	unsigned ndim = builder->shape.ndim;
	uint64_t end = ndim > 0 ? numbers[0] + numbers[ndim] : 1;
	struct catalog_shard shard = {
		.offset = item->offset, .size = item->size,
		.file = item->file, .flags = item->flags,
	};
	int error;

	if (shard_count(builder) == LIMIT_COUNT)
		return -E2BIG;
	if (end > *reach)
		*reach = end;
	shard.reach = *reach;
	error = add_numbers(builder, builder->tensor.width, numbers, 2 * ndim);
	return error ? error :
	       array_append(&builder->shards, &shard, sizeof(shard));
}

static int align_dims(struct catalog_builder *builder)
{
	static const char zeros[8];

	return array_append(&builder->dims, zeros,
			    -builder->dims.size & 7);
}

static int emit_holes(struct catalog_builder *builder,
		      const struct tiling_result *result)
{
	static const struct catalog_item none = { .file = CATALOG_NO_FILE };
	unsigned ndim = builder->shape.ndim;
	uint64_t numbers[2 * LIMIT_NDIM], reach = 0;
	uint32_t i;
	int error = 0;

	for (i = 0; i < result->hole_count && !error; i++) {
		memcpy(numbers, result->holes[i].offset,
		       ndim * sizeof(*numbers));
		memcpy(numbers + ndim, result->holes[i].size,
		       ndim * sizeof(*numbers));
		error = emit_shard(builder, numbers, &none, &reach);
	}
	return error;
}

static int emit_tensor(struct catalog_builder *builder,
		       const struct tiling_result *result)
{
	const struct shard_list *list = &builder->pending;
	struct catalog_entry *entry = &builder->tensor;
	uint64_t i, reach = 0;
	int error = align_dims(builder);

	entry->dims = builder->dims.size;
	entry->shard_count = (uint32_t)list->count;
	entry->hole_count = result->hole_count;
	entry->flags |= (result->overlap ? CATALOG_OVERLAP : 0) |
			(result->hole_count ? CATALOG_HOLES : 0);
	if (!error)
		error = add_numbers(builder, entry->width, builder->shape.size,
				    builder->shape.ndim);
	if (!error && entry->flags & CATALOG_PACKED)
		error = add_numbers(builder, entry->width, builder->written,
				    builder->shape.ndim);
	for (i = 0; i < list->count && !error; i++)
		error = emit_shard(builder, shard_list_numbers(list, i),
				   shard_list_item(list, i), &reach);
	if (!error)
		error = emit_holes(builder, result);
	return error ? error :
	       array_append(&builder->tensors, entry, sizeof(*entry));
}

static void note_result(const struct catalog_builder *builder,
			const struct tiling_result *result)
{
	const struct catalog_entry *entry = &builder->tensor;
	const char *name = builder->names.data + entry->name;
	int size = entry->name_size > 160 ? 160 : (int)entry->name_size;

	if (result->overlap)
		notes_add(builder->notes,
			  "%.*s: shards overlap, the last one listed is used",
			  size, name);
	if (result->hole_count)
		notes_add(builder->notes,
			  "%.*s: shards are missing, reads of what they held fail",
			  size, name);
}

int catalog_builder_end(struct catalog_builder *builder, struct fault *fault)
{
	struct tiling_result result = { .holes = NULL };
	int error;

	if ((builder->tensors.size + builder->objects.size) /
	    sizeof(struct catalog_entry) >= LIMIT_COUNT)
		return fault_set(fault, -E2BIG, builder->source,
				 "too many tensors");
	error = shard_list_check(&builder->pending, &builder->shape, &result);
	if (error)
		return fault_set_detail(fault, error, builder->source,
			error == -ENOMEM ? "out of memory" :
			"too many shards to check for overlaps",
			tensor_name(builder));
	note_result(builder, &result);
	error = emit_tensor(builder, &result);
	free(result.holes);
	return error ? fault_set(fault, error, 0, "out of memory") : 0;
}

int catalog_builder_object(struct catalog_builder *builder, const char *name,
			   size_t name_size, const struct catalog_item *item,
			   struct fault *fault)
{
	struct catalog_tensor object = {
		.name = name, .name_size = name_size, .dtype = DTYPE_U8,
		.shape = { .ndim = 1, .offset = { 0 }, .size = { item->size } },
	};
	struct tiling_result none = { .holes = NULL };
	struct catalog_entry entry;
	int error = catalog_builder_begin(builder, &object, fault);

	if (!error)
		error = catalog_builder_shard(builder, &object.shape, item,
					      fault);
	if (!error)
		error = emit_tensor(builder, &none);
	if (error)
		return error;
	entry = builder->tensor;
	entry.flags = CATALOG_OBJECT;
	builder->tensors.size -= sizeof(entry);
	error = array_append(&builder->objects, &entry, sizeof(entry));
	return error ? fault_set(fault, error, 0, "out of memory") : 0;
}

/* ---- layout -------------------------------------------------------------- */

static void copy(struct catalog *catalog, uint64_t offset,
		 const struct array *array)
{
	if (array->size)
		memcpy((char *)catalog + offset, array->data, array->size);
}

/* From offsets in a section to offsets in the blob. */
static void relocate(struct catalog *catalog)
{
	struct catalog_entry *entry =
		(void *)((char *)catalog + catalog->entries);
	uint64_t i;

	for (i = 0; i < catalog->tensor_count + catalog->object_count; i++) {
		entry[i].name += catalog->names;
		entry[i].dims += catalog->dims;
		if (entry[i].type_name_size)
			entry[i].type_name += catalog->names;
	}
}

static void fill_files(const struct catalog_builder *builder,
		       struct catalog *catalog)
{
	struct catalog_file *file = (void *)((char *)catalog + catalog->files);
	uint64_t text = catalog->names + builder->names.size;
	uint32_t i;

	copy(catalog, text, &builder->files.text);
	for (i = 0; i < catalog->file_count; i++) {
		size_t size;
		const char *path = name_table_name(&builder->files, i, &size);

		file[i].path = text +
			       (uint64_t)(path - builder->files.text.data);
		file[i].path_size = (uint32_t)size;
	}
}

static void fill_transforms(const struct catalog_builder *builder,
			    struct catalog *catalog)
{
	struct catalog_transform *transform =
		(void *)((char *)catalog + catalog->transforms);
	uint64_t text = catalog->names + builder->names.size +
			builder->files.text.size;
	uint32_t i;

	copy(catalog, text, &builder->transforms.text);
	for (i = 0; i < catalog->transform_count; i++) {
		size_t size;
		const char *chain = name_table_name(&builder->transforms, i,
						    &size);

		transform[i].text = text +
			(uint64_t)(chain - builder->transforms.text.data);
		transform[i].text_size = size;
	}
}

static void fill_table(struct catalog *catalog, struct hash_table table,
		       uint64_t first, uint64_t count)
{
	uint64_t i;
	int error;

	for (i = first; i < first + count; i++) {
		error = hash_table_insert(&table, catalog, (uint32_t)i);
		/* The layout has room for all. */
		assert(!error);
	}
}

static void plan_layout(const struct catalog_builder *builder,
			struct catalog *catalog)
{
	*catalog = (struct catalog){
		.seed = hash_seed(),
		.origin = builder->origin,
		.tensor_count =
			builder->tensors.size / sizeof(struct catalog_entry),
		.object_count =
			builder->objects.size / sizeof(struct catalog_entry),
		.shard_count = shard_count(builder),
		.file_count = builder->files.count,
		.transform_count = builder->transforms.count,
	};
	catalog_layout(catalog, builder->dims.size,
		       builder->names.size + builder->files.text.size +
		       builder->transforms.text.size);
}

int catalog_builder_finish(struct catalog_builder *builder,
			   struct catalog **ret_catalog)
{
	struct catalog header, *catalog;

	plan_layout(builder, &header);
	catalog = catalog_create(header.size);
	if (!catalog)
		return -ENOMEM;
	*catalog = header;
	copy(catalog, header.entries, &builder->tensors);
	copy(catalog, header.entries + builder->tensors.size,
	     &builder->objects);
	copy(catalog, header.shards, &builder->shards);
	copy(catalog, header.dims, &builder->dims);
	copy(catalog, header.names, &builder->names);
	relocate(catalog);
	fill_files(builder, catalog);
	fill_transforms(builder, catalog);
	fill_table(catalog, catalog_tensor_table(catalog), 0,
		   header.tensor_count);
	fill_table(catalog, catalog_object_table(catalog), header.tensor_count,
		   header.object_count);
	catalog_hash(catalog, catalog->hash);
	*ret_catalog = catalog;
	return 0;
}
