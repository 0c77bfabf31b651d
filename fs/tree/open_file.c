/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/open_file.h"

#include "fs/tree/stored.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/*
 * What it reads from: a file of a view has a live checkpoint, and either an
 * content or a text that was made at open; a stored file, and tensors.json,
 * have a descriptor.
 */
struct handle {
	atomic_uint references;
	uint64_t inode;
	struct live *live;		/* one reference; NULL: stored */
	LIST_ENTRY(handle) link;	/* guarded by the namespace's lock */
	struct view_file file; /* without content */
	struct virtual_file *content; /* one reference; NULL: `text` */
	struct array text;		/* owned: a NAME.json, or decoded */
	int fd;				/* -1: none; owned unless in `live` */
	bool immutable;			/* stored: `pin` must stay true */
	struct pin pin;
	bool remote;			/* stored by `rank`, elsewhere */
	unsigned rank;
	char *path;			/* owned; of a stored file */
	uint64_t size;			/* bytes, but of a stored file */
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

static struct handle *create(uint64_t inode)
{
	struct handle *handle = calloc(1, sizeof(*handle));

	if (!handle)
		return NULL;
	handle->references = 1;
	handle->inode = inode;
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

static int make_text(struct handle *handle, struct live *live, bool nowait)
{
	int error = -EAGAIN;

	if (!nowait)
		error = handle->file.json ?
			view_object_json(live->checkpoint, handle->file.entry,
					 &handle->text) :
			view_object(live->checkpoint, handle->file.entry,
				    &handle->text);
	handle->size = handle->text.size;
	return error == -EOPNOTSUPP && handle->file.json ? -EIO : error;
}

/* What the file reads from. */
static int make_content(struct handle *handle, struct live *live, bool nowait)
{
	const struct catalog *catalog = live->checkpoint->catalog;
	int error = 0;

	if (handle->file.json || view_is_decoded(catalog, &handle->file))
		return make_text(handle, live, nowait);
	if (handle->file.content)
		handle->content = virtual_file_get(handle->file.content);
	else
		error = view_content(catalog, &handle->file, &handle->content);
	if (!error)
		handle->size = virtual_file_size(handle->content);
	handle->file.content = NULL;
	return error;
}

static bool has_holes(const struct catalog *catalog,
		      const struct view_file *file)
{
	return !file->grouped &&
	       catalog_entry(catalog, file->entry)->flags & CATALOG_HOLES;
}

static int open_view_file(struct namespace *ns, uint64_t inode,
			  const struct place *place, bool nowait,
			  struct opened *opened)
{
	bool holes = has_holes(place->live->checkpoint->catalog, &place->file);
	struct handle *handle;
	int error;

	if (atomic_load(&place->live->retired))
		return -ESTALE;
	handle = create(inode);
	if (!handle)
		return -ENOMEM;
	handle->file = place->file;
	error = make_content(handle, place->live, nowait);
	if (error) {
		array_finish(&handle->text);
		free(handle);
		return error;
	}
	enlist(ns, handle, place->live);
	*opened = (struct opened){
		.handle = handle,
		/* Reading ahead must not touch a hole. */
		.direct = holes,
		.keep_cache = !holes,
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
	handle = create(inode);
	if (!handle)
		return -ENOMEM;
	handle->fd = fd;
	handle->size = size;
	enlist(ns, handle, live);
	*opened = (struct opened){ .handle = handle, .keep_cache = true };
	return 0;
}

static int open_stored(struct namespace *ns, struct node *node,
		       struct opened *opened)
{
	struct handle *handle = create(node->inode);
	struct stat status;
	struct pin pin;
	int error = handle ? 0 : -ENOMEM;

	if (!error)
		error = stored_open(ns, node, &handle->fd, &status);
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

/* A stored file of another rank: nothing is open there. */
static int open_remote(struct namespace *ns, struct node *node,
		       struct opened *opened)
{
	struct handle *handle = create(node->inode);
	struct stat status;
	int error = handle ? stored_node_status(ns, node, &status) : -ENOMEM;

	if (error == -ENOENT)
		error = -ESTALE;
	if (!error && !S_ISREG(status.st_mode))
		error = -EINVAL;
	if (!error)
		handle->pin = pin_from_stat(&status);
	if (!error && (handle->pin.device != node->pin.device ||
		       handle->pin.inode != node->pin.inode ||
		       (node->immutable &&
			!pin_equal(&handle->pin, &node->pin))))
		error = -ESTALE;
	if (!error) {
		handle->path = strdup(node->path);
		error = handle->path ? 0 : -ENOMEM;
	}
	if (error) {
		free(handle);
		return error;
	}
	handle->remote = true;
	handle->rank = node->rank;
	handle->immutable = node->immutable;
	enlist(ns, handle, NULL);
	*opened = (struct opened){ .handle = handle,
				   .keep_cache = node->immutable };
	return 0;
}

/* MNT/.ckptfs/NAME, as it is now. */
static int open_report(struct namespace *ns, struct node *node,
		       struct opened *opened)
{
	struct handle *handle = create(node->inode);

