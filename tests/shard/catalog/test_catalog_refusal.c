/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For each rule of catalog_check.c a catalog that breaks it and nothing that
 * is looked at before, with the hash of what it then is.
 */
#include "support/test.h"
#include "support/catalog_zoo.h"
#include "support/refusal.h"

#include "shard/catalog/catalog_check.h"
#include "shard/catalog/catalog_layout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- what is broken ------------------------------------------------------ */

static void *at(struct catalog *c, uint64_t offset)
{
	return (char *)c + offset;
}

static struct catalog_entry *entry(struct catalog *c, enum zoo index)
{
	return (struct catalog_entry *)at(c, c->entries) + index;
}

static struct catalog_shard *shard(struct catalog *c, enum zoo index,
				   unsigned number)
{
	return (struct catalog_shard *)at(c, c->shards) +
	       entry(c, index)->first_shard + number;
}

static struct catalog_file *file(struct catalog *c)
{
	return at(c, c->files);
}

static struct catalog_transform *transform(struct catalog *c)
{
	return at(c, c->transforms);
}

/* Number @number of the shape and the boxes of an entry. */
static uint32_t *dim(struct catalog *c, enum zoo index, unsigned number)
{
	assert_int_equal(entry(c, index)->width, 4);
	return (uint32_t *)at(c, entry(c, index)->dims) + number;
}

static uint32_t *slots(struct catalog *c)
{
	return at(c, c->tensor_slots);
}

static char *text(struct catalog *c, enum zoo index)
{
	return at(c, entry(c, index)->name);
}

/* Where in the name of ZOO_DEEP part @part ends. */
static void set_end(struct catalog *c, unsigned part, uint32_t end)
{
	memcpy(text(c, ZOO_DEEP) + 17 + 4 * part, &end, sizeof(end));
}

static void set_path(struct catalog *c, const char *path)
{
	/* "dir/c" is the longest. */
	struct catalog_file *last = file(c) + 2;

	assert_int_equal(last->path_size, 5);
	memcpy(at(c, last->path), path, 5);
}

/* The shards of ZOO_PLAIN in the order of the checkpoint. */
static void unsort(struct catalog *c)
{
	*dim(c, ZOO_PLAIN, 2) = 2;
	*dim(c, ZOO_PLAIN, 6) = 0;
	shard(c, ZOO_PLAIN, 0)->reach = 4;
}

static void no_hole(struct catalog *c)
{
	entry(c, ZOO_HOLE)->flags = 0;
	entry(c, ZOO_HOLE)->hole_count = 0;
}

/* The only shard of ZOO_HOLE has all of it. */
static void full_hole(struct catalog *c)
{
	*dim(c, ZOO_HOLE, 2) = 4;
	shard(c, ZOO_HOLE, 0)->reach = 4;
}

/* ZOO_OVERLAP, the last, without its last shard. */
static void lose_shard(struct catalog *c)
{
	entry(c, ZOO_OVERLAP)->shard_count--;
}

/* One name for all. */
static void share_names(struct catalog *c)
{
	unsigned i;

	for (i = 0; i < ZOO_TENSORS; i++) {
		entry(c, i)->name = entry(c, ZOO_DEEP)->name;
		entry(c, i)->name_size = entry(c, ZOO_DEEP)->name_size;
	}
}

static void fill_slots(struct catalog *c)
{
	uint64_t i;

	for (i = 0; i < c->tensor_slot_count; i++)
		slots(c)[i] = 1;
}

static uint32_t *slot_in_use(struct catalog *c)
{
	uint32_t *slot = slots(c);

	while (!*slot)
		slot++;
	return slot;
}

/* A value that stands behind a free slot, so that it is where its name belongs,
 * moves to another place behind a free slot. */
static void move_slot(struct catalog *c)
{
	uint64_t mask = c->tensor_slot_count - 1, i = 0, j = 0;

	while (!(slots(c)[i & mask] == 0 && slots(c)[(i + 1) & mask]))
		i++;
	while (!(slots(c)[j & mask] == 0 && slots(c)[(j + 1) & mask] == 0))
		j++;
	slots(c)[(j + 1) & mask] = slots(c)[(i + 1) & mask];
	slots(c)[(i + 1) & mask] = 0;
}

