/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first pass over the pickles, which collects, with a hash table each,
 *
 *	items: (name, offsets) -> where the stored item is   [storage_data]
 *	names: name -> its metadata in each file    [state_dict_metadata]
 */
#include "shard/dcp/dcp_index.h"

#include "shard/base/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int dcp_index_bad(struct dcp_index *index, unsigned file,
		  struct pickle_value where, const char *reason,
		  const struct dcp_text *name)
{
	static const struct dcp_text nothing = { "", 0 };

	if (!name)
		name = &nothing;
	index->bad = file;
	return fault_set_detail(index->fault, -EBADMSG,
				pickle_offset(&index->pickles[file], where),
				reason, name->data, name->size);
}

static int no_memory(struct dcp_index *index)
{
	return fault_set(index->fault, -ENOMEM, 0, "out of memory");
}

/* ---- hash tables --------------------------------------------------------- */

static uint64_t hash_item(const struct dcp_index *index, unsigned file,
			  const struct dcp_text *name,
			  struct pickle_value offsets)
{
	uint64_t hash = hash_64(name->data, name->size, index->seed);
	const struct pickle_value *items;
	int64_t numbers[LIMIT_NDIM];
	uint64_t count, i;

	if (!pickle_tuple(&index->pickles[file], offsets, &items, &count))
		return hash;
	for (i = 0; i < count && i < LIMIT_NDIM; i++)
		if (!pickle_int(&index->pickles[file], items[i], &numbers[i]))
			numbers[i] = -1;
	return hash_64(numbers, i * sizeof(*numbers), hash);
}

