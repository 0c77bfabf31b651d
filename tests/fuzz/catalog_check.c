/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/catalog_check.h"

#include "shard/base/name.h"
#include "shard/catalog/catalog_json.h"
#include "shard/read/npy.h"
#include "shard/read/plan.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

struct entry_at {
	const struct catalog *catalog;
	const struct catalog_entry *entry;
};

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static bool contains(const struct box *box, const uint64_t *at)
{
	unsigned i;

	for (i = 0; i < box->ndim; i++)
		if (at[i] < box->offset[i] ||
		    at[i] - box->offset[i] >= box->size[i])
			return false;
	return true;
}

void check_position(const struct box *box, uint64_t index, uint64_t *ret_at)
{
	unsigned i;

	for (i = box->ndim; i > 0; i--) {
		ret_at[i - 1] = box->offset[i - 1] + index % box->size[i - 1];
		index /= box->size[i - 1];
	}
}

int64_t check_owner(const struct catalog *catalog,
		    const struct catalog_entry *entry, const uint64_t *at)
{
	struct box box;
	int64_t i;

	for (i = (int64_t)entry->shard_count - 1; i >= 0; i--) {
		catalog_box(catalog, entry, (uint64_t)i, &box);
		if (contains(&box, at))
			break;
	}
	return i;
}

/* ---- files, shards ------------------------------------------------------- */

static void check_files(const struct catalog *catalog)
{
	uint64_t i;

	for (i = 0; i < least(catalog->file_count, CHECK_ENTRIES); i++) {
		const struct catalog_file *file = catalog_file(catalog, i);
		const char *path = catalog_text(catalog, file->path);
		const char *part = path;

		CHECK(file->path_size > 0 && path[0] != '/');
		CHECK(strlen(path) == file->path_size);
		CHECK(file->path_size <= LIMIT_PATH_SIZE);
		for (; part; part = strchr(part, '/')) {
			part += *part == '/';
			CHECK(strncmp(part, "../", 3) != 0);
			CHECK(strcmp(part, "..") != 0);
		}
	}
}

static void check_inside(const struct entry_at *e, uint64_t index)
{
	struct box shape, box;
	unsigned i;

	catalog_shape(e->catalog, e->entry, &shape);
	catalog_box(e->catalog, e->entry, index, &box);
	CHECK(box.ndim == shape.ndim);
	for (i = 0; i < box.ndim; i++) {
		CHECK(box.offset[i] <= shape.size[i]);
		CHECK(box.size[i] <= shape.size[i] - box.offset[i]);
	}
}

/* The parts of a path end at dots of the name, one behind the other. */
static void check_path(const struct entry_at *e)
{
	const char *name = catalog_text(e->catalog, e->entry->name);
	size_t last = 0;
	unsigned i;

	CHECK(e->entry->depth <= LIMIT_PATH_DEPTH);
	for (i = 1; i < e->entry->depth; i++) {
		size_t end = catalog_path_size(e->catalog, e->entry, i);

		CHECK(end < e->entry->name_size && name[end] == '.');
		CHECK(i == 1 || end > last);
		CHECK(catalog_is_below(e->catalog, e->entry, name, end));
		last = end;
	}
}

/* Lines, as many and as long as may be. */
static void check_transforms(const struct entry_at *e,
			     const struct catalog_shard *shard)
{
	size_t size, line = 0, i;
	const char *text;
	unsigned depth = 0;

	if (!(shard->flags & CATALOG_TRANSFORMED)) {
		CHECK(shard->flags >> CATALOG_TRANSFORM_SHIFT == 0);
		return;
	}
	CHECK(shard->flags >> CATALOG_TRANSFORM_SHIFT <
	      e->catalog->transform_count);
	text = catalog_transforms(e->catalog, shard, &size);
	CHECK(size > 0 && text[size - 1] == '\n');
	for (i = 0; i < size; i++) {
		if (text[i] != '\n') {
			CHECK((unsigned char)text[i] >= ' ');
			continue;
		}
		CHECK(i - line <= LIMIT_TRANSFORM_NAME);
		CHECK(++depth <= LIMIT_TRANSFORM_DEPTH);
		line = i + 1;
	}
}

static void check_shards(const struct entry_at *e)
{
	uint64_t count = e->entry->shard_count, reach = 0, end, i;
	const struct catalog_shard *shard;
	struct box box;

	CHECK(e->entry->first_shard + count + e->entry->hole_count <=
	      e->catalog->shard_count);
	for (i = 0; i < least(count, CHECK_SHARDS); i++) {
		shard = catalog_shard(e->catalog, e->entry, i);
		CHECK(shard->file < e->catalog->file_count);
		CHECK(!__builtin_add_overflow(shard->offset, shard->size,
					      &end));
		CHECK(shard->reach >= reach);
		reach = shard->reach;
		check_transforms(e, shard);
		catalog_box(e->catalog, e->entry, i, &box);
		CHECK(box.ndim == 0 || box.offset[0] + box.size[0] <= reach);
		check_inside(e, i);
	}
	for (i = 0; i < e->entry->hole_count; i++) {
		shard = catalog_shard(e->catalog, e->entry, count + i);
		CHECK(shard->file == CATALOG_NO_FILE);
		check_inside(e, count + i);
	}
}

