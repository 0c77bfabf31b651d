/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files made of tensors, read in random ranges, against the whole file put
 * together element by element: by a header that is parsed a second time, and
 * by what each element was made of.
 */
#include "support/test.h"
#include "support/gallery.h"
#include "support/header_in.h"
#include "support/reading.h"

#include "shard/read/virtual_file.h"
#include "shard/values/convert.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct dice dice;

/* Types that are stored, with and without a name in safetensors. */
static const enum dtype dtypes[] = {
	DTYPE_F64, DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I64, DTYPE_I16,
	DTYPE_U8, DTYPE_BOOL, DTYPE_C64, DTYPE_C128, DTYPE_C32, DTYPE_F8_E4M3,
	DTYPE_F8_E5M2, DTYPE_F8_E4M3FNUZ, DTYPE_F8_E5M2FNUZ, DTYPE_F8_E8M0,
};

static const enum dtype targets[] = { DTYPE_F32, DTYPE_BF16, DTYPE_F16 };

static bool has_name(enum dtype dtype)
{
	return dtype != DTYPE_C128 && dtype != DTYPE_C32;
}

/* ---- reading ------------------------------------------------------------- */

static void check_range(const struct virtual_file *content,
			struct source *source, struct reply *reply,
			const struct array *file, uint64_t offset,
			uint64_t size)
{
	int error = reading_file(content, source, offset, size, reply);

	if (error)
		fail_msg("%llu bytes at %llu: error %d",
			 (unsigned long long)size, (unsigned long long)offset,
			 error);
	assert_int_equal(reply->size, size);
	assert_memory_equal(reply->data, file->data + offset, size);
}

/* Anywhere, and around the end of the header and of the file. */
static void check_ranges(const struct virtual_file *content,
			 struct gallery *gallery, const struct array *file,
			 unsigned count)
{
	uint64_t header = virtual_file_header_size(content);
	struct source *source = gallery_source(gallery);
	struct reply *reply = reply_create();
	uint64_t offset, size;

	assert_non_null(reply);
	assert_int_equal(virtual_file_size(content), file->size);
	while (count-- > 0) {
		offset = dice_below(&dice, file->size + 1);
		if (dice_chance(&dice, 20))
			offset = header - dice_below(&dice, header < 40 ?
						     header + 1 : 40);
		size = dice_below(&dice, file->size - offset + 1);
		if (dice_chance(&dice, 50) && size > 40)
			size = dice_below(&dice, 40);
		if (size > LIMIT_READ_SIZE)
			size = LIMIT_READ_SIZE;
		check_range(content, source, reply, file, offset, size);
	}
	for (offset = 0; offset < file->size; offset += size) {
		size = file->size - offset;
		if (size > LIMIT_READ_SIZE)
			size = LIMIT_READ_SIZE;
		check_range(content, source, reply, file, offset, size);
	}
	reply_destroy(reply);
}

/* The header as it is read, which is all of @file so far. */
static void read_header(const struct virtual_file *content,
			struct gallery *gallery, struct array *file)
{
	uint64_t size = virtual_file_header_size(content), done, part;
	struct reply *reply = reply_create();

	assert_non_null(reply);
	for (done = 0; done < size; done += part) {
		unsigned char *room;

		part = size - done < LIMIT_READ_SIZE ? size - done :
						       LIMIT_READ_SIZE;
		room = array_add(file, part);
		assert_non_null(room);
		assert_int_equal(reading_file(content,
						   gallery_source(gallery),
						   done, part, reply),
				 0);
		memcpy(room, reply->data, part);
	}
	reply_destroy(reply);
}

/* ---- random galleries ---------------------------------------------------- */

enum { MOST = 12 };

struct scene {
	struct gallery gallery;
	struct world worlds[MOST];
	struct virtual_file_part parts[MOST];
	uint64_t part_count;
};

