/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/handle.h"

#include "shard/npy.h"
#include "shard/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/*
 * What it reads from: a file of a view has a live checkpoint, and either a
 * transfer or a text that was made at open; a stored file, and tensors.json,
 * have a descriptor.
 */
struct handle {
	atomic_uint references;
	uint64_t inode;
	struct live *live;		/* one reference; NULL: stored */
	LIST_ENTRY(handle) link;	/* guarded by the namespace's lock */
	struct view_file file;
	bool whole_text;		/* `text` is all there is */
	struct array text;		/* owned: a NAME.json */
	int fd;				/* -1: none; owned unless in `live` */
	bool immutable;			/* stored: `pin` must stay true */
	struct pin pin;
	char *path;			/* owned; of a stored file */
	uint64_t data_size;
	size_t header_size;
	char header[];			/* of a .npy */
};

unsigned handle_inodes_locked(const struct namespace *ns,
			      const struct live *live, uint64_t after,
			      uint64_t *ret_inodes, unsigned count)
{
	const struct handle *handle;
	unsigned found = 0, i;

	/* Insertion into a short sorted list: files open at once are few. */
	LIST_FOREACH(handle, &ns->handles, link) {
		if (handle->live != live || handle->inode <= after)
			continue;
		for (i = 0; i < found && ret_inodes[i] < handle->inode; i++)
			;
		if (i == count || (i < found && ret_inodes[i] == handle->inode))
			continue;
		if (found < count)
			found++;
		memmove(&ret_inodes[i + 1], &ret_inodes[i],
			(found - 1 - i) * sizeof(*ret_inodes));
		ret_inodes[i] = handle->inode;
	}
	return found;
}

static struct handle *create(uint64_t inode, size_t header_size)
{
	struct handle *handle = calloc(1, sizeof(*handle) + header_size);

	if (!handle)
		return NULL;
	handle->references = 1;
	handle->inode = inode;
	handle->header_size = header_size;
	handle->fd = -1;
	return handle;
}

/* @live is NULL for a stored file. */
static void enlist(struct namespace *ns, struct handle *handle,
		   struct live *live)
{
	pthread_mutex_lock(&ns->nodes.lock);
	handle->live = live;
	if (live)
		live->references++;
	LIST_INSERT_HEAD(&ns->handles, handle, link);
	pthread_mutex_unlock(&ns->nodes.lock);
}

static int open_json(struct handle *handle, struct live *live, bool nowait)
{
	int error = nowait ? -EAGAIN :
		    view_object_json(live->checkpoint, handle->file.entry,
				     &handle->text);

	handle->whole_text = true;
	handle->data_size = handle->text.size;
	return error == -EOPNOTSUPP ? -EIO : error;
}

static int open_view_file(struct namespace *ns, uint64_t inode,
			  const struct place *place, bool nowait,
			  struct opened *opened)
{
	const struct catalog *catalog = place->live->checkpoint->catalog;
	const struct catalog_entry *entry =
		catalog_entry(catalog, place->file.entry);
	char header[NPY_HEADER_MAX];
	struct handle *handle;
	int error = 0;

	if (atomic_load(&place->live->retired))
		return -ESTALE;
	if (dtype_info(entry->dtype)->size == 0)
		return -EOPNOTSUPP;
	handle = create(inode, view_header(catalog, &place->file, header));
	if (!handle)
		return -ENOMEM;
	memcpy(handle->header, header, handle->header_size);
	handle->file = place->file;
	handle->data_size = view_data_size(catalog, &place->file);
	if (place->file.json)
		error = open_json(handle, place->live, nowait);
	if (error) {
		array_finish(&handle->text);
		free(handle);
		return error;
	}
	enlist(ns, handle, place->live);
	*opened = (struct opened){
		.handle = handle,
		/* Reading ahead must not touch a hole. */
		.direct = entry->flags & CATALOG_HOLES,
		.keep_cache = !(entry->flags & CATALOG_HOLES),
	};
	return 0;
}

static int open_tensors_json(struct namespace *ns, uint64_t inode,
			     struct live *live, bool nowait,
			     struct opened *opened)
{
	struct handle *handle;
	uint64_t size;
	int fd, error = live_tensors_json(live, nowait, &fd, &size);

	if (error)
		return error;
	if (atomic_load(&live->retired))
		return -ESTALE;
	handle = create(inode, 0);
	if (!handle)
		return -ENOMEM;
	handle->fd = fd;
	handle->data_size = size;
	enlist(ns, handle, live);
	*opened = (struct opened){ .handle = handle, .keep_cache = true };
	return 0;
}

static int open_stored(struct namespace *ns, struct node *node,
		       struct opened *opened)
{
	struct handle *handle = create(node->inode, 0);
	struct stat status;
	struct pin pin;
	int error = handle ? 0 : -ENOMEM;

	if (!error)
		error = namespace_open_stored(ns, node->path, &handle->fd,
					      &status);
	if (error == -ENOENT)
		error = -ESTALE;
	if (error)
		goto free_handle;
	pin = pin_from_stat(&status);
	if (pin.device != node->pin.device || pin.inode != node->pin.inode ||
	    (node->immutable && !pin_equal(&pin, &node->pin)))
		error = -ESTALE;
	handle->path = error ? NULL : strdup(node->path);
	if (!error && !handle->path)
		error = -ENOMEM;
	if (error)
		goto close_file;
	handle->pin = pin;
	handle->immutable = node->immutable;
	enlist(ns, handle, NULL);
	*opened = (struct opened){ .handle = handle,
				   .keep_cache = node->immutable };
	return 0;
close_file:
	close(handle->fd);
free_handle:
	free(handle);
	return error;
}

