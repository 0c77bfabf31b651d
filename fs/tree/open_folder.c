/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open folders. A view is listed from the catalog, by position:
 *
 *	tensors/, npy/, f32/	0 is the first tensor
 *	objects/		2 n is NAME.pt of object n, 2 n + 1 its
 *				NAME.json
 *
 * All other folders are read when they are opened, and listed from that.
 * "." and ".." are the business of who lists.
 */
#include "fs/tree/open_file.h"

#include "fs/tree/stored.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct listing {
	atomic_uint references;
	LIST_ENTRY(listing) link;	/* guarded by the namespace's lock */
	struct live *live;	/* of a view, one reference; else NULL */
	enum view view;
	struct array entries;	/* struct listed, of all others */
};

static int add(struct listing *listing, const char *name, mode_t type,
	       uint64_t inode)
{
	struct listed *listed = array_add(&listing->entries, sizeof(*listed));

	if (!listed)
		return -ENOMEM;
	memset(listed, 0, sizeof(*listed));
	snprintf(listed->name, sizeof(listed->name), "%s", name);
	listed->type = type;
	listed->inode = inode;
	listed->next = listing->entries.size / sizeof(*listed);
	return 0;
}

static bool has_entry(const struct listing *listing, const char *name)
{
	const struct listed *entries = (const void *)listing->entries.data;
	size_t i;

	for (i = 0; i < listing->entries.size / sizeof(*entries); i++)
		if (strcmp(entries[i].name, name) == 0)
			return true;
	return false;
}

