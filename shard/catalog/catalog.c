/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/catalog/catalog.h"

#include "shard/base/bytes.h"
#include "shard/base/hash.h"
#include "shard/base/name.h"
#include "shard/base/reference.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* In front of a catalog, which is what is handed out. */
struct counted_catalog {
	_Atomic unsigned references;
	_Alignas(16) struct catalog catalog; /* as malloc aligns */
};

static struct counted_catalog *counted_of(struct catalog *catalog)
{
	return (struct counted_catalog *)(void *)
	       ((char *)catalog - offsetof(struct counted_catalog, catalog));
}

struct catalog *catalog_create(uint64_t size)
{
	const size_t front = offsetof(struct counted_catalog, catalog);
	struct counted_catalog *counted = NULL;

	if (size <= SIZE_MAX - front)
		counted = calloc(1, size + front);
	if (!counted)
		return NULL;
	counted->references = 1;
	return &counted->catalog;
}

struct catalog *catalog_get(struct catalog *catalog)
{
	atomic_fetch_add(&counted_of(catalog)->references, 1);
	return catalog;
}

void catalog_put(struct catalog *catalog)
{
	struct counted_catalog *counted;

	if (!catalog)
		return;
	counted = counted_of(catalog);
	if (reference_drop(&counted->references))
		free(counted);
}

static const void *at(const struct catalog *catalog, uint64_t offset)
{
	return (const char *)catalog + offset;
}

const struct catalog_entry *catalog_entry(const struct catalog *catalog,
					  uint64_t index)
{
	return (const struct catalog_entry *)at(catalog, catalog->entries) +
	       index;
}

const struct catalog_shard *catalog_shard_at(const struct catalog *catalog,
					     uint64_t index)
{
	return (const struct catalog_shard *)at(catalog, catalog->shards) +
	       index;
}

const struct catalog_shard *catalog_shard(const struct catalog *catalog,
					  const struct catalog_entry *entry,
					  uint64_t index)
{
	return catalog_shard_at(catalog, entry->first_shard + index);
}

const struct catalog_file *catalog_file(const struct catalog *catalog,
					uint64_t index)
{
	return (const struct catalog_file *)at(catalog, catalog->files) + index;
}

const char *catalog_transforms(const struct catalog *catalog,
			       const struct catalog_shard *shard,
			       size_t *ret_size)
{
	const struct catalog_transform *transforms =
		at(catalog, catalog->transforms);
	const struct catalog_transform *transform =
		&transforms[shard->flags >> CATALOG_TRANSFORM_SHIFT];

	*ret_size = transform->text_size;
	return catalog_text(catalog, transform->text);
}

const char *catalog_text(const struct catalog *catalog, uint64_t offset)
{
	return at(catalog, offset);
}

static void load(const struct catalog *catalog,
		 const struct catalog_entry *entry, uint64_t first,
		 uint64_t *numbers)
{
	unsigned i;

	if (entry->width == 4) {
		const uint32_t *dims = at(catalog, entry->dims);

		for (i = 0; i < entry->ndim; i++)
			numbers[i] = dims[first + i];
	} else {
		const uint64_t *dims = at(catalog, entry->dims);

		for (i = 0; i < entry->ndim; i++)
			numbers[i] = dims[first + i];
	}
}

void catalog_shape(const struct catalog *catalog,
		   const struct catalog_entry *entry, struct box *ret_box)
{
	unsigned i;

	ret_box->ndim = entry->ndim;
	for (i = 0; i < entry->ndim; i++)
		ret_box->offset[i] = 0;
	load(catalog, entry, 0, ret_box->size);
}

void catalog_written_shape(const struct catalog *catalog,
			   const struct catalog_entry *entry,
			   struct box *ret_box)
{
	catalog_shape(catalog, entry, ret_box);
	if (entry->flags & CATALOG_PACKED)
		load(catalog, entry, entry->ndim, ret_box->size);
}

bool catalog_select(const struct catalog *catalog,
		    const struct catalog_entry *entry,
		    const struct box *written, struct box *ret_box)
{
	unsigned bits = dtype_info(entry->dtype)->bits, axis = entry->ndim;
	struct box shape, whole;

	*ret_box = *written;
	if (!(entry->flags & CATALOG_PACKED) || axis == 0)
		return true;
	catalog_shape(catalog, entry, &shape);
	catalog_written_shape(catalog, entry, &whole);
	axis--;
	ret_box->offset[axis] = written->offset[axis] * bits / 8;
	ret_box->size[axis] = written->size[axis] * bits / 8;
	if (shape.size[axis] * 8 == whole.size[axis] * bits)
		return written->offset[axis] * bits % 8 == 0 &&
		       written->size[axis] * bits % 8 == 0;
	/* Several axes make up the row of bytes: all of them or nothing. */
	if (written->size[axis] != whole.size[axis])
		return false;
	ret_box->offset[axis] = 0;
	ret_box->size[axis] = shape.size[axis];
	while (axis-- > 0) {
		if (shape.size[axis] == whole.size[axis])
			continue;
		if (written->size[axis] != whole.size[axis])
			return false;
		ret_box->offset[axis] = 0;
		ret_box->size[axis] = 1;
	}
	return true;
}