int namespace_open(struct namespace *ns, uint64_t inode, bool nowait,
		   struct opened *ret_opened)
{
	struct place place;
	int error = nodes_find(&ns->nodes, inode, &place);

	if (error)
		return error;
	if (place.what == PLACE_FILE)
		return open_view_file(ns, inode, &place, nowait, ret_opened);
	if (place.what == PLACE_VIEW && place.view == VIEW_JSON)
		return open_tensors_json(ns, inode, place.live, nowait,
					 ret_opened);
	if (place.what != PLACE_NODE || place.node->kind != NODE_FILE)
		return -EISDIR;
	return nowait ? -EAGAIN : open_stored(ns, place.node, ret_opened);
}

void handle_hold(struct handle *handle)
{
	atomic_fetch_add(&handle->references, 1);
}

void namespace_close(struct namespace *ns, struct handle *handle)
{
	struct live *live = handle->live;

	if (atomic_fetch_sub(&handle->references, 1) > 1)
		return;
	pthread_mutex_lock(&ns->nodes.lock);
	LIST_REMOVE(handle, link);
	pthread_mutex_unlock(&ns->nodes.lock);
	if (live)
		nodes_put_live(&ns->nodes, live);
	else
		close(handle->fd);
	array_finish(&handle->text);
	free(handle->path);
	free(handle);
}

void handle_close_all(struct namespace *ns)
{
	while (!LIST_EMPTY(&ns->handles))
		namespace_close(ns, LIST_FIRST(&ns->handles));
}

/* ---- reading --------------------------------------------------------------- */

/* Bytes of a descriptor by way of the reply's buffer. */
static int read_file(struct namespace *ns, struct handle *handle,
		     uint64_t size, uint64_t offset, struct reply *reply)
{
	unsigned char *buffer = reply_buffer(reply);
	struct stat status;
	struct pin pin;
	ssize_t got;
	size_t done = 0;

	if (!buffer)
		return -ENOMEM;
	if (reply->nowait && !ns->in_memory && !handle->live)
		return -EAGAIN;
	while (done < size) {
		got = pread(handle->fd, buffer + done, size - done,
			    (off_t)(offset + done));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		done += (size_t)got;
	}
	if (handle->immutable) {
		if (fstat(handle->fd, &status) < 0)
			return -errno;
		pin = pin_from_stat(&status);
		if (!pin_equal(&pin, &handle->pin))
			return -ESTALE;
	}
	reply->iov[0] = (struct iovec){ buffer, done };
	reply->iov_count = done > 0;
	return 0;
}

static int read_tensor(struct handle *handle, uint64_t size, uint64_t offset,
		       struct reply *reply)
{
	struct checkpoint *checkpoint = handle->live->checkpoint;
	struct transfer transfer = {
		.source = checkpoint_source(checkpoint),
		.catalog = checkpoint->catalog,
		.entry = catalog_entry(checkpoint->catalog,
				       handle->file.entry),
		.selection = &handle->file.selection,
		.offset = offset, .size = size,
	};

	return transfer_read(&transfer, reply);
}

/* The part of the header, and then of the data, that the range covers. */
static int read_parts(struct handle *handle, uint64_t size, uint64_t offset,
		      struct reply *reply)
{
	uint64_t from_header = 0;
	int error = 0;

	if (offset < handle->header_size) {
		from_header = handle->header_size - offset;
		if (from_header > size)
			from_header = size;
	}
	if (size > from_header)
		error = read_tensor(handle, size - from_header,
				    offset + from_header - handle->header_size,
				    reply);
	if (error || from_header == 0)
		return error;
	memmove(reply->iov + 1, reply->iov,
		reply->iov_count * sizeof(*reply->iov));
	reply->iov[0] = (struct iovec){ handle->header + offset, from_header };
	reply->iov_count++;
	return 0;
}

int namespace_read(struct namespace *ns, struct handle *handle, uint64_t size,
		   uint64_t offset, struct reply *reply)
{
	uint64_t whole = handle->header_size + handle->data_size;

	reply_begin(reply, 0);
	if (handle->live && atomic_load(&handle->live->retired))
		return -ESTALE;
	if (size > LIMIT_READ_SIZE)
		size = LIMIT_READ_SIZE;
	if (handle->fd >= 0)
		return read_file(ns, handle, size, offset, reply);
	if (offset >= whole)
		return 0;
	if (size > whole - offset)
		size = whole - offset;
	if (!handle->whole_text)
		return read_parts(handle, size, offset, reply);
	reply->iov[0] = (struct iovec){ handle->text.data + offset, size };
	reply->iov_count = 1;
	return 0;
}

void handle_describe(const struct handle *handle, char *text, size_t size)
{
	const struct catalog *catalog;
	const struct catalog_entry *entry;

	if (!handle->live || handle->fd >= 0) {
		snprintf(text, size, "%s",
			 handle->path ? handle->path : "tensors.json");
		return;
	}
	catalog = handle->live->checkpoint->catalog;
	entry = catalog_entry(catalog, handle->file.entry);
	snprintf(text, size, "%s%s%.*s", handle->live->path,
		 *handle->live->path ? "/" : "",
		 entry->name_size > 256 ? 256 : (int)entry->name_size,
		 catalog_text(catalog, entry->name));
}