/* Its type; 0: not known. False: not to be listed. */
static bool entry_type(const struct namespace *ns, int folder,
		       const struct dirent *entry, mode_t *ret_type)
{
	struct stat status;
	bool known = entry->d_type != DT_UNKNOWN;

	*ret_type = known ? DTTOIF(entry->d_type) : 0;
	if (known && (!atomic_load(&ns->own_device) || !S_ISDIR(*ret_type)))
		return true;
	if (fstatat(folder, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return true;
	*ret_type = status.st_mode & S_IFMT;
	return !stored_is_own(ns, &status);
}

/* What the store has; of a mirror, the folders only. */
static int add_stored(const struct namespace *ns, struct listing *listing,
		      const struct node *node, DIR *stream,
		      bool seen[VIEW_COUNT])
{
	bool mirror = node->kind == NODE_MIRROR;
	struct dirent *entry;
	int error = 0, view;

	while (!error) {
		mode_t type;

		errno = 0;
		entry = readdir(stream);
		if (!entry)
			return -errno;
		if (strcmp(entry->d_name, ".") == 0 ||
		    strcmp(entry->d_name, "..") == 0 ||
		    (!*node->path && strcmp(entry->d_name, ".ckptfs") == 0))
			continue;
		view = view_from_name(entry->d_name);
		if (view >= 0)
			seen[view] = true;
		if (entry_type(ns, dirfd(stream), entry, &type) &&
		    (!mirror || S_ISDIR(type)))
			error = add(listing, entry->d_name, type, 0);
	}
	return error;
}

/* What the union has; of a mirror, the folders only. */
static int add_merged(const struct namespace *ns, struct listing *listing,
		      const struct node *node, bool seen[VIEW_COUNT])
{
	bool mirror = node->kind == NODE_MIRROR;
	struct merged *merged;
	size_t i;
	int view, error = merger_get(ns->merger, node->path, false, &merged);

	if (error)
		return error;
	if (!merged->found)
		error = -ESTALE;
	for (i = 0; i < merged->count && !error; i++) {
		const struct merged_entry *entry = &merged->entries[i];
		mode_t type = entry->stored.pin.mode & S_IFMT;

		if (!*node->path && strcmp(entry->name, ".ckptfs") == 0)
			continue;
		view = view_from_name(entry->name);
		if (view >= 0)
			seen[view] = true;
		if (!mirror || S_ISDIR(type))
			error = add(listing, entry->name, type, 0);
	}
	merged_put(merged);
	return error;
}

static int add_views(struct namespace *ns, struct listing *listing,
		     const struct node *node, const bool seen[VIEW_COUNT])
{
	struct live *live = nodes_live(&ns->nodes, node->folder);
	int view, error = 0;

	for (view = 0; live && view < VIEW_COUNT && !error; view++) {
		if (seen[view])
			continue;
		if (node->kind == NODE_FOLDER)
			error = add(listing, view_names[view], S_IFLNK,
				    live_link_inode(live, (enum view)view));
		else
			error = add(listing, view_names[view],
				    view == VIEW_JSON ? S_IFREG : S_IFDIR,
				    live_view_inode(live, (enum view)view));
	}
	if (live)
		nodes_put_live(&ns->nodes, live);
	return error;
}

static int add_own(struct namespace *ns, struct listing *listing,
		   const struct node *node, bool seen[VIEW_COUNT])
{
	DIR *stream;
	int fd, error;

	error = io_open_folder(ns->root, *node->path ? node->path : ".", &fd);
	if (error)
		return error == -ENOENT ? -ESTALE : error;
	stream = fdopendir(fd);
	if (!stream) {
		error = -errno;
		close(fd);
		return error;
	}
	error = add_stored(ns, listing, node, stream, seen);
	closedir(stream);
	return error;
}

static int read_folder(struct namespace *ns, const struct node *node,
		       struct listing *listing)
{
	bool seen[VIEW_COUNT] = { false };
	int error;

	namespace_look(ns, node->folder);
	error = ns->merger ? add_merged(ns, listing, node, seen) :
			     add_own(ns, listing, node, seen);
	return error ? error : add_views(ns, listing, node, seen);
}

/* Is it a file that hf/ shows? Of the assets, also what a link leads to. */
static bool is_shown(const struct namespace *ns, int folder, const char *name)
{
	struct stat status;

	if (!asset_is_shown(name))
		return false;
	if (folder == ns->assets)
		return asset_status(ns, name, &status) == 0;
	return fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISREG(status.st_mode);
}

/* What hf/ shows of @folder. */
static int add_assets(const struct namespace *ns, struct listing *listing,
		      int folder)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int error = 0;

	if (!stream) {
		error = -errno;
		if (fd >= 0)
			close(fd);
		return error;
	}
	while (!error) {
		errno = 0;
		entry = readdir(stream);
		if (!entry) {
			error = -errno;
			break;
		}
		if (is_shown(ns, folder, entry->d_name) &&
		    !has_entry(listing, entry->d_name))
			error = add(listing, entry->d_name, S_IFREG, 0);
	}
	closedir(stream);
	return error;
}

/* The same of the union. */
static int add_merged_assets(const struct namespace *ns,
			     struct listing *listing, const char *path)
{
	struct merged *merged;
	size_t i;
	int error = merger_get(ns->merger, path, false, &merged);

	if (error)
		return error;
	for (i = 0; i < merged->count && !error; i++) {
		const struct merged_entry *entry = &merged->entries[i];

		if (asset_is_shown(entry->name) &&
		    S_ISREG(entry->stored.pin.mode) &&
		    !has_entry(listing, entry->name))
			error = add(listing, entry->name, S_IFREG, 0);
	}
	merged_put(merged);
	return error;
}

static int read_hf(struct namespace *ns, const struct live *live,
		   struct listing *listing)
{
	struct view_group group;
	int error = 0;

	if (view_group_root(live->checkpoint->catalog, ns->hf_root, &group))
		error = add(listing, "model.safetensors", S_IFREG, 0);
	if (!error && ns->assets >= 0)
		error = add_assets(ns, listing, ns->assets);
	if (!error)
		error = ns->merger ?
			add_merged_assets(ns, listing, live->path) :
			add_assets(ns, listing, live->checkpoint->folder);
	return error;
}

static int read_groups(struct live *live, struct listing *listing)
{
	const struct catalog *catalog = live->checkpoint->catalog;
	struct view_file file = { .view = VIEW_SAFETENSORS, .grouped = true };
	const struct array *groups;
	char name[256];
	size_t i;
	int error = live_groups(live, &groups);

	for (i = 0; !error && i < groups->size / sizeof(file.group); i++) {
		file.group = ((struct view_group *)(void *)groups->data)[i];
		view_print(catalog, &file, name);
		error = add(listing, name, S_IFREG, 0);
	}
	return error;
}

static int open_view(struct namespace *ns, const struct place *place,
		     bool nowait, struct listing *listing)
{
	if (atomic_load(&place->live->retired))
		return -ESTALE;
	if (place->view == VIEW_HF)
		return nowait ? -EAGAIN : read_hf(ns, place->live, listing);
	if (place->view == VIEW_SAFETENSORS)
		return read_groups(place->live, listing);
	listing->view = place->view;
	listing->live = place->live;
	nodes_hold(&ns->nodes, place->live);
	return 0;
}

int namespace_open_listing(struct namespace *ns, uint64_t inode, bool nowait,
			   struct listing **ret_listing)
{
	struct listing *listing;
	struct place place;
	int error = nodes_find(&ns->nodes, inode, &place);

	if (error)
		return error;
	if (place.what == PLACE_NODE && place.node->folder && nowait)
		return -EAGAIN;
	listing = calloc(1, sizeof(*listing));
	if (!listing)
		return -ENOMEM;
	listing->references = 1;
	pthread_mutex_lock(&ns->nodes.lock);
	LIST_INSERT_HEAD(&ns->listings, listing, link);
	pthread_mutex_unlock(&ns->nodes.lock);
	if (place.what == PLACE_VIEW && place.view != VIEW_JSON) {
		error = open_view(ns, &place, nowait, listing);
	} else if (place.what == PLACE_NODE && place.node->folder) {
		error = read_folder(ns, place.node, listing);
	} else if (place.what == PLACE_NODE &&
		   place.node->kind == NODE_HIDDEN) {
		error = add(listing, "views", S_IFDIR, 0);
		if (!error && ns->report)
			error = add(listing, "status.json", S_IFREG, 0);
		if (!error && ns->report)
			error = add(listing, "metrics", S_IFREG, 0);
	} else {
		error = -ENOTDIR;
	}
	if (error)
		namespace_close_listing(ns, listing);
	else
		*ret_listing = listing;
	return error;
}

void listing_hold(struct listing *listing)
{
	atomic_fetch_add(&listing->references, 1);
}

void namespace_close_listing(struct namespace *ns, struct listing *listing)
{
	if (atomic_fetch_sub(&listing->references, 1) > 1)
		return;
	pthread_mutex_lock(&ns->nodes.lock);
	LIST_REMOVE(listing, link);
	pthread_mutex_unlock(&ns->nodes.lock);
	if (listing->live)
		nodes_put_live(&ns->nodes, listing->live);
	array_finish(&listing->entries);
	free(listing);
}

void listing_close_all(struct namespace *ns)
{
	while (!LIST_EMPTY(&ns->listings))
		namespace_close_listing(ns, LIST_FIRST(&ns->listings));
}

bool listing_is_immutable(const struct listing *listing)
{
	return listing->live != NULL;
}

static int list_object(struct listing *listing, uint64_t position, bool nowait,
		       struct view_file *file)
{
	const struct catalog *catalog = listing->live->checkpoint->catalog;
	uint64_t size, entry = catalog->tensor_count + position / 2;
	int error;

	if (position / 2 >= catalog->object_count)
		return -ENOENT;
	view_whole(catalog, VIEW_OBJECTS, entry, position % 2, file);
	if (!file->json)
		return 0;
	error = live_object_size(listing->live, file, nowait, &size);
	/* Not plain data: the entry is left out, see listing_next. */
	return error == -ENOENT ? -EOPNOTSUPP : error;
}

static int list_file(struct listing *listing, uint64_t position, bool nowait,
		     struct listed *listed)
{
	struct live *live = listing->live;
	struct view_file file;
	int error = 0;

	if (listing->view == VIEW_OBJECTS)
		error = list_object(listing, position, nowait, &file);
	else if (position >= live->checkpoint->catalog->tensor_count)
		error = -ENOENT;
	else if (!view_lists(live->checkpoint->catalog, listing->view,
			     position))
		error = -EOPNOTSUPP;
	else
		view_whole(live->checkpoint->catalog, listing->view, position,
			   false, &file);
	if (!error)
		error = namespace_file_status(live, &file, nowait,
					      &listed->status);
	if (error)
		return error;
	view_print(live->checkpoint->catalog, &file, listed->name);
	listed->inode = listed->status.st_ino = live_inode(live, &file);
	listed->type = S_IFREG;
	listed->has_status = true;
	listed->live = live;
	listed->next = position + 1;
	return 0;
}

int listing_next(struct listing *listing, uint64_t position, bool nowait,
		 struct listed *ret_listed)
{
	const struct listed *entries = (const void *)listing->entries.data;
	int error;

	if (!listing->live) {
		if (position >= listing->entries.size / sizeof(*entries))
			return -ENOENT;
		*ret_listed = entries[position];
		return 0;
	}
	do
		error = list_file(listing, position++, nowait, ret_listed);
	while (error == -EOPNOTSUPP);
	return error;
}