/* The last of a run goes. */
static void clear_slot(struct catalog *c)
{
	uint64_t mask = c->tensor_slot_count - 1, i = 0;

	while (!(slots(c)[i & mask] && slots(c)[(i + 1) & mask] == 0))
		i++;
	slots(c)[i & mask] = 0;
}

/* ---- rules --------------------------------------------------------------- */

struct rule {
	const char *reason;
	void (*apply)(struct catalog *catalog);
};

#define RULE(name, statement) \
	static void name(struct catalog *c) { statement; }

RULE(size, c->size += 8)
RULE(tensors, c->tensor_count = LIMIT_COUNT + 1)
RULE(objects, c->object_count = LIMIT_COUNT - ZOO_TENSORS + 1)
RULE(shards, c->shard_count = LIMIT_COUNT + 1)
RULE(files, c->file_count = LIMIT_COUNT + 1)
RULE(transforms, c->transform_count = LIMIT_TRANSFORMS + 1)
RULE(format, c->origin.format = CATALOG_SAFETENSORS_SHARDED + 1)
RULE(order_dims, c->dims = c->names + 8)
RULE(order_names, c->names = c->tensor_slots + 8)
RULE(order_slots, c->tensor_slots = c->size + 8)
RULE(magic, c->magic++)
RULE(fewer_tensors, c->tensor_count--)
RULE(fewer_shards, c->shard_count--)
RULE(entries_later, c->entries += 8)
RULE(more_slots, c->tensor_slot_count *= 2)
RULE(odd_dims, c->dims += 4)

static const struct rule header_rules[] = {
	{ "another size", size }, { "too many", tensors },
	{ "too many", objects }, { "too many", shards }, { "too many", files },
	{ "too many", transforms }, { "unknown format", format },
	{ "not in order", order_dims }, { "not in order", order_names },
	{ "not in order", order_slots }, { "does not fit", magic },
	{ "does not fit", fewer_tensors }, { "does not fit", fewer_shards },
	{ "does not fit", entries_later }, { "does not fit", more_slots },
	{ "does not fit", odd_dims },
};

RULE(reserved, file(c)->reserved = 1)
RULE(path_first, file(c)->path = c->names)
RULE(path_behind, file(c)->path = c->tensor_slots)
RULE(path_far, file(c)->path = UINT64_MAX)
RULE(path_last, file(c)->path = c->tensor_slots - 1)
RULE(path_long, file(c)->path_size = LIMIT_PATH_SIZE + 1)
RULE(path_max, file(c)->path_size = UINT32_MAX)
RULE(path_empty, file(c)->path++; file(c)->path_size = 0)
RULE(path_open, file(c)[2].path_size--)
RULE(path_more, file(c)->path_size++)
RULE(path_absolute, set_path(c, "/ir/c"))
RULE(path_up, set_path(c, "../ir"))
RULE(path_inner, set_path(c, "a/../"))
RULE(path_end, set_path(c, "ab/.."))
RULE(path_nul, set_path(c, "ab\0cd"))
RULE(chain_first, transform(c)->text = c->names)
RULE(chain_max, transform(c)->text_size = UINT64_MAX)
RULE(chain_open, transform(c)->text_size--)
RULE(chain_empty, transform(c)->text_size = 0)

static const struct rule text_rules[] = {
	{ "reserved bytes", reserved }, { "path beyond", path_first },
	{ "path beyond", path_behind }, { "path beyond", path_far },
	{ "path beyond", path_last }, { "path beyond", path_long },
	{ "path beyond", path_max },
	{ "plain relative path", path_empty },
	{ "plain relative path", path_open },
	{ "plain relative path", path_more },
	{ "plain relative path", path_absolute },
	{ "plain relative path", path_up },
	{ "plain relative path", path_inner },
	{ "plain relative path", path_end },
	{ "plain relative path", path_nul },
	{ "extensions beyond", chain_first },
	{ "extensions beyond", chain_max },
	{ "bad stream", chain_open }, { "bad stream", chain_empty },
};