void catalog_written(const struct catalog *catalog,
		     const struct catalog_entry *entry, const struct box *box,
		     struct box *ret_written)
{
	unsigned bits = dtype_info(entry->dtype)->bits, axis;
	unsigned last = entry->ndim - 1u;
	struct box shape, whole;

	*ret_written = *box;
	if (!(entry->flags & CATALOG_PACKED) || entry->ndim == 0)
		return;
	catalog_shape(catalog, entry, &shape);
	catalog_written_shape(catalog, entry, &whole);
	if (shape.size[last] * 8 == whole.size[last] * bits) {
		ret_written->offset[last] = box->offset[last] * 8 / bits;
		ret_written->size[last] = box->size[last] * 8 / bits;
		return;
	}
	for (axis = 0; axis < entry->ndim; axis++)
		if (shape.size[axis] != whole.size[axis])
			ret_written->size[axis] = whole.size[axis];
}

size_t catalog_path_size(const struct catalog *catalog,
			 const struct catalog_entry *entry, unsigned parts)
{
	const unsigned char *ends =
		at(catalog, entry->name + entry->name_size);

	return bytes_u32le(ends + 4 * (parts - 1));
}

bool catalog_is_below(const struct catalog *catalog,
		      const struct catalog_entry *entry, const char *key,
		      size_t key_size)
{
	unsigned low = 1, high = entry->depth;

	if (entry->name_size <= key_size ||
	    memcmp(catalog_text(catalog, entry->name), key, key_size) != 0)
		return false;
	/* Parts end in ascending order. */
	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		size_t size = catalog_path_size(catalog, entry, middle);

		if (size == key_size)
			return true;
		if (size < key_size)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

void catalog_box(const struct catalog *catalog,
		 const struct catalog_entry *entry, uint64_t index,
		 struct box *ret_box)
{
	uint64_t shapes = entry->flags & CATALOG_PACKED ? 2 : 1;
	uint64_t first = (shapes + 2 * index) * entry->ndim;

	ret_box->ndim = entry->ndim;
	load(catalog, entry, first, ret_box->offset);
	load(catalog, entry, first + entry->ndim, ret_box->size);
}

/* ---- tables of names ----------------------------------------------------- */

static size_t encode(const struct catalog *catalog, uint32_t index,
		     char ret_name[NAME_ENCODED_MAX])
{
	const struct catalog_entry *entry = catalog_entry(catalog, index);

	return name_encode(catalog_text(catalog, entry->name),
			   entry->name_size, ret_name);
}

static uint64_t hash(const void *owner, uint32_t index)
{
	const struct catalog *catalog = owner;
	char name[NAME_ENCODED_MAX];
	size_t size = encode(catalog, index, name);

	return hash_64(name, size, catalog->seed);
}

static bool equal(const void *owner, uint32_t index, const void *key)
{
	const struct hash_table_text *wanted = key;
	char name[NAME_ENCODED_MAX];

	return encode(owner, index, name) == wanted->size &&
	       memcmp(name, wanted->data, wanted->size) == 0;
}

static struct hash_table table_at(const struct catalog *catalog,
				  uint64_t slots, uint64_t slot_count)
{
	static const struct hash_table_keys keys = { hash, equal };

	return (struct hash_table){
		.keys = &keys,
		.slots = (void *)catalog_text(catalog, slots),
		.slot_count = slot_count,
		.seed = catalog->seed,
	};
}

struct hash_table catalog_tensor_table(const struct catalog *catalog)
{
	return table_at(catalog, catalog->tensor_slots,
			catalog->tensor_slot_count);
}

struct hash_table catalog_object_table(const struct catalog *catalog)
{
	return table_at(catalog, catalog->object_slots,
			catalog->object_slot_count);
}

static int64_t find(const struct catalog *catalog, struct hash_table table,
		    const char *name, size_t size)
{
	const struct hash_table_text key = { name, size };

	return hash_table_find(&table, catalog,
			       hash_64(name, size, catalog->seed), &key);
}

int64_t catalog_find_tensor(const struct catalog *catalog, const char *name,
			    size_t size)
{
	return find(catalog, catalog_tensor_table(catalog), name, size);
}

int64_t catalog_find_object(const struct catalog *catalog, const char *name,
			    size_t size)
{
	return find(catalog, catalog_object_table(catalog), name, size);
}
