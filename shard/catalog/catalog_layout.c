/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/catalog/catalog_layout.h"

#include "shard/base/hash.h"

static const uint64_t magic = UINT64_C(0x31676c6b63747063);

/* At least half of the slots are free. */
static uint64_t slot_count_for(uint64_t count)
{
	uint64_t slots = 2;

	while (slots < 2 * count)
		slots *= 2;
	return slots;
}

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
	catalog->tensor_slot_count = slot_count_for(catalog->tensor_count);
	catalog->object_slot_count = slot_count_for(catalog->object_count);
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