	if (!handle)
		return -ENOMEM;
	if (!ns->report(ns->report_context, node->path, &handle->text)) {
		array_finish(&handle->text);
		free(handle);
		return -ENOMEM;
	}
	handle->size = handle->text.size;
	enlist(ns, handle, NULL);
	*opened = (struct opened){ .handle = handle, .direct = true };
	return 0;
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
	if (place.what == PLACE_NODE && place.node->kind == NODE_REPORT)
		return open_report(ns, place.node, ret_opened);
	if (place.what != PLACE_NODE || (place.node->kind != NODE_FILE &&
					 place.node->kind != NODE_ASSET))
		return -EISDIR;
	if (nowait)
		return -EAGAIN;
	return stored_is_remote(ns, place.node) ?
	       open_remote(ns, place.node, ret_opened) :
	       open_stored(ns, place.node, ret_opened);
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
	else if (handle->fd >= 0)
		close(handle->fd);
	virtual_file_put(handle->content);
	array_finish(&handle->text);
	free(handle->path);
	free(handle);
}

void handle_close_all(struct namespace *ns)
{
	while (!LIST_EMPTY(&ns->handles))
		namespace_close(ns, LIST_FIRST(&ns->handles));
}

/* ---- reading ------------------------------------------------------------- */

/* Fewer at the end of the file. */
static int read_up_to(int fd, uint64_t offset, struct reply *reply)
{
	uint64_t done = 0;

	while (done < reply->size) {
		ssize_t got = pread(fd, reply->data + done, reply->size - done,
				    (off_t)(offset + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		done += (uint64_t)got;
	}
	reply->size = done;
	return 0;
}

static int read_file(struct namespace *ns, struct handle *handle,
		     uint64_t offset, struct reply *reply)
{
	struct stat status;
	struct pin pin;
	int error;

	if (reply->nowait && !ns->in_memory && !handle->live)
		return -EAGAIN;
	error = read_up_to(handle->fd, offset, reply);
	if (!error && handle->immutable) {
		if (fstat(handle->fd, &status) < 0)
			return -errno;
		pin = pin_from_stat(&status);
		if (!pin_equal(&pin, &handle->pin))
			return -ESTALE;
	}
	return error;
}

static int read_remote(struct namespace *ns, struct handle *handle,
		       uint64_t offset, struct reply *reply)
{
	const struct file_range range = {
		.path = handle->path, .pin = handle->pin,
		.exact = handle->immutable, .offset = offset,
		.size = (uint32_t)reply->size,
	};
	size_t got;
	int error;

	reply->rank = (int)handle->rank;
	if (reply->nowait)
		return -EAGAIN;
	error = ns->peers->file(ns->peers, handle->rank, &range, reply->data,
				&got);
	if (error)
		return error == -ESTALE || error == -ENOMEM ? error : -EIO;
	reply->size = got;
	return 0;
}

int namespace_read(struct namespace *ns, struct handle *handle, uint64_t size,
		   uint64_t offset, struct reply *reply)
{
	int error;

	if (size > LIMIT_READ_SIZE)
		size = LIMIT_READ_SIZE;
	error = reply_begin(reply, NULL, size);
	if (error)
		return error;
	if (handle->live && atomic_load(&handle->live->retired))
		return -ESTALE;
	if (handle->fd >= 0)
		return read_file(ns, handle, offset, reply);
	if (handle->remote)
		return read_remote(ns, handle, offset, reply);
	if (offset >= handle->size)
		reply->size = 0;
	else if (size > handle->size - offset)
		reply->size = handle->size - offset;
	if (handle->content)
		return virtual_file_read(handle->content,
				checkpoint_source(handle->live->checkpoint),
				offset < handle->size ? offset : handle->size,
				reply);
	if (reply->size > 0)
		reply_lend(reply, handle->text.data + offset, NULL, NULL, NULL);
	return 0;
}

void handle_describe(const struct handle *handle, char *text, size_t size)
{
	const struct catalog *catalog;
	const struct catalog_entry *entry;
	char name[256];

	if (!handle->live || handle->fd >= 0 || handle->remote) {
		snprintf(text, size, "%s",
			 handle->path ? handle->path : "tensors.json");
		return;
	}
	catalog = handle->live->checkpoint->catalog;
	if (handle->file.grouped) {
		view_print(catalog, &handle->file, name);
		snprintf(text, size, "%s%s%s", handle->live->path,
			 *handle->live->path ? "/" : "", name);
		return;
	}
	entry = catalog_entry(catalog, handle->file.entry);
	snprintf(text, size, "%s%s%.*s", handle->live->path,
		 *handle->live->path ? "/" : "",
		 entry->name_size > 256 ? 256 : (int)entry->name_size,
		 catalog_text(catalog, entry->name));
}