/* Element by element: overlaps and holes are what the flags say. */
static void check_tiling(const struct entry_at *e, const struct box *shape,
			 uint64_t volume)
{
	uint64_t shards = e->entry->shard_count, at[LIMIT_NDIM], i, j;
	bool overlap = false, holes = false;
	struct box box;

	for (i = 0; i < volume; i++) {
		unsigned owners = 0, holders = 0;

		check_position(shape, i, at);
		for (j = 0; j < shards + e->entry->hole_count; j++) {
			catalog_box(e->catalog, e->entry, j, &box);
			if (j < shards)
				owners += contains(&box, at);
			else
				holders += contains(&box, at);
		}
		overlap |= owners > 1;
		holes |= owners == 0;
		CHECK(owners > 0 || holders == 1);
		/* Too many holes are told as one. */
		CHECK(owners == 0 || holders == 0 ||
		      (e->entry->hole_count == 1 &&
		       box_volume(&box) == volume));
	}
	CHECK(overlap == !!(e->entry->flags & CATALOG_OVERLAP));
	CHECK(holes == !!(e->entry->flags & CATALOG_HOLES));
}

/* ---- plans --------------------------------------------------------------- */

struct paint {
	const struct plan *plan;
	uint64_t count;				/* elements of the range */
	int64_t shard[CHECK_ELEMENTS];		/* -1: not covered yet */
	uint64_t place[CHECK_ELEMENTS];		/* row-major in the shard */
};

static uint64_t place_in(const struct box *shard, const uint64_t *at)
{
	uint64_t place = 0;
	unsigned i;

	for (i = 0; i < shard->ndim; i++)
		place = place * shard->size[i] + at[i] - shard->offset[i];
	return place;
}

static void paint_piece(const struct entry_at *e, struct paint *paint,
			const struct piece *piece)
{
	struct box shard, part = { .ndim = e->entry->ndim };
	uint64_t at[LIMIT_NDIM], i;
	unsigned axis;

	catalog_box(e->catalog, e->entry, piece->shard, &shard);
	for (axis = 0; axis < part.ndim; axis++) {
		CHECK(piece->offset[axis] < shard.size[axis]);
		CHECK(piece->count[axis] > 0);
		CHECK(piece->count[axis] <=
		      shard.size[axis] - piece->offset[axis]);
		part.offset[axis] = shard.offset[axis] + piece->offset[axis];
		part.size[axis] = piece->count[axis];
	}
	for (i = 0; i < box_volume(&part); i++) {
		uint64_t target = piece->target;

		check_position(&part, i, at);
		for (axis = 0; axis < part.ndim; axis++)
			target += (at[axis] - part.offset[axis]) *
				  paint->plan->stride[axis];
		CHECK(target < paint->count);
		CHECK(paint->shard[target] < 0 ||
		      e->entry->flags & CATALOG_OVERLAP);
		paint->shard[target] = (int64_t)piece->shard;
		paint->place[target] = place_in(&shard, at);
	}
}

static void check_plan(const struct entry_at *e, const struct box *selection,
		       uint64_t begin, uint64_t end)
{
	struct paint paint = { .count = end - begin };
	uint64_t at[LIMIT_NDIM], i;
	struct piece piece;
	struct plan plan;
	struct box shard;

	for (i = 0; i < paint.count; i++)
		paint.shard[i] = -1;
	plan_init(&plan, e->catalog, e->entry, selection,
		  (struct plan_range){ begin, end });
	paint.plan = &plan;
	while (plan_next(&plan, &piece))
		paint_piece(e, &paint, &piece);
	for (i = 0; i < paint.count; i++) {
		check_position(selection, begin + i, at);
		CHECK(paint.shard[i] == check_owner(e->catalog, e->entry, at));
		if (paint.shard[i] < 0)
			continue;
		catalog_box(e->catalog, e->entry, (uint64_t)paint.shard[i],
			    &shard);
		CHECK(paint.place[i] == place_in(&shard, at));
	}
}

static void check_plans(const struct entry_at *e, const struct box *shape,
			uint64_t volume)
{
	struct box part = *shape;
	unsigned axis;

	check_plan(e, shape, 0, volume);
	check_plan(e, shape, volume / 3, volume - volume / 5);
	for (axis = 0; axis < part.ndim; axis++) {
		part.offset[axis] = part.size[axis] / 3;
		part.size[axis] -= part.offset[axis] + part.size[axis] / 4;
	}
	volume = box_volume(&part);
	check_plan(e, &part, 0, volume);
	check_plan(e, &part, volume / 2, volume);
}

/* ---- text ---------------------------------------------------------------- */

