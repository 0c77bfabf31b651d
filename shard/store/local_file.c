/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/local_file.h"

#include "shard/base/same_bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct local_file {
	struct stored_file base;	/* first: passed as this */
	struct io_file file;		/* its fd is owned; const */
	struct same_bytes bytes;		/* of this copy */
	pthread_mutex_t lock;		/* of that */
	int folder;			/* borrowed; const */
	char path[];			/* const */
};

static int check(struct local_file *local)
{
	const struct same_bytes_name name = { local->folder, local->path };

	return same_bytes_check(&local->bytes, &local->lock, local->file.fd,
				&name);
}

static int read_at(struct stored_file *stored, uint64_t offset, bool exact,
		   struct reply *reply)
{
	struct local_file *local = (struct local_file *)stored;
	struct io_file file = local->file;
	uint64_t done;
	int error;

	file.nowait = reply->nowait;
	error = io_read_up_to(&file, reply->data, reply->size, offset, &done);
	if (error)
		return error;
	reply->size = done;
	return exact ? check(local) : 0;
}

static int status_now(struct stored_file *stored, bool exact,
		      struct stat *ret_status)
{
	struct local_file *local = (struct local_file *)stored;
	int error = exact ? check(local) : 0;

	if (!error && fstat(local->file.fd, ret_status) < 0)
		error = -errno;
	return error;
}

static void close_file(struct stored_file *stored)
{
	struct local_file *local = (struct local_file *)stored;

	close(local->file.fd);
	pthread_mutex_destroy(&local->lock);
	free(local);
}

int local_file_create(const struct local_opened *opened,
		      struct stored_file **ret_file)
{
	size_t size = strlen(opened->path) + 1;
	struct local_file *local = calloc(1, sizeof(*local) + size);

	if (!local) {
		close(opened->fd);
		return -ENOMEM;
	}
	local->bytes.pin = pin_from_stat(&opened->status);
	local->base = (struct stored_file){
		.pin = local->bytes.pin, .rank = opened->rank,
		.read = read_at, .status = status_now, .close = close_file,
	};
	local->file = (struct io_file){
		.fd = opened->fd, .in_memory = io_is_in_memory(opened->fd),
	};
	pthread_mutex_init(&local->lock, NULL);
	local->folder = opened->folder;
	memcpy(local->path, opened->path, size);
	*ret_file = &local->base;
	return 0;
}
