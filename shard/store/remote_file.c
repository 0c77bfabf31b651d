/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/remote_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct remote_file {
	struct stored_file base;	/* first: passed as this */
	struct peers *peers;		/* borrowed; const, as are all */
	uint64_t hold;			/* of peers->hold_file; 0: it is had by
					 * its path, as long as that is its */
	char path[];
};

static int read_range(struct stored_file *stored, uint64_t offset, bool exact,
		      struct reply *reply)
{
	struct remote_file *remote = (struct remote_file *)stored;
	const struct file_range range = {
		.hold = remote->hold, .path = remote->path,
		.pin = stored->pin, .exact = exact, .offset = offset,
		.size = (uint32_t)reply->size,
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

static int status_now(struct stored_file *stored, bool exact,
		      struct stat *ret_status)
{
	struct remote_file *remote = (struct remote_file *)stored;
	struct peers *peers = remote->peers;
	struct pin pin;
	int error = remote->hold ?
		    peers->held_status(peers, stored->rank, remote->hold,
				       &pin) :
		    remote_file_status(peers, stored->rank, remote->path, &pin);

	if (!error && !(exact ? pin_same_bytes(&stored->pin, &pin) :
				pin_same_file(&stored->pin, &pin)))
		error = -ESTALE;
	if (!error)
		pin_status(&pin, ret_status);
	return error;
}

static void close_file(struct stored_file *stored)
{
	struct remote_file *remote = (struct remote_file *)stored;

	if (remote->hold)
		remote->peers->release(remote->peers, stored->rank,
				       remote->hold);
	free(remote);
}

/* Have it kept; what a rank cannot keep, it still has. */
static int hold(struct peers *peers, unsigned rank, const char *path,
		struct pin *pin, uint64_t *ret_hold)
{
	int error = peers->hold_file(peers, rank, path, pin, ret_hold);

	if (error != -EMFILE && error != -ENFILE)
		return error;
	*ret_hold = 0;
	error = pin->inode ? 0 : remote_file_status(peers, rank, path, pin);
	return !error && !S_ISREG(pin->mode) ? -EINVAL : error;
}

int remote_file_open(struct peers *peers, unsigned rank, const char *path,
		     const struct pin *pin, struct stored_file **ret_file)
{
	size_t size = strlen(path) + 1;
	struct remote_file *remote = malloc(sizeof(*remote) + size);
	int error;

	if (!remote)
		return -ENOMEM;
	*remote = (struct remote_file){
		.base = { .rank = rank, .read = read_range,
			  .status = status_now, .close = close_file },
		.peers = peers,
	};
	if (pin)
		remote->base.pin = *pin;
	memcpy(remote->path, path, size);
	error = hold(peers, rank, path, &remote->base.pin, &remote->hold);
	if (error) {
		free(remote);
		return error;
	}
	*ret_file = &remote->base;
	return 0;
}