/* JSON on one line, in UTF-8; the library looks at that only roughly. */
static struct json_object *parse(const struct array *text)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *object;
	size_t i = 0;
	unsigned step;

	for (; i < text->size; i += step) {
		step = name_utf8_size(text->data + i, text->size - i);
		CHECK(step > 0 && text->data[i] != '\n');
	}

	CHECK(tokener && text->size <= INT32_MAX);
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT |
					JSON_TOKENER_VALIDATE_UTF8);
	object = json_tokener_parse_ex(tokener, text->data, (int)text->size);
	CHECK(object && json_tokener_get_error(tokener) ==
			json_tokener_success);
	json_tokener_free(tokener);
	return object;
}

/* All of rank 0. */
static void make_owned(const struct catalog *catalog,
		       struct owned_catalog *ret_owned)
{
	ret_owned->catalog = catalog;
	ret_owned->owners = calloc(catalog->file_count + 1, sizeof(uint32_t));
	CHECK(ret_owned->owners);
}

static void check_json(const struct entry_at *e, uint64_t index)
{
	struct array text = { .data = NULL };
	struct json_object *object, *value;
	struct owned_catalog owned;
	char encoded[NAME_ENCODED_MAX];

	make_owned(e->catalog, &owned);
	CHECK(catalog_json_tensor(&owned, index, 64 * MIB, &text) == 0);
	free((void *)owned.owners);
	object = parse(&text);
	CHECK(json_object_object_get_ex(object, "shards", &value));
	CHECK(json_object_array_length(value) == e->entry->shard_count);
	CHECK(json_object_object_get_ex(object, "shape", &value));
	CHECK(json_object_array_length(value) == e->entry->ndim);
	CHECK(json_object_object_get_ex(object, "file", &value));
	name_encode(catalog_text(e->catalog, e->entry->name),
		    e->entry->name_size, encoded);
	CHECK(strcmp(json_object_get_string(value), encoded) == 0);
	CHECK(json_object_object_get_ex(object, "holes", &value) ==
	      (e->entry->hole_count > 0));
	CHECK(!value ||
	      json_object_array_length(value) == e->entry->hole_count);
	json_object_put(object);
	array_finish(&text);
}

static void check_attribute(const struct entry_at *e)
{
	struct array text = { .data = NULL };
	struct owned_catalog owned;
	int error;

	make_owned(e->catalog, &owned);
	error = catalog_json_shards(&owned, e->entry, NULL, LIMIT_XATTR_SIZE,
				    &text);
	free((void *)owned.owners);
	CHECK(error == 0 || error == -E2BIG);
	if (!error)
		json_object_put(parse(&text));
	array_finish(&text);
}

/* ---- entries ------------------------------------------------------------- */

static void check_tensor(const struct entry_at *e, uint64_t index)
{
	char header[NPY_HEADER_MAX];
	struct box shape;
	uint64_t volume;

	catalog_shape(e->catalog, e->entry, &shape);
	volume = box_volume(&shape);
	CHECK(e->entry->size == volume * dtype_info(e->entry->dtype)->size);
	CHECK(npy_header(e->entry->dtype, &shape, header) % 64 == 0);
	if (e->entry->shard_count > CHECK_SHARDS)
		return;
	check_json(e, index);
	check_attribute(e);
	if (volume > CHECK_ELEMENTS)
		return;
	check_tiling(e, &shape, volume);
	if (volume > 0)
		check_plans(e, &shape, volume);
}

static void check_entry(const struct catalog *catalog, uint64_t index)
{
	const struct catalog_entry *entry = catalog_entry(catalog, index);
	const char *name = catalog_text(catalog, entry->name);
	struct entry_at e = { catalog, entry };
	char encoded[NAME_ENCODED_MAX];
	size_t size = name_encode(name, entry->name_size, encoded);
	bool is_object = index >= catalog->tensor_count;

	CHECK(entry->name_size <= LIMIT_NAME_SIZE);
	CHECK(entry->ndim <= LIMIT_NDIM);
	CHECK(is_object == !!(entry->flags & CATALOG_OBJECT));
	CHECK((is_object ? catalog_find_object(catalog, encoded, size) :
			   catalog_find_tensor(catalog, encoded, size)) ==
	      (int64_t)index);
	check_path(&e);
	check_shards(&e);
	if (is_object)
		CHECK(entry->shard_count == 1 && entry->ndim == 1);
	else
		check_tensor(&e, index);
}

void check_catalog(const struct catalog *catalog)
{
	uint64_t count = catalog->tensor_count + catalog->object_count, i;

	check_files(catalog);
	for (i = 0; i < least(catalog->tensor_count, CHECK_ENTRIES); i++)
		check_entry(catalog, i);
	for (i = catalog->tensor_count; i < least(count, catalog->tensor_count +
						  CHECK_ENTRIES); i++)
		check_entry(catalog, i);
	CHECK(catalog_find_tensor(catalog, "[", 1) == -1);
	CHECK(catalog_find_object(catalog, "[", 1) == -1);
}