RULE(flag, entry(c, ZOO_PLAIN)->flags = 16)
RULE(as_object, entry(c, ZOO_PLAIN)->flags = CATALOG_OBJECT)
RULE(no_object, entry(c, ZOO_FIRST)->flags = 0)
RULE(packed_object, entry(c, ZOO_FIRST)->flags |= CATALOG_PACKED)
RULE(dtype, entry(c, ZOO_PLAIN)->dtype = DTYPE_COUNT)
RULE(axes, entry(c, ZOO_PLAIN)->ndim = LIMIT_NDIM + 1)
RULE(width, entry(c, ZOO_PLAIN)->width = 2)
RULE(width_none, entry(c, ZOO_PLAIN)->width = 0)
RULE(hole_hidden, entry(c, ZOO_HOLE)->flags = 0)
RULE(hole_none, entry(c, ZOO_HOLE)->hole_count = 0)
RULE(hole_many, entry(c, ZOO_HOLE)->hole_count = LIMIT_HOLES + 1)
RULE(object_axes, entry(c, ZOO_FIRST)->ndim = 0)
RULE(object_type, entry(c, ZOO_FIRST)->dtype = DTYPE_I8)
RULE(object_none, entry(c, ZOO_FIRST)->shard_count = 0)
RULE(name_long, entry(c, ZOO_PLAIN)->name_size = LIMIT_NAME_SIZE + 1)
RULE(name_deep, entry(c, ZOO_DEEP)->depth = LIMIT_PATH_DEPTH + 1)
RULE(name_first, entry(c, ZOO_PLAIN)->name = c->names)
RULE(name_behind, entry(c, ZOO_PLAIN)->name = c->tensor_slots - 2)
RULE(name_far, entry(c, ZOO_PLAIN)->name = UINT64_MAX - 2)
RULE(name_ends, entry(c, ZOO_OVERLAP)->depth = LIMIT_PATH_DEPTH)
RULE(path_letter, set_end(c, 0, 8))
RULE(path_beyond, set_end(c, 1, 17))
RULE(path_back, set_end(c, 1, 3))
RULE(path_same, set_end(c, 1, 9))
RULE(type_of_none, entry(c, ZOO_PLAIN)->type_name = 1)
RULE(type_far, entry(c, ZOO_UNKNOWN)->type_name = c->tensor_slots)
RULE(type_long, entry(c, ZOO_UNKNOWN)->type_name_size =
	LIMIT_TYPE_NAME_SIZE + 1)
RULE(shards_many, entry(c, ZOO_PLAIN)->shard_count = UINT32_MAX)
RULE(boxes_far, entry(c, ZOO_OVERLAP)->width = 8)
RULE(large, *dim(c, ZOO_DEEP, 0) = *dim(c, ZOO_DEEP, 1) = UINT32_MAX)
RULE(large_wraps, *dim(c, ZOO_PACKED, 0) = *dim(c, ZOO_PACKED, 1) = 1u << 31;
	*dim(c, ZOO_PACKED, 2) = 4)
RULE(large_empty, *dim(c, ZOO_PACKED, 0) = 0;
	*dim(c, ZOO_PACKED, 1) = *dim(c, ZOO_PACKED, 2) = UINT32_MAX)
RULE(larger, entry(c, ZOO_PLAIN)->size++)
RULE(packed_type, entry(c, ZOO_PACKED)->dtype = DTYPE_U8)
RULE(packed_unknown, entry(c, ZOO_PACKED)->dtype = DTYPE_UNKNOWN;
	entry(c, ZOO_PACKED)->size = 0)
RULE(packed_bytes, entry(c, ZOO_PACKED)->dtype = DTYPE_U8;
	*dim(c, ZOO_PACKED, 4) = 1)
RULE(packed_nothing, entry(c, ZOO_PACKED)->dtype = DTYPE_UNKNOWN;
	entry(c, ZOO_PACKED)->size = 0;
	*dim(c, ZOO_PACKED, 4) = 1; *dim(c, ZOO_PACKED, 2) = 0)
RULE(packed_front, *dim(c, ZOO_PACKED, 3) = 6)
RULE(packed_row, *dim(c, ZOO_PACKED, 4) = 4)
RULE(packed_bits, *dim(c, ZOO_PACKED, 5) = 5)
RULE(packed_axis, *dim(c, ZOO_PACKED, 1) = 7;
	entry(c, ZOO_PACKED)->size = 5 * 7 * 3)
