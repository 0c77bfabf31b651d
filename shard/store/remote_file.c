/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/remote_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct remote_file {
	struct stored_file base;	/* first: passed as this */
	struct peers *peers;		/* borrowed; const, as are all */
	struct pin pin;			/* of it there */
	char path[];
};

static int read_range(struct stored_file *stored, uint64_t offset, bool exact,
		      struct reply *reply)
{
	struct remote_file *remote = (struct remote_file *)stored;
	const struct file_range range = {
		.path = remote->path, .pin = remote->pin, .exact = exact,
		.offset = offset, .size = (uint32_t)reply->size,
	};
	size_t got;
	int error;

	reply->rank = (int)stored->rank;
	if (reply->nowait)
		return -EAGAIN;
	error = remote->peers->file(remote->peers, stored->rank, &range,
				    reply->data, &got);
	if (error)
		return error == -ESTALE || error == -ENOMEM ||
		       error == -ESHUTDOWN ? error : -EIO;
	reply->size = got;
	return 0;
}

int remote_file_status(struct peers *peers, unsigned rank, const char *path,
		       struct pin *ret_pin)
{
	struct array record = { .data = NULL };
	struct stored stored;
	size_t position = 0;
	int error = peers->status(peers, rank, path, &record);

	if (!error && !stored_entry_next(record.data, record.size, &position,
					 &stored))
		error = -EIO;
	if (!error)
		*ret_pin = stored.entry.pin;
	array_finish(&record);
	return error;
}

static int status_now(struct stored_file *stored, struct stat *ret_status)
{
	struct remote_file *remote = (struct remote_file *)stored;
	struct pin pin;
	int error = remote_file_status(remote->peers, stored->rank,
				       remote->path, &pin);

	if (!error)
		pin_status(&pin, ret_status);
	return error;
}

static void close_file(struct stored_file *stored)
{
	free(stored);
}

int remote_file_create(struct peers *peers, unsigned rank, const char *path,
		       const struct pin *pin, struct stored_file **ret_file)
{
	size_t size = strlen(path) + 1;
	struct remote_file *remote = malloc(sizeof(*remote) + size);

	if (!remote)
		return -ENOMEM;
	*remote = (struct remote_file){
		.base = { .pin = *pin, .rank = rank, .read = read_range,
			  .status = status_now, .close = close_file },
		.peers = peers, .pin = *pin,
	};
	memcpy(remote->path, path, size);
	*ret_file = &remote->base;
	return 0;
}
