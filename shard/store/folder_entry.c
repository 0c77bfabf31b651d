/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/folder_entry.h"

#include <errno.h>
#include <string.h>

int stored_entry_append(struct array *out, const char *name,
			const struct stat *status, const char *target,
			size_t target_size)
{
	struct stored_entry entry = {
		.pin = pin_from_stat(status),
		.name_size = (uint16_t)strlen(name),
		.target_size = (uint16_t)target_size,
	};
	char *room = array_add(out, sizeof(entry) + entry.name_size +
				    target_size);

	if (!room)
		return -ENOMEM;
	memcpy(room, &entry, sizeof(entry));
	memcpy(room + sizeof(entry), name, entry.name_size);
	if (target_size > 0)
		memcpy(room + sizeof(entry) + entry.name_size, target,
		       target_size);
	return 0;
}

/* One part of a path: what a store cannot have, no list may say. */
static bool is_name(const char *name, size_t size)
{
	return size > 0 && size <= 255 && !memchr(name, '/', size) &&
	       !memchr(name, '\0', size) &&
	       !(size == 1 && name[0] == '.') &&
	       !(size == 2 && name[0] == '.' && name[1] == '.');
}

bool stored_entry_next(const void *data, size_t size, size_t *position,
		       struct stored *ret_stored)
{
	size_t left = size - *position;
	struct stored stored;
	const char *at;

	/* An empty list may be no memory at all. */
	if (left < sizeof(stored.entry))
		return false;
	at = (const char *)data + *position;
	memcpy(&stored.entry, at, sizeof(stored.entry));
	left -= sizeof(stored.entry);
	stored.name = at + sizeof(stored.entry);
	stored.target = stored.name + stored.entry.name_size;
	if (stored.entry.name_size > left ||
	    stored.entry.target_size > left - stored.entry.name_size ||
	    stored.entry.target_size > 4095 ||
	    (stored.entry.target_size > 0 &&
	     !S_ISLNK(stored.entry.pin.mode)) ||
	    memchr(stored.target, '\0', stored.entry.target_size) ||
	    !is_name(stored.name, stored.entry.name_size))
		return false;
	*position += sizeof(stored.entry) + stored.entry.name_size +
		     stored.entry.target_size;
	*ret_stored = stored;
	return true;
}