static void add_tensor(struct scene *scene, const struct world_limits *limits)
{
	uint64_t index = scene->gallery.count;
	struct world *world = &scene->worlds[index];
	char name[64];

	world_make(world, limits, &dice);
	world->dtype = dtypes[dice_below(&dice, COUNT_OF(dtypes))];
	/* The first part of a name is left out where there is a key. */
	snprintf(name, sizeof(name), "m.%c%u",
		 (char)('a' + dice_below(&dice, 26)), (unsigned)index);
	gallery_add(&scene->gallery, name, world,
		    gallery_has_numbers(world->dtype), &dice);
}

/* All of them but a few, in any order, some of them converted. */
static void pick_parts(struct scene *scene)
{
	uint64_t i, j;

	for (i = 0; i < scene->gallery.count; i++) {
		struct virtual_file_part part = { .entry = i, .key = 2 };
		enum dtype to = targets[dice_below(&dice, COUNT_OF(targets))];

		if (dice_chance(&dice, 10))
			continue;
		if (gallery_has_numbers(scene->worlds[i].dtype) &&
		    dice_chance(&dice, 40))
			part.dtype = to;
		j = dice_below(&dice, scene->part_count + 1);
		scene->parts[scene->part_count++] = scene->parts[j];
		scene->parts[j] = part;
	}
}

static struct scene *make_scene(const struct world_limits *limits, bool stored)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	uint64_t count = dice_below(&dice, MOST + 1);

	assert_non_null(scene);
	gallery_init(&scene->gallery, stored);
	while (scene->gallery.count < count)
		add_tensor(scene, limits);
	gallery_finish(&scene->gallery);
	pick_parts(scene);
	return scene;
}

static void free_scene(struct scene *scene)
{
	gallery_free(&scene->gallery);
	free(scene);
}

static enum dtype type_of(const struct scene *scene,
			  const struct virtual_file_part *part)
{
	return part->dtype ? part->dtype : scene->worlds[part->entry].dtype;
}

/* A tensor of the header is a part that is there only once: append what it
 * holds. */
static void append_tensor(const struct scene *scene,
			  const struct header_tensor *tensor,
			  struct array *file)
{
	const struct virtual_file_part *part = NULL;
	const struct box *shape;
	uint64_t i, before = file->size;

	for (i = 0; i < scene->part_count; i++) {
		const char *name = scene->gallery.tensors[
			scene->parts[i].entry].name;

		if (strcmp(name + scene->parts[i].key, tensor->name) == 0)
			part = &scene->parts[i];
	}
	assert_non_null(part);
	shape = &scene->worlds[part->entry].shape;
	assert_string_equal(tensor->dtype,
			    dtype_info(type_of(scene, part))->name);
	assert_int_equal(tensor->ndim, shape->ndim);
	assert_memory_equal(tensor->shape, shape->size, 8 * shape->ndim);
	assert_true(gallery_expect(&scene->gallery, part->entry, shape,
				   type_of(scene, part), file));
	assert_int_equal(file->size - before, tensor->end - tensor->begin);
}

static void check_order(const struct header_in *header)
{
	uint64_t i;

	for (i = 1; i < header->count; i++) {
		const struct header_tensor *a = &header->tensors[i - 1];
		const struct header_tensor *b = &header->tensors[i];
		unsigned a_order, b_order;

		header_in_bits(a->dtype, &a_order);
		header_in_bits(b->dtype, &b_order);
		assert_true(a_order > b_order ||
			    (a_order == b_order &&
			     strcmp(a->name, b->name) < 0));
	}
}

/* What must be left out is named, in order of the parts. */
static uint64_t check_left_out(const struct scene *scene,
			       const struct header_in *header)
{
	char expected[MOST * 64] = "[";
	uint64_t i, count = 0;

	for (i = 0; i < scene->part_count; i++) {
		const struct virtual_file_part *part = &scene->parts[i];
		const struct catalog_entry *entry =
			catalog_entry(scene->gallery.catalog, part->entry);

		if (has_name(type_of(scene, part)) &&
		    !(entry->flags & CATALOG_HOLES))
			continue;
		sprintf(expected + strlen(expected), "%s\"%s\"",
			count++ ? "," : "",
			scene->gallery.tensors[part->entry].name + part->key);
	}
	strcat(expected, "]");
	if (count == 0)
		assert_null(header_in_metadata(header, "ckptfs.left_out"));
	else
		assert_string_equal(header_in_metadata(header,
						       "ckptfs.left_out"),
				    expected);
	return count;
}

