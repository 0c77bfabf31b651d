/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/catalog/catalog_layout.h"

#include "shard/base/hash.h"
#include "shard/base/name.h"

#include <stddef.h>
#include <string.h>

/* All of it travels between ranks, which are of one kind of processor, and
 * nothing of it is padding: that would be bytes of nobody in the hash. */
_Static_assert(sizeof(struct catalog_origin) == 16 &&
	       sizeof(struct catalog_entry) == 64 &&
	       sizeof(struct catalog_shard) == 32 &&
	       sizeof(struct catalog_transform) == 16 &&
	       sizeof(struct catalog_file) == 16 &&
	       sizeof(struct catalog) == 176, "a catalog travels");
_Static_assert(offsetof(struct catalog, hash) == 16 &&
	       offsetof(struct catalog, origin) == 40 &&
	       offsetof(struct catalog, entries) == 96 &&
	       offsetof(struct catalog, tensor_slots) == 144,
	       "a catalog travels");
_Static_assert(offsetof(struct catalog_entry, name_size) == 40 &&
	       offsetof(struct catalog_entry, dtype) == 56 &&
	       offsetof(struct catalog_entry, depth) == 60, "an entry travels");
/* Types, flags and indices fit into what holds them. */
_Static_assert(DTYPE_COUNT <= UINT8_MAX && LIMIT_NDIM <= UINT8_MAX &&
	       LIMIT_COUNT < CATALOG_NO_FILE &&
	       LIMIT_TRANSFORMS <= UINT32_MAX >> CATALOG_TRANSFORM_SHIFT,
	       "numbers of a catalog are narrow");

static const uint64_t magic = UINT64_C(0x31676c6b63747063);

static uint64_t place(uint64_t *end, uint64_t size)
{
	uint64_t start = *end;

	*end += (size + 7) & ~(uint64_t)7;
	return start;
}

void catalog_layout(struct catalog *catalog, uint64_t dims_size,
		    uint64_t names_size)
{
	uint64_t entry_count = catalog->tensor_count + catalog->object_count;
	uint64_t end = sizeof(*catalog);

	catalog->magic = magic;
	catalog->tensor_slot_count =
		hash_table_slot_count(catalog->tensor_count);
	catalog->object_slot_count =
		hash_table_slot_count(catalog->object_count);
	catalog->entries = place(&end, entry_count *
				 sizeof(struct catalog_entry));
	catalog->shards = place(&end, catalog->shard_count *
				sizeof(struct catalog_shard));
	catalog->files = place(&end, catalog->file_count *
			       sizeof(struct catalog_file));
	catalog->transforms = place(&end, catalog->transform_count *
				    sizeof(struct catalog_transform));
	catalog->dims = place(&end, dims_size);
	catalog->names = place(&end, names_size);
	catalog->tensor_slots = place(&end, catalog->tensor_slot_count *
				      sizeof(uint32_t));
	catalog->object_slots = place(&end, catalog->object_slot_count *
				      sizeof(uint32_t));
	catalog->size = end;
}

void catalog_hash(const struct catalog *catalog, uint64_t ret_hash[2])
{
	hash_128((const char *)catalog + catalog->entries,
		 catalog->tensor_slots - catalog->entries, ret_hash);
}
