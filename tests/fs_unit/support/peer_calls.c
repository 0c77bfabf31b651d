/* SPDX-License-Identifier: Apache-2.0 */
#include "support/peer_calls.h"

#include "support/test.h"
#include "support/mounts.h"

#include "shard/catalog/catalog.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *join_names(const struct array *list)
{
	char *names = malloc(list->size + 1), *end = names;
	struct stored stored;
	size_t position = 0;

	assert_non_null(names);
	/* An entry is longer than its name and a line end. */
	while (stored_entry_next(list->data, list->size, &position, &stored)) {
		memcpy(end, stored.name, stored.entry.name_size);
		end += stored.entry.name_size;
		*end++ = '\n';
	}
	*end = '\0';
	assert_int_equal(position, list->size);
	return names;
}

int peer_calls_list(unsigned asker, unsigned asked, uint32_t of,
		    const char *path, char **ret_names)
{
	struct peers *peers = mounts_peers(asker);
	struct array out = { .data = NULL };
	struct peer_list list = { .rank = asked, .out = &out };

	peers->list(peers, of, path, &list, 1);
	if (!list.error)
		*ret_names = join_names(&out);
	array_finish(&out);
	return list.error;
}

int peer_calls_status(unsigned asker, unsigned asked, const char *path,
		      struct stat *ret_status, char ret_name[256],
		      char ret_target[4096])
{
	struct peers *peers = mounts_peers(asker);
	struct array out = { .data = NULL };
	struct stored stored;
	size_t position = 0;
	int error = peers->status(peers, asked, path, &out);

	if (!error) {
		assert_true(stored_entry_next(out.data, out.size, &position,
					      &stored));
		assert_int_equal(position, out.size);
		pin_status(&stored.entry.pin, ret_status);
		snprintf(ret_name, 256, "%.*s", (int)stored.entry.name_size,
			 stored.name);
		snprintf(ret_target, 4096, "%.*s",
			 (int)stored.entry.target_size, stored.target);
	}
	array_finish(&out);
	return error;
}

struct pin peer_calls_pin(unsigned rank, const char *path)
{
	struct stat status;

	assert_int_equal(fstatat(mounts_stores[rank].fd, path, &status, 0),
			 0);
	return pin_from_stat(&status);
}

int peer_calls_catalog(unsigned asker, const char *path, uint64_t signature,
		       bool kept, char ret_hash[33])
{
	const struct catalog_wanted wanted = { path, signature, kept };
	struct peers *peers = mounts_peers(asker);
	struct catalog *catalog;
	int error = peers->catalog(peers, &wanted, &catalog);

	if (error)
		return error;
	snprintf(ret_hash, 33, "%016" PRIx64 "%016" PRIx64, catalog->hash[1],
		 catalog->hash[0]);
	catalog_put(catalog);
	return 0;
}
