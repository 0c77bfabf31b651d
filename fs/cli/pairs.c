/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/pairs.h"

#include "fs/cli/object_pair.h"
#include "shard/base/name.h"
#include "shard/values/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct catalog_entry *pair_entry(const struct pairs *pairs,
				       const struct pair *pair,
				       enum pair_side side)
{
	return pair->entries[side] == PAIR_NONE ? NULL :
	       catalog_entry(pairs->checkpoints[side]->catalog,
			     pair->entries[side]);
}

/* ---- metadata ------------------------------------------------------------ */

static bool same_boxes(const struct box *a, const struct box *b)
{
	return a->ndim == b->ndim &&
	       memcmp(a->size, b->size, a->ndim * sizeof(*a->size)) == 0;
}

static bool same_shapes(const struct pairs *pairs,
			const struct catalog_entry *const *entries)
{
	struct box boxes[2];
	unsigned side;

	for (side = 0; side < 2; side++)
		catalog_written_shape(pairs->checkpoints[side]->catalog,
				      entries[side], &boxes[side]);
	if (same_boxes(&boxes[0], &boxes[1]))
		return true;
	/* torch counts the bytes of float4, safetensors its elements. */
	if (entries[0]->dtype != entries[1]->dtype ||
	    !((entries[0]->flags ^ entries[1]->flags) & CATALOG_PACKED))
		return false;
	for (side = 0; side < 2; side++)
		catalog_shape(pairs->checkpoints[side]->catalog,
			      entries[side], &boxes[side]);
	return same_boxes(&boxes[0], &boxes[1]);
}

static bool same_types(const struct pairs *pairs,
		       const struct catalog_entry *const *entries)
{
	const struct catalog_entry *a = entries[0], *b = entries[1];

	return a->dtype == b->dtype &&
	       a->type_name_size == b->type_name_size &&
	       memcmp(catalog_text(pairs->checkpoints[0]->catalog,
				   a->type_name),
		      catalog_text(pairs->checkpoints[1]->catalog,
				   b->type_name), a->type_name_size) == 0;
}

/* What metadata alone says, and whether there is more to find out. */
static void judge(const struct pairs *pairs, struct pair *pair)
{
	const struct catalog_entry *entries[2] = {
		pair_entry(pairs, pair, PAIR_LEFT),
		pair_entry(pairs, pair, PAIR_RIGHT),
	};

	if (!entries[PAIR_LEFT]) {
		pair->state = PAIR_ADDED;
	} else if (!entries[PAIR_RIGHT]) {
		pair->state = PAIR_REMOVED;
	} else if (entries[0]->flags & CATALOG_OBJECT) {
		pair->read = true;
	} else if (!same_shapes(pairs, entries)) {
		pair->state = PAIR_SHAPE;
	} else {
		bool same = same_types(pairs, entries);

		pair->state = same ? PAIR_EQUAL : PAIR_DTYPE;
		pair->has_values = pairs->values &&
				   convert_has_value(entries[0]->dtype) &&
				   convert_has_value(entries[1]->dtype);
		pair->read = same || pair->has_values;
	}
}

static void add_pair(struct pairs *pairs, uint64_t left, uint64_t right)
{
	struct pair *pair = &pairs->pairs[pairs->count++];

	pair->entries[PAIR_LEFT] = left;
	pair->entries[PAIR_RIGHT] = right;
	pair->event = UINT64_MAX;
	pair->comparison = COMPARISON_NONE;
	judge(pairs, pair);
	if (pair->state != PAIR_EQUAL)
		pairs->different = true;
}

/* The entry of @catalog that is called as @entry of @other is. */
static uint64_t find_entry(const struct catalog *catalog,
			   const struct catalog *other,
			   const struct catalog_entry *entry)
{
	char encoded[NAME_ENCODED_MAX];
	size_t size = name_encode(catalog_text(other, entry->name),
				  entry->name_size, encoded);
	int64_t index = entry->flags & CATALOG_OBJECT ?
			catalog_find_object(catalog, encoded, size) :
			catalog_find_tensor(catalog, encoded, size);

	return index < 0 ? PAIR_NONE : (uint64_t)index;
}

/* Entries of @side: all of the left one, those of the right one that are
 * there alone. */
static void add_side(struct pairs *pairs, enum pair_side side, bool objects)
{
	const struct catalog *catalog = pairs->checkpoints[side]->catalog;
	const struct catalog *other = pairs->checkpoints[!side]->catalog;
	uint64_t count = catalog->tensor_count + catalog->object_count, i;

	for (i = 0; i < count; i++) {
		const struct catalog_entry *entry = catalog_entry(catalog, i);
		uint64_t match;

		if (!pairs->select(pairs->context, catalog, entry))
			continue;
		if (entry->flags & CATALOG_OBJECT && !objects) {
			pairs->objects_left_out++;
			continue;
		}
		match = find_entry(other, catalog, entry);
		if (side == PAIR_LEFT)
			add_pair(pairs, i, match);
		else if (match == PAIR_NONE)
			add_pair(pairs, PAIR_NONE, i);
	}
}

static bool holds_objects(const struct checkpoint *checkpoint)
{
	uint32_t format = checkpoint->catalog->origin.format;

	return format == CATALOG_DCP || format == CATALOG_DCP_LOCAL;
}

int pairs_make(struct pairs *pairs)
{
	const struct catalog *a = pairs->checkpoints[0]->catalog;
	const struct catalog *b = pairs->checkpoints[1]->catalog;
	bool objects = holds_objects(pairs->checkpoints[0]) &&
		       holds_objects(pairs->checkpoints[1]);

	pairs->pairs = calloc(a->tensor_count + a->object_count +
			      b->tensor_count + b->object_count + 1,
			      sizeof(*pairs->pairs));
	if (!pairs->pairs)
		return -ENOMEM;
	add_side(pairs, PAIR_LEFT, objects);
	add_side(pairs, PAIR_RIGHT, objects);
	return 0;
}

void pairs_finish(struct pairs *pairs)
{
	parallel_scan_replies_finish(&pairs->replies);
	parallel_scan_finish(&pairs->sweep);
	free(pairs->parts);
	free(pairs->items);
	free(pairs->pairs);
}
