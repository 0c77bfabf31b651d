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
				reason, (struct fault_detail){ name->data,
							       name->size });
}

static int no_memory(struct dcp_index *index)
{
	return fault_set(index->fault, -ENOMEM, 0, "out of memory");
}

/* ---- hash tables --------------------------------------------------------- */

static const struct dcp_item *item_at(const struct dcp_index *index,
				      uint64_t i)
{
	return (const struct dcp_item *)(const void *)index->items.data + i;
}

static struct dcp_name *name_at(const struct dcp_index *index, uint64_t i)
{
	return (struct dcp_name *)(void *)index->names.data + i;
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

/* An item's key is its name, file and offsets: all but its info. */
static uint64_t hash_item(const struct dcp_index *index,
			  const struct dcp_item *key)
{
	const struct pickle *p = &index->pickles[key->file];
	uint64_t hash = hash_64(key->name.data, key->name.size,
				index->item_table.seed);
	const struct pickle_value *offsets;
	int64_t numbers[LIMIT_NDIM];
	uint64_t count, i;

	if (!pickle_tuple(p, key->offsets, &offsets, &count))
		return hash;
	for (i = 0; i < count && i < LIMIT_NDIM; i++)
		if (!pickle_int(p, offsets[i], &numbers[i]))
			numbers[i] = -1;
	return hash_64(numbers, i * sizeof(*numbers), hash);
}

static uint64_t hash_item_at(const void *index, uint32_t i)
{
	return hash_item(index, item_at(index, i));
}

static bool equal_item(const void *owner, uint32_t i, const void *key)
{
	const struct dcp_index *index = owner;
	const struct dcp_item *item = item_at(index, i), *wanted = key;

	return same_text(&item->name, &wanted->name) &&
	       same_offsets(&index->pickles[wanted->file], wanted->offsets,
			    &index->pickles[item->file], item->offsets);
}

static uint64_t hash_name(const struct dcp_index *index,
			  const struct dcp_text *name)
{
	return hash_64(name->data, name->size, index->name_table.seed);
}

static uint64_t hash_name_at(const void *index, uint32_t i)
{
	return hash_name(index, &name_at(index, i)->name);
}

static bool equal_name(const void *index, uint32_t i, const void *key)
{
	return same_text(&name_at(index, i)->name, key);
}

static int64_t find_item(const struct dcp_index *index,
			 const struct dcp_item *key)
{
	return hash_table_find(&index->item_table, index,
			       hash_item(index, key), key);
}

static int64_t find_name(const struct dcp_index *index,
			 const struct dcp_text *name)
{
	return hash_table_find(&index->name_table, index,
			       hash_name(index, name), name);
}

static void init_tables(struct dcp_index *index)
{
	static const struct hash_table_keys items = {
		hash_item_at, equal_item,
	};
	static const struct hash_table_keys names = {
		hash_name_at, equal_name,
	};

	hash_table_init(&index->item_table, &items);
	hash_table_init(&index->name_table, &names);
}

const struct dcp_item *dcp_index_item(const struct dcp_index *index,
				      const struct dcp_text *name,
				      unsigned file,
				      struct pickle_value offsets)
{
	const struct dcp_item key = {
		.name = *name, .offsets = offsets, .file = file,
	};
	int64_t found = find_item(index, &key);

	return found >= 0 ? item_at(index, (uint64_t)found) : NULL;
}

struct dcp_name *dcp_index_name(const struct dcp_index *index,
				const struct dcp_text *name,
				const struct dcp_name *last)
{
	uint64_t count = index->names.size / sizeof(*last);
	uint64_t next = last ? (uint64_t)(last - name_at(index, 0)) + 1 : 0;
	int64_t found;

	if (next < count && name_at(index, next)->last &&
	    same_text(&name_at(index, next)->name, name))
		return name_at(index, next);
	found = find_name(index, name);
	return found >= 0 ? name_at(index, (uint64_t)found) : NULL;
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
	struct dcp_item *items = (void *)index->items.data;
	uint64_t count = index->items.size / sizeof(*items), i;
	int error = hash_table_reserve(&index->item_table, index, count);

	for (i = 0; i < count && !error; i++) {
		int64_t found = find_item(index, &items[i]);

		if (found < 0)
			error = hash_table_insert(&index->item_table, index,
						  (uint32_t)i);
		else if (items[found].file == items[i].file)
			items[found] = items[i];
	}
	return error ? no_memory(index) : 0;
}

static int fill_names(struct dcp_index *index)
{
	struct dcp_name *names = (void *)index->names.data;
	uint64_t count = index->names.size / sizeof(*names), i;
	int error = hash_table_reserve(&index->name_table, index, count);

	for (i = 0; i < count && !error; i++) {
		int64_t found = find_name(index, &names[i].name);
		struct dcp_name *first, *last;

		if (found < 0) {
			names[i].last = (uint32_t)(i + 1);
			error = hash_table_insert(&index->name_table, index,
						  (uint32_t)i);
			continue;
		}
		first = &names[found];
		last = &names[first->last - 1];
		if (last->file == names[i].file)
			last->value = names[i].value;
		else
			last->next = first->last = (uint32_t)(i + 1);
	}
	return error ? no_memory(index) : 0;
}

/* ---- life ---------------------------------------------------------------- */

int dcp_index_init(struct dcp_index *index, const struct dcp_file *files,
		   unsigned count, struct fault *fault)
{
	unsigned i;
	int error = 0;

	*index = (struct dcp_index){ .fault = fault };
	init_tables(index);
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
	hash_table_finish(&index->item_table);
	hash_table_finish(&index->name_table);
}
