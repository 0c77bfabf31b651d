/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A catalog as another rank might send it, with the right size and hash put
 * in. When it passes, everything that is asked of catalogs is asked of it:
 * what its flags claim may be wrong, and yet nothing is read beyond the blob,
 * no piece lies outside of its shard or its range, and all ends.
 */
#include "tests/fuzz/fuzz.h"

#include "shard/base/name.h"
#include "shard/catalog/catalog_check.h"
#include "shard/catalog/catalog_json.h"
#include "shard/catalog/catalog_layout.h"
#include "shard/read/plan.h"
#include "shard/read/virtual_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Beyond these it is looked at only in part, to stay fast. */
enum { ENTRIES_MAX = 64, ELEMENTS_MAX = 4096, PIECES_MAX = 4096,
       TEXT_MAX = 1 << 16 };

struct entry_at {
	const struct catalog *catalog;
	const struct catalog_entry *entry;
	uint64_t index;
};

/* ---- plans --------------------------------------------------------------- */

static void check_piece(const struct entry_at *e, const struct plan *plan,
			const struct piece *piece, uint64_t count)
{
	uint64_t last = piece->target;
	struct box shard;
	unsigned i;

	CHECK(piece->shard < e->entry->shard_count);
	CHECK(catalog_shard(e->catalog, e->entry, piece->shard)->file <
	      e->catalog->file_count);
	catalog_box(e->catalog, e->entry, piece->shard, &shard);
	for (i = 0; i < shard.ndim; i++) {
		CHECK(piece->count[i] > 0);
		CHECK(piece->offset[i] < shard.size[i]);
		CHECK(piece->count[i] <= shard.size[i] - piece->offset[i]);
		last += (piece->count[i] - 1) * plan->stride[i];
	}
	CHECK(piece->target <= last && last < count);
}

static void check_range(const struct entry_at *e, const struct box *selection,
			uint64_t begin, uint64_t end)
{
	struct piece piece;
	struct plan plan;
	unsigned pieces = 0;

	plan_init(&plan, e->catalog, e->entry, selection,
		  (struct plan_range){ begin, end });
	while (pieces++ < PIECES_MAX && plan_next(&plan, &piece))
		check_piece(e, &plan, &piece, end - begin);
}

static void check_plans(const struct entry_at *e, const struct box *selection)
{
	uint64_t volume = box_volume(selection);
	uint64_t some = volume < ELEMENTS_MAX ? volume : ELEMENTS_MAX;

	check_range(e, selection, 0, volume);
	check_range(e, selection, volume / 3, volume - volume / 5);
	check_range(e, selection, volume - some, volume);
}

/* ---- selections ---------------------------------------------------------- */

static void check_inside(const struct box *box, const struct box *whole)
{
	unsigned i;

	CHECK(box->ndim == whole->ndim);
	for (i = 0; i < box->ndim; i++) {
		CHECK(box->offset[i] <= whole->size[i]);
		CHECK(box->size[i] <= whole->size[i] - box->offset[i]);
	}
}

static void check_images(const struct entry_at *e, const struct box *selection)
{
	struct virtual_file_origin origin = {
		.catalog = e->catalog,
		.entry = e->index,
		.selection = *selection,
	};
	struct virtual_file *content;

	if (virtual_file_npy(&origin, &content) == 0)
		virtual_file_put(content);
	if (virtual_file_safetensors_slice(&origin, &content) == 0)
		virtual_file_put(content);
}

/* A part of the written shape: from 1 / @begin to 1 / @end before the end. */
static void check_part(const struct entry_at *e, unsigned begin, unsigned end)
{
	struct box shape, whole, written, box, back;
	unsigned i;

	catalog_shape(e->catalog, e->entry, &shape);
	catalog_written_shape(e->catalog, e->entry, &whole);
	written = whole;
	for (i = 0; i < whole.ndim; i++) {
		written.offset[i] = begin ? whole.size[i] / begin : 0;
		written.size[i] -= written.offset[i];
		if (end)
			written.size[i] -= written.size[i] / end;
	}
	if (!catalog_select(e->catalog, e->entry, &written, &box))
		return;
	check_inside(&box, &shape);
	catalog_written(e->catalog, e->entry, &box, &back);
	check_inside(&back, &whole);
	if (box_volume(&box) > 0)
		check_plans(e, &box);
	check_images(e, &box);
}

