/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list of stored files as another rank might send it, merged with one of
 * this rank's own: no name leads out of its folder, everything lies inside of
 * the list, and the union is sorted and has each name once.
 */
#include "tests/fuzz/fuzz.h"

#include "shard/store/union_folders.h"

#include <errno.h>
#include <string.h>

/* What rank 1 sends. */
struct sent {
	struct peers peers;
	const uint8_t *data;
	size_t size;
};

static int wait_ready(struct peers *peers)
{
	(void)peers;
	return 0;
}

static void list(struct peers *peers, uint32_t of, const char *path,
		 struct peer_list *lists, unsigned count)
{
	const struct sent *sent = (const struct sent *)peers;
	const struct stat status = { .st_mode = S_IFREG | 0644,
				     .st_size = 10 };
	unsigned i;

	(void)path;
	for (i = 0; i < count; i++)
		lists[i].error = of != PEERS_OWN ? -ENODATA :
			lists[i].rank == 0 ?
			stored_entry_append(lists[i].out, ".metadata",
					    &status, NULL, 0) :
			array_append(lists[i].out, sent->data, sent->size);
}

static int digest(struct peers *peers, unsigned rank,
		  const struct file_range *range, uint64_t ret_hash[2])
{
	(void)peers;
	(void)rank;
	ret_hash[0] = ret_hash[1] = range->pin.mtime & 1;
	return range->pin.ctime & 1 ? -EIO : 0;
}

static void check_entry(const struct stored *stored, const uint8_t *data,
			size_t position)
{
	const uint8_t *name = (const uint8_t *)stored->name;
	size_t size = stored->entry.name_size;
	struct stat status;

	CHECK(name >= data && (const uint8_t *)stored->target +
	      stored->entry.target_size == data + position);
	CHECK(size > 0 && size <= 255 && !memchr(name, '/', size) &&
	      !memchr(name, '\0', size));
	CHECK(!(size == 1 && name[0] == '.') &&
	      !(size == 2 && name[0] == '.' && name[1] == '.'));
	CHECK(!memchr(stored->target, '\0', stored->entry.target_size));
	pin_status(&stored->entry.pin, &status);
	CHECK(status.st_mtim.tv_nsec >= 0 &&
	      status.st_mtim.tv_nsec < 1000000000);
}

static void walk(const uint8_t *data, size_t size)
{
	size_t position = 0, before;
	struct stored stored;

	for (;;) {
		before = position;
		if (!stored_entry_next(data, size, &position, &stored))
			break;
		CHECK(position > before && position <= size);
		check_entry(&stored, data, position);
	}
	CHECK(position == before);
}

static void check_union(const struct union_folder *folder)
{
	const struct store_list *list = &folder->list;
	const struct store_entry *entry;
	size_t i;

	CHECK(list->count >= 1);
	for (i = 0; i < list->count; i++) {
		entry = &list->entries[i];
		CHECK(i == 0 || strcmp(entry[-1].name, entry->name) < 0);
		CHECK(store_list_find(list, entry->name) == entry);
		CHECK(entry->known && strlen(entry->name) > 0 &&
		      strlen(entry->name) <= 255);
		CHECK(entry->owner < 2 && entry->replica_count <= 2);
		CHECK(S_ISLNK(entry->pin.mode) || !*entry->target);
		CHECK(!S_ISREG(entry->pin.mode) || entry->replica_count > 0);
	}
	entry = store_list_find(list, ".metadata");
	CHECK(entry && entry->owner == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int stores[2] = { -1, -1 };
	struct sent sent = {
		.peers = {
			.rank = 1, .count = 2, .stores = stores,
			.wait_ready = wait_ready, .list = list,
			.digest = digest,
		},
		.data = data, .size = size,
	};
	struct union_folders *folders =
		union_folders_create(&sent.peers, NULL, NULL);
	struct union_folder *folder;

	CHECK(folders);
	walk(data, size);
	CHECK(union_folders_get(folders, "folder", false, &folder) == 0);
	check_union(folder);
	store_list_put(&folder->list);
	union_folders_destroy(folders);
	return 0;
}