static bool same_text(const struct dcp_text *a, const struct dcp_text *b)
{
	return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

static bool same_offsets(const struct pickle *p, struct pickle_value a,
			 const struct pickle *q, struct pickle_value b)
{
	const struct pickle_value *x, *y;
	uint64_t x_count, y_count, i;
	int64_t m, n;

	if (!pickle_tuple(p, a, &x, &x_count))
		return pickle_kind(q, b) == PICKLE_NONE;
	if (!pickle_tuple(q, b, &y, &y_count) || x_count != y_count)
		return false;
	for (i = 0; i < x_count; i++)
		if (!pickle_int(p, x[i], &m) || !pickle_int(q, y[i], &n) ||
		    m != n)
			return false;
	return true;
}

static int make_slots(struct dcp_index *index, struct array *slots,
		      uint64_t count)
{
	uint64_t slot_count = 2;

	while (slot_count < 2 * count)
		slot_count *= 2;
	if (!array_add(slots, slot_count * sizeof(uint32_t)))
		return no_memory(index);
	memset(slots->data, 0, slots->size);
	return 0;
}

/* The slot of (@name, @offsets), where the latter are of pickle @file. */
static uint32_t *item_slot(const struct dcp_index *index,
			   const struct dcp_text *name, unsigned file,
			   struct pickle_value offsets)
{
	uint32_t *slots = (void *)index->item_slots.data;
	const struct dcp_item *items = (const void *)index->items.data;
	uint64_t mask = index->item_slots.size / sizeof(*slots) - 1;
	uint64_t i = hash_item(index, file, name, offsets) & mask;

	for (; slots[i]; i = (i + 1) & mask) {
		const struct dcp_item *item = &items[slots[i] - 1];

		if (same_text(&item->name, name) &&
		    same_offsets(&index->pickles[file], offsets,
				 &index->pickles[item->file], item->offsets))
			break;
	}
	return &slots[i];
}

static uint32_t *name_slot(const struct dcp_index *index,
			   const struct dcp_text *name)
{
	uint32_t *slots = (void *)index->name_slots.data;
	const struct dcp_name *names = (const void *)index->names.data;
	uint64_t mask = index->name_slots.size / sizeof(*slots) - 1;
	uint64_t i = hash_64(name->data, name->size, index->seed) & mask;

	while (slots[i] && !same_text(&names[slots[i] - 1].name, name))
		i = (i + 1) & mask;
	return &slots[i];
}

const struct dcp_item *dcp_index_item(const struct dcp_index *index,
				      const struct dcp_text *name,
				      unsigned file,
				      struct pickle_value offsets)
{
	const struct dcp_item *items = (const void *)index->items.data;
	uint32_t slot = *item_slot(index, name, file, offsets);

	return slot ? &items[slot - 1] : NULL;
}

struct dcp_name *dcp_index_name(const struct dcp_index *index,
				const struct dcp_text *name,
				const struct dcp_name *last)
{
	struct dcp_name *names = (void *)index->names.data;
	uint64_t count = index->names.size / sizeof(*names);
	uint64_t next = last ? (uint64_t)(last - names) + 1 : 0;
	uint32_t slot;

	if (next < count && names[next].last &&
	    same_text(&names[next].name, name))
		return &names[next];
	slot = *name_slot(index, name);
	return slot ? &names[slot - 1] : NULL;
}

/* ---- collecting ---------------------------------------------------------- */

static int collect_item(struct dcp_index *index, unsigned file,
			struct pickle_value key, struct pickle_value info)
{
	const struct pickle *p = &index->pickles[file];
	struct dcp_item item = { .info = info, .file = file };
	struct pickle_value value;
	uint64_t dims[LIMIT_NDIM];
	unsigned ndim;

	if (!dcp_attribute(p, key, "fqn", &value) ||
	    !dcp_text(p, value, &item.name))
		return dcp_index_bad(index, file, key,
				     "storage index without a name", NULL);
	if (!dcp_attribute(p, key, "offset", &item.offsets) ||
	    pickle_kind(p, item.offsets) == PICKLE_NONE)
		item.offsets = pickle_none();
	else if (dcp_dims(p, item.offsets, dims, &ndim) ||
		 !dcp_tuple(p, item.offsets, &item.offsets))
		return dcp_index_bad(index, file, key,
				     "bad offsets of a stored item",
				     &item.name);
	if (array_append(&index->items, &item, sizeof(item)))
		return no_memory(index);
	return 0;
}

static int collect_name(struct dcp_index *index, unsigned file,
			struct pickle_value key, struct pickle_value value)
{
	struct dcp_name named = { .value = value, .file = file };

	if (!dcp_text(&index->pickles[file], key, &named.name))
		return dcp_index_bad(index, file, key,
				     "name that is not a string", NULL);
	if (named.name.size > LIMIT_NAME_SIZE)
		return dcp_index_bad(index, file, key,
				     "name longer than 64 KiB", &named.name);
	if (array_append(&index->names, &named, sizeof(named)))
		return no_memory(index);
	return 0;
}

static int collect(struct dcp_index *index, unsigned file)
{
	const struct pickle *p = &index->pickles[file];
	struct pickle_value tensors, storage, key, value;
	struct pickle_items items;
	int error = 0;

	if (!dcp_attribute(p, p->root, "state_dict_metadata", &tensors) ||
	    pickle_kind(p, tensors) != PICKLE_DICT)
		return dcp_index_bad(index, file, p->root,
			"no state_dict_metadata: not the metadata of a distributed checkpoint",
			NULL);
	if (!dcp_attribute(p, p->root, "storage_data", &storage) ||
	    pickle_kind(p, storage) != PICKLE_DICT)
		return dcp_index_bad(index, file, p->root,
			"no storage_data: not the metadata of a distributed checkpoint",
			NULL);
	items = pickle_items(p, tensors);
	while (!error && pickle_items_next(&items, &key, &value))
		error = collect_name(index, file, key, value);
	items = pickle_items(p, storage);
	while (!error && pickle_items_next(&items, &key, &value))
		error = collect_item(index, file, key, value);
	return error;
}

/* A later pair of one dict replaces the earlier, as in Python; a lower rank
 * goes before a higher. */
static int fill_items(struct dcp_index *index)
{
	const struct dcp_item *items = (const void *)index->items.data;
	uint64_t count = index->items.size / sizeof(*items), i;
	int error = make_slots(index, &index->item_slots, count);

	for (i = 0; i < count && !error; i++) {
		uint32_t *slot = item_slot(index, &items[i].name,
					   items[i].file, items[i].offsets);

		if (!*slot || items[*slot - 1].file == items[i].file)
			*slot = (uint32_t)(i + 1);
	}
	return error;
}

static int fill_names(struct dcp_index *index)
{
	struct dcp_name *names = (void *)index->names.data;
	uint64_t count = index->names.size / sizeof(*names), i;
	int error = make_slots(index, &index->name_slots, count);

	for (i = 0; i < count && !error; i++) {
		uint32_t *slot = name_slot(index, &names[i].name);
		struct dcp_name *first, *last;

		if (!*slot) {
			*slot = names[i].last = (uint32_t)(i + 1);
			continue;
		}
		first = &names[*slot - 1];
		last = &names[first->last - 1];
		if (last->file == names[i].file)
			last->value = names[i].value;
		else
			last->next = first->last = (uint32_t)(i + 1);
	}
	return error;
}

/* ---- life ---------------------------------------------------------------- */

int dcp_index_init(struct dcp_index *index, const struct dcp_file *files,
		   unsigned count, struct fault *fault)
{
	unsigned i;
	int error = 0;

	*index = (struct dcp_index){ .fault = fault, .seed = hash_seed() };
	index->pickles = calloc(count, sizeof(*index->pickles));
	if (!index->pickles)
		return no_memory(index);
	for (i = 0; i < count && !error; i++) {
		index->bad = i;
		error = pickle_init(&index->pickles[i], files[i].data,
				    files[i].size, fault);
		index->file_count += !error;
		if (!error)
			error = collect(index, i);
	}
	if (!error)
		error = fill_items(index);
	return error ? error : fill_names(index);
}

void dcp_index_finish(struct dcp_index *index)
{
	while (index->file_count > 0)
		pickle_finish(&index->pickles[--index->file_count]);
	free(index->pickles);
	array_finish(&index->items);
	array_finish(&index->names);
	array_finish(&index->item_slots);
	array_finish(&index->name_slots);
}