/* ---- entries ------------------------------------------------------------- */

static void check_name(const struct entry_at *e)
{
	const char *name = catalog_text(e->catalog, e->entry->name);
	char encoded[NAME_ENCODED_MAX];
	size_t size = name_encode(name, e->entry->name_size, encoded), end;
	int64_t found = e->entry->flags & CATALOG_OBJECT ?
			catalog_find_object(e->catalog, encoded, size) :
			catalog_find_tensor(e->catalog, encoded, size);
	unsigned i;

	CHECK(found == (int64_t)e->index);
	for (i = 1; i < e->entry->depth; i++) {
		end = catalog_path_size(e->catalog, e->entry, i);
		CHECK(end < e->entry->name_size);
		CHECK(catalog_is_below(e->catalog, e->entry, name, end));
	}
	CHECK(!catalog_is_below(e->catalog, e->entry, name,
				e->entry->name_size));
}

static void check_text(const struct entry_at *e)
{
	struct array text = { .data = NULL };
	struct owned_catalog owned = {
		e->catalog, calloc(e->catalog->file_count + 1, sizeof(uint32_t)),
	};
	int error;

	CHECK(owned.owners);
	error = catalog_json_tensor(&owned, e->index, TEXT_MAX, &text);
	free((void *)owned.owners);
	CHECK(error == 0 || error == -E2BIG);
	array_finish(&text);
}

static void check_chains(const struct entry_at *e)
{
	uint64_t i, size_sum = 0;
	const char *chain;
	size_t size;

	for (i = 0; i < e->entry->shard_count; i++) {
		const struct catalog_shard *shard =
			catalog_shard(e->catalog, e->entry, i);

		if (!(shard->flags & CATALOG_TRANSFORMED))
			continue;
		chain = catalog_transforms(e->catalog, shard, &size);
		CHECK(chain[size - 1] == '\n');
		size_sum += size;
	}
	CHECK(size_sum == 0 || e->catalog->transform_count > 0);
}

static void check_entry(const struct catalog *catalog, uint64_t index)
{
	const struct entry_at e = { catalog, catalog_entry(catalog, index),
				    index };

	check_name(&e);
	check_text(&e);
	check_chains(&e);
	check_part(&e, 0, 0);
	check_part(&e, 2, 0);
	check_part(&e, 0, 2);
	check_part(&e, 3, 4);
}

/* ---- catalogs ------------------------------------------------------------ */

static void walk(const struct catalog *catalog)
{
	uint64_t count = catalog->tensor_count + catalog->object_count, i;

	for (i = 0; i < count && i < ENTRIES_MAX; i++)
		check_entry(catalog, i);
	for (i = 0; i < catalog->file_count; i++)
		CHECK(strlen(catalog_text(catalog,
					  catalog_file(catalog, i)->path)) ==
		      catalog_file(catalog, i)->path_size);
	CHECK(catalog_find_tensor(catalog, "[", 1) == -1);
	CHECK(catalog_find_object(catalog, "[", 1) == -1);
}

/* What a liar can put right himself. */
static void put_right(struct catalog *catalog, size_t size)
{
	catalog->size = size;
	if (catalog->entries <= catalog->tensor_slots &&
	    catalog->tensor_slots <= size)
		catalog_hash(catalog, catalog->hash);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Exactly as large, so that a sanitizer sees a read behind it. */
	struct catalog *catalog = malloc(size ? size : 1);
	struct fault fault = { .error = 0 };
	int error;

	CHECK(catalog);
	if (size > 0)
		memcpy(catalog, data, size);
	if (size >= sizeof(*catalog))
		put_right(catalog, size);
	error = catalog_check(catalog, size, &fault);
	CHECK(error == 0 || (error == -EBADMSG && fault.error == error &&
			     fault.offset <= size && fault.reason));
	if (!error)
		walk(catalog);
	free(catalog);
	return 0;
}