/* 4 * (2^31 + 1) * 2^31 bits are 2^30 bytes, and 2^64 bits. */
RULE(packed_wraps, entry(c, ZOO_PACKED)->size = UINT64_C(5) << 30;
	*dim(c, ZOO_PACKED, 2) = 1u << 30; *dim(c, ZOO_PACKED, 4) = 1u << 31;
	*dim(c, ZOO_PACKED, 5) = (1u << 31) + 1)
RULE(packed_max, *dim(c, ZOO_PACKED, 3) = *dim(c, ZOO_PACKED, 4) =
	*dim(c, ZOO_PACKED, 5) = UINT32_MAX)
RULE(first_later, entry(c, ZOO_SCALAR)->first_shard++)
RULE(first_before, entry(c, ZOO_SCALAR)->first_shard = 0)
RULE(dims_later, entry(c, ZOO_DEEP)->dims += 8)
RULE(dims_odd, entry(c, ZOO_DEEP)->dims += 1)

static const struct rule entry_rules[] = {
	{ "bad flags of an entry", flag }, { "bad flags", as_object },
	{ "bad flags", no_object }, { "bad flags", packed_object },
	{ "unknown type", dtype }, { "bad shape", axes },
	{ "bad shape", width }, { "bad shape", width_none },
	{ "number of holes", hole_hidden }, { "number of holes", hole_none },
	{ "number of holes", hole_many }, { "not one item", object_axes },
	{ "not one item", object_type }, { "not one item", object_none },
	{ "too long", name_long }, { "too long", name_deep },
	{ "name beyond", name_first }, { "name beyond", name_behind },
	{ "name beyond", name_far }, { "name beyond", name_ends },
	{ "name beyond", share_names },
	{ "bad path", path_letter }, { "bad path", path_beyond },
	{ "bad path", path_back }, { "bad path", path_same },
	{ "no type", type_of_none }, { "name of a type", type_far },
	{ "name of a type", type_long }, { "beyond the last", shards_many },
	{ "boxes beyond", boxes_far }, { "too large", large },
	{ "too large", large_empty }, { "too large", large_wraps },
	{ "not of the shape", larger },
	{ "not packed", packed_type }, { "not packed", packed_unknown },
	{ "not packed", packed_bytes }, { "not packed", packed_nothing },
	{ "not packed", packed_wraps }, { "not packed", packed_front },
	{ "not packed", packed_row },
	{ "not packed", packed_bits }, { "not packed", packed_axis },
	{ "not packed", packed_max },
	{ "not behind", first_later }, { "not behind", first_before },
	{ "not behind", dims_later }, { "not behind", dims_odd },
	{ "of no entry", lose_shard },
};

RULE(outside, *dim(c, ZOO_PLAIN, 6) = 5)
RULE(too_wide, *dim(c, ZOO_PLAIN, 5) = 7)
RULE(wrapped, *dim(c, ZOO_DEEP, 4) = UINT32_MAX)
RULE(hole_outside, *dim(c, ZOO_HOLE, 4) = 3)
RULE(reach_more, shard(c, ZOO_PLAIN, 0)->reach++)
RULE(reach_less, shard(c, ZOO_PLAIN, 1)->reach--)
RULE(reach_scalar, shard(c, ZOO_SCALAR, 0)->reach = 0)
RULE(reach_overlap, shard(c, ZOO_OVERLAP, 1)->reach = 3)
RULE(reach_hole, shard(c, ZOO_HOLE, 1)->reach = 2)
RULE(no_file, shard(c, ZOO_PLAIN, 0)->file = CATALOG_NO_FILE)
RULE(file_behind, shard(c, ZOO_PLAIN, 0)->file = 3)
RULE(item_wraps, shard(c, ZOO_PLAIN, 0)->size = UINT64_MAX)
RULE(item_signed, shard(c, ZOO_PLAIN, 0)->size = INT64_MAX - 63)
RULE(item_flag, shard(c, ZOO_PLAIN, 0)->flags = 4)
RULE(item_both, shard(c, ZOO_CODED, 0)->flags |= CATALOG_RAW)
RULE(item_object, shard(c, ZOO_FIRST, 0)->flags = CATALOG_RAW)
RULE(chain_none, shard(c, ZOO_CODED, 0)->flags |=
	1 << CATALOG_TRANSFORM_SHIFT)