static void check_scene(struct scene *scene, unsigned ranges)
{
	struct array file = { .data = NULL };
	struct header_in header;
	struct virtual_file *content;
	uint64_t i;

	assert_int_equal(virtual_file_safetensors(scene->gallery.catalog,
						  scene->parts,
						  scene->part_count, &content),
			 0);
	read_header(content, &scene->gallery, &file);
	header_in_parse(&header, file.data, file.size);
	assert_int_equal(header.size, file.size);
	assert_int_equal(header.size % 4096, 0);
	assert_string_equal(header_in_metadata(&header, "format"), "pt");
	assert_int_equal(header.count + check_left_out(scene, &header),
			 scene->part_count);
	check_order(&header);
	for (i = 0; i < header.count; i++)
		append_tensor(scene, &header.tensors[i], &file);
	check_ranges(content, &scene->gallery, &file, ranges);
	header_in_free(&header);
	virtual_file_put(content);
	array_finish(&file);
}

static void check_scenes(const struct world_limits *limits, unsigned scenes,
			 unsigned ranges)
{
	unsigned i;

	for (i = 0; i < scenes; i++) {
		struct scene *scene = make_scene(limits, i % 2);

		check_scene(scene, ranges);
		free_scene(scene);
	}
}

static void small_tensors(void **state)
{
	const struct world_limits limits = {
		.ndim = 5, .volume = 200, .holes = 10, .overlaps = 10,
	};

	(void)state;
	check_scenes(&limits, 400, 40);
}

/* Runs that are read at once beside others that are copied or converted. */
static void large_tensors(void **state)
{
	const struct world_limits limits = {
		.ndim = 2, .volume = 200000, .overlaps = 10,
	};

	(void)state;
	check_scenes(&limits, 30, 20);
}

/* ---- one tensor ---------------------------------------------------------- */

typedef int make_image(const struct virtual_file_origin *origin,
		       struct virtual_file **ret_content);

/* A part of tensor @index, in a file of each kind. */
static void check_single(struct scene *scene, uint64_t index,
			 make_image *make, bool named)
{
	const struct world *world = &scene->worlds[index];
	struct virtual_file_origin origin = {
		.catalog = scene->gallery.catalog,
		.entry = index,
	};
	struct array file = { .data = NULL };
	enum dtype dtype = world->dtype;
	struct virtual_file *content;

	world_pick(&dice, &world->shape, &origin.selection);
	if (gallery_has_numbers(dtype) && dice_chance(&dice, 40))
		dtype = origin.dtype =
			targets[dice_below(&dice, COUNT_OF(targets))];
	if (named && !has_name(dtype)) {
		assert_int_equal(make(&origin, &content), -EOPNOTSUPP);
		return;
	}
	assert_int_equal(make(&origin, &content), 0);
	read_header(content, &scene->gallery, &file);
	if (gallery_expect(&scene->gallery, index, &origin.selection, dtype,
			   &file))
		check_ranges(content, &scene->gallery, &file, 12);
	virtual_file_put(content);
	array_finish(&file);
}

static void parts_of_one_tensor(void **state)
{
	const struct world_limits limits = {
		.ndim = 5, .volume = 500, .holes = 10, .overlaps = 10,
	};
	unsigned i;
	uint64_t j;

	(void)state;
	for (i = 0; i < 200; i++) {
		struct scene *scene = make_scene(&limits, i % 2);

		for (j = 0; j < scene->gallery.count; j++) {
			check_single(scene, j, virtual_file_raw, false);
			check_single(scene, j, virtual_file_npy, false);
			check_single(scene, j, virtual_file_safetensors_slice,
				     true);
		}
		free_scene(scene);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_tensors),
		cmocka_unit_test(large_tensors),
		cmocka_unit_test(parts_of_one_tensor),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("content", tests, NULL, NULL);
}