RULE(chain_plain, shard(c, ZOO_PLAIN, 0)->flags =
	1 << CATALOG_TRANSFORM_SHIFT)
RULE(raw_less, shard(c, ZOO_PACKED, 0)->size--)
RULE(raw_more, shard(c, ZOO_PACKED, 0)->size++)
RULE(object_less, shard(c, ZOO_SECOND, 0)->size--)
RULE(more, *dim(c, ZOO_PLAIN, 6) = 1; *dim(c, ZOO_PLAIN, 8) = 3)
RULE(hole_file, shard(c, ZOO_HOLE, 1)->file = 0)
RULE(hole_flags, shard(c, ZOO_HOLE, 1)->flags = CATALOG_RAW)
RULE(hole_offset, shard(c, ZOO_HOLE, 1)->offset = 1)
RULE(hole_size, shard(c, ZOO_HOLE, 1)->size = 1)

static const struct rule shard_rules[] = {
	{ "out of the bounds", outside }, { "out of the bounds", too_wide },
	{ "out of the bounds", wrapped }, { "out of the bounds", hole_outside },
	{ "bad reach", reach_more }, { "bad reach", reach_less },
	{ "bad reach", reach_scalar }, { "bad reach", reach_overlap },
	{ "bad reach", reach_hole }, { "of no file", no_file },
	{ "of no file", file_behind }, { "bad offset", item_wraps },
	{ "bad offset", item_signed }, { "flags of a shard", item_flag },
	{ "flags of a shard", item_both }, { "flags of a shard", item_object },
	{ "unknown stream", chain_none }, { "unknown stream", chain_plain },
	{ "another size", raw_less }, { "another size", raw_more },
	{ "another size", object_less }, { "not sorted", unsort },
	{ "more than their tensor", more }, { "do not add up", no_hole },
	{ "do not add up", full_hole }, { "is stored", hole_file },
	{ "is stored", hole_flags }, { "is stored", hole_offset },
	{ "is stored", hole_size },
};

RULE(slot_behind, *slot_in_use(c) = ZOO_TENSORS + 1)
RULE(slot_max, *slot_in_use(c) = UINT32_MAX)

static const struct rule slot_rules[] = {
	{ "no slot is free", fill_slots }, { "not there", slot_behind },
	{ "not there", slot_max }, { "does not belong", move_slot },
	{ "without a slot", clear_slot },
};

/* ---- tests --------------------------------------------------------------- */

static void check_rules(const struct rule *rules, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		struct catalog *catalog = catalog_zoo();
		struct catalog good = *catalog;

		rules[i].apply(catalog);
		if (catalog->entries == good.entries &&
		    catalog->tensor_slots == good.tensor_slots)
			catalog_hash(catalog, catalog->hash);
		refusal_catalog(catalog, good.size, rules[i].reason);
		catalog_put(catalog);
	}
}

static void header(void **state)
{
	(void)state;
	check_rules(header_rules, COUNT_OF(header_rules));
}

static void hash(void **state)
{
	struct catalog *catalog = catalog_zoo();

	(void)state;
	catalog->hash[0]++;
	refusal_catalog(catalog, catalog->size, "hash of other content");
	catalog->hash[0]--;
	catalog->hash[1]++;
	refusal_catalog(catalog, catalog->size, "hash of other content");
	catalog_put(catalog);
}

static void texts(void **state)
{
	(void)state;
	check_rules(text_rules, COUNT_OF(text_rules));
}

static void entries(void **state)
{
	(void)state;
	check_rules(entry_rules, COUNT_OF(entry_rules));
}

static void shards_of_entries(void **state)
{
	(void)state;
	check_rules(shard_rules, COUNT_OF(shard_rules));
}

static void tables(void **state)
{
	(void)state;
	check_rules(slot_rules, COUNT_OF(slot_rules));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(header),
		cmocka_unit_test(hash),
		cmocka_unit_test(texts),
		cmocka_unit_test(entries),
		cmocka_unit_test(shards_of_entries),
		cmocka_unit_test(tables),
	};

	return cmocka_run_group_tests_name("catalog_refusal", tests, NULL,
					   NULL);
}
