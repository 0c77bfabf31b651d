/* SPDX-License-Identifier: Apache-2.0 */
/*
 *	/			NODE_FOLDER ""
 *	/a/step			NODE_FOLDER "a/step", has a live checkpoint
 *	/a/step/file		NODE_FILE, also seen as .../step/hf/file
 *	/a/step/tensors		PLACE_LINK -> ../../.ckptfs/views/a/step/tensors
 *	/.ckptfs		NODE_HIDDEN
 *	/.ckptfs/views		NODE_MIRROR ""
 *	.../views/a/step	NODE_MIRROR "a/step", shares its folder
 *	.../step/tensors	PLACE_VIEW
 *	.../tensors/w		PLACE_FILE
 *	.../tensors/w[0:1]	PLACE_FILE, by NODE_NAMED
 *	.../hf/config.json	NODE_ASSET, of the folder of assets
 *
 * Below a view everything is immutable and is answered from memory; when the
 * checkpoint changes, the view itself gets another inode number.
 */
#include "fs/tree/namespace.h"

#include "fs/log.h"
#include "fs/tree/open_file.h"
#include "fs/tree/stored.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

static const char hidden_name[] = ".ckptfs";
static const char views_name[] = "views";
static const char hf_name[] = "model.safetensors";

/* ---- attributes ---------------------------------------------------------- */

int namespace_file_status(struct live *live, const struct view_file *file,
			  bool nowait, struct stat *ret_status)
{
	const struct catalog *catalog = live->checkpoint->catalog;
	uint64_t size;
	int error;

	if (file->content) {
		size = virtual_file_size(file->content);
		error = 0;
	} else if (file->json || view_is_decoded(catalog, file)) {
		error = live_object_size(live, file, nowait, &size);
	} else {
		error = view_size(catalog, file, &size);
	}
	if (error)
		return error;
	live_status(live, S_IFREG, size, ret_status);
	return 0;
}

static int link_target(const struct live *live, enum view view,
		       struct array *out)
{
	const char *p;
	int error = 0;

	for (p = live->path; *p && !error; p++)
		if (p == live->path || p[-1] == '/')
			error = array_append(out, "../", 3);
	if (!error)
		error = array_append(out, hidden_name, strlen(hidden_name));
	if (!error)
		error = array_append(out, "/views/", 7);
	if (!error && *live->path) {
		error = array_append(out, live->path, strlen(live->path));
		if (!error)
			error = array_append(out, "/", 1);
	}
	if (!error)
		error = array_append(out, view_names[view],
				     strlen(view_names[view]) + 1);
	return error;
}

static int link_status(struct live *live, enum view view,
		       struct found *ret_found)
{
	struct array target = { .data = NULL };
	int error = link_target(live, view, &target);

	if (!error)
		live_status(live, S_IFLNK, target.size - 1,
			    &ret_found->status);
	array_finish(&target);
	ret_found->timeout_s = TIMEOUT_STORE_S;
	ret_found->status.st_ino = live_link_inode(live, view);
	return error;
}

static int view_status(struct live *live, enum view view, bool nowait,
		       struct found *ret_found)
{
	uint64_t size = 0;
	int fd, error = 0;

	if (view == VIEW_JSON)
		error = live_tensors_json(live, nowait, &fd, &size);
	if (error)
		return error;
	live_status(live, view == VIEW_JSON ? S_IFREG : S_IFDIR, size,
		    &ret_found->status);
	ret_found->timeout_s = TIMEOUT_STORE_S;
	ret_found->status.st_ino = live_view_inode(live, view);
	return 0;
}

/* A folder or a report that only the mount has; looks like the store's
 * top. */
static int own_folder_status(struct namespace *ns, struct node *node,
			     struct found *ret_found)
{
	struct stat status;

	if (fstat(ns->root, &status) < 0)
		return -errno;
	ret_found->status = (struct stat){
		.st_mode = node->kind == NODE_REPORT ?
			   S_IFREG | (status.st_mode & 0444) :
			   S_IFDIR | (status.st_mode & 0555),
		.st_uid = status.st_uid, .st_gid = status.st_gid,
		.st_mtim = status.st_mtim, .st_ctim = status.st_ctim,
		.st_atim = status.st_mtim, .st_nlink = 2,
		.st_ino = node->inode,
	};
	ret_found->timeout_s = TIMEOUT_STORE_S;
	return 0;
}

/* A file that is still being written is asked for each time: who reads it
 * would take an old size for its end. */
static bool is_file(const struct node *node)
{
	return node->kind == NODE_FILE || node->kind == NODE_ASSET ||
	       node->kind == NODE_REPORT;
}

static unsigned node_timeout(const struct node *node)
{
	return is_file(node) && !node->immutable ? 0 : TIMEOUT_STORE_S;
}

static int node_status(struct namespace *ns, struct node *node, bool nowait,
		       struct found *ret_found)
{
	struct pin pin;
	int error;

	if (node->kind == NODE_HIDDEN || node->kind == NODE_MIRROR ||
	    node->kind == NODE_REPORT)
		return own_folder_status(ns, node, ret_found);
	if (nowait && (!ns->in_memory || node->kind == NODE_ASSET))
		return -EAGAIN;
	error = node->kind == NODE_ASSET ?
		asset_status(ns, node->path, &ret_found->status) :
		stored_node_status(ns, node, &ret_found->status);
	if (error)
		return error == -ENOENT ? -ESTALE : error;
	pin = pin_from_stat(&ret_found->status);
	if (is_file(node) &&
	    (pin.device != node->pin.device || pin.inode != node->pin.inode ||
	     (node->immutable && !pin_equal(&pin, &node->pin))))
		return -ESTALE;
	if (node->kind == NODE_FOLDER && !S_ISDIR(ret_found->status.st_mode))
		return -ESTALE;
	ret_found->timeout_s = node_timeout(node);
	ret_found->status.st_ino = node->inode;
	return 0;
}

int namespace_status(struct namespace *ns, uint64_t inode, bool nowait,
		     struct found *ret_found)
{
	struct place place;
	int error = nodes_find(&ns->nodes, inode, &place);

	if (error)
		return error;
	switch (place.what) {
	case PLACE_NODE:
		return node_status(ns, place.node, nowait, ret_found);
	case PLACE_VIEW:
		return view_status(place.live, place.view, nowait, ret_found);
	case PLACE_LINK:
		return link_status(place.live, place.view, ret_found);
	case PLACE_FILE:
		break;
	}
	error = namespace_file_status(place.live, &place.file, nowait,
				      &ret_found->status);
	ret_found->status.st_ino = inode;
	ret_found->timeout_s = TIMEOUT_CONST_S;
	return error;
}

/* ---- lookup -------------------------------------------------------------- */

/* A file of the store, or of the assets, that has this status. */
static int take_stored(struct namespace *ns, enum node_kind kind,
		       const char *path, const struct stat *status,
		       struct identity identity, struct found *ret_found)
{
	bool is_file = kind == NODE_FILE || kind == NODE_ASSET;
	struct node *node;

	identity.pin = pin_from_stat(status);
	node = nodes_get(&ns->nodes, kind, path, is_file ? &identity : NULL);
	if (!node)
		return -ENOMEM;
	ret_found->status = *status;
	ret_found->status.st_ino = node->inode;
	ret_found->timeout_s = node_timeout(node);
	return 0;
}

/* Beside the model: a file of the folder of assets, else of the
 * checkpoint. */
static int lookup_asset(struct namespace *ns, struct live *live,
			const char *name, bool nowait,
			struct found *ret_found)
{
	struct identity identity = { .immutable = false };
	struct stat status;
	char path[4096];
	int error;

	if (!asset_is_shown(name))
		return -ENOENT;
	if (nowait)
		return -EAGAIN;
	if (asset_status(ns, name, &status) == 0)
		return take_stored(ns, NODE_ASSET, name, &status, identity,
				   ret_found);
	identity.immutable = true;
	error = stored_join(live->path, name, path);
	if (!error)
		error = stored_find(ns, path, &status, &identity.rank);
	if (!error && !S_ISREG(status.st_mode))
		error = -ENOENT;
	return error ? error : take_stored(ns, NODE_FILE, path, &status,
					   identity, ret_found);
}

/*
 * Of what hf/ shows nothing may be missing: transformers would go on with
 * random weights.
 */
static int make_group(struct live *live, struct view_file *file)
{
	bool whole = file->view == VIEW_HF;
	int error = view_group_file(live->checkpoint, &file->group, whole,
				    &file->content);

	if (error == -EIO && whole && !atomic_exchange(&live->refused, true))
		log_line(LOG_LEVEL_ERROR, "%s%shf/%s: tensors are missing or cannot be read",
			 live->path, *live->path ? "/" : "", hf_name);
	return error;
}

/* A slice, or a group, whose content is made when it is new. */
static int lookup_named(struct namespace *ns, struct live *live,
			const char *name, struct view_file *file, bool nowait,
			struct found *ret_found)
{
	struct node *node = nodes_find_named(&ns->nodes, live, file->view,
					     name);
	unsigned excess;
	int error = 0;

	if (!node) {
		if (file->grouped)
			error = nowait ? -EAGAIN : make_group(live, file);
		if (!error)
			node = nodes_get_named(&ns->nodes, live, name, file);
		virtual_file_put(file->content);
		if (!node)
			return error ? error : -ENOMEM;
		excess = nodes_excess(&ns->nodes);
		if (excess > 0 && ns->drop_names)
			ns->drop_names(ns->drop_context, excess);
	}
	error = namespace_file_status(live, &node->file, nowait,
				      &ret_found->status);
	if (error)
		nodes_forget(&ns->nodes, node->inode, 1);
	else
		ret_found->status.st_ino = node->inode;
	return error;
}

static bool parse_name(const struct namespace *ns, struct live *live,
		       enum view view, const char *name,
		       struct view_file *ret_file)
{
	const struct catalog *catalog = live->checkpoint->catalog;
	const struct array *groups;

	if (view == VIEW_SAFETENSORS && live_groups(live, &groups) == 0 &&
	    view_parse_listed(catalog, groups, name, ret_file))
		return true;
	if (view != VIEW_HF)
		return view_parse(catalog, view, name, ret_file);
	*ret_file = (struct view_file){ .view = VIEW_HF, .grouped = true };
	return strcmp(name, hf_name) == 0 &&
	       view_group_root(catalog, ns->hf_root, &ret_file->group);
}

static int lookup_file(struct namespace *ns, struct live *live, enum view view,
		       const char *name, bool nowait, struct found *ret_found)
{
	struct view_file file;
	int error;

	if (view == VIEW_JSON)
		return -ENOTDIR;
	if (atomic_load(&live->retired))
		return -ESTALE;
	if (!parse_name(ns, live, view, name, &file))
		return view == VIEW_HF ? lookup_asset(ns, live, name, nowait,
						      ret_found) : -ENOENT;
	ret_found->timeout_s = TIMEOUT_CONST_S;
	if (file.slice || file.grouped)
		return lookup_named(ns, live, name, &file, nowait, ret_found);
	error = namespace_file_status(live, &file, nowait, &ret_found->status);
	if (error)
		return error;
	nodes_hold(&ns->nodes, live);
	ret_found->status.st_ino = live_inode(live, &file);
	return 0;
}

/* The link to a view, or, below .ckptfs/views, the view. */
static int lookup_view(struct namespace *ns, struct node *parent,
		       enum view view, struct found *ret_found)
{
	struct live *live = nodes_live(&ns->nodes, parent->folder);
	int error;

	if (!live)
		return -ENOENT;
	/* Of the reference that nodes_live took, the kernel gets a lookup. */
	error = parent->kind == NODE_MIRROR ?
		view_status(live, view, false, ret_found) :
		link_status(live, view, ret_found);
	if (error)
		nodes_put_live(&ns->nodes, live);
	return error;
}

static int lookup_own_folder(struct namespace *ns, enum node_kind kind,
			     const char *path, struct found *ret_found)
{
	struct node *node = nodes_get(&ns->nodes, kind, path, NULL);
	int error;

	if (!node)
		return -ENOMEM;
	error = own_folder_status(ns, node, ret_found);
	if (error)
		nodes_forget(&ns->nodes, node->inode, 1);
	return error;
}

static int lookup_stored(struct namespace *ns, struct node *parent,
			 const char *path, const struct stat *status,
			 unsigned rank, struct found *ret_found)
{
	struct identity identity = { .rank = rank };
	enum node_kind kind = NODE_FILE;

	if (S_ISDIR(status->st_mode))
		kind = parent->kind;
	else if (parent->kind == NODE_MIRROR)
		return -ENOENT;
	if (kind == NODE_MIRROR)
		return lookup_own_folder(ns, kind, path, ret_found);
	pthread_mutex_lock(&ns->nodes.lock);
	identity.immutable = parent->folder->live && S_ISREG(status->st_mode);
	pthread_mutex_unlock(&ns->nodes.lock);
	return take_stored(ns, kind, path, status, identity, ret_found);
}

static int lookup_in_folder(struct namespace *ns, struct node *parent,
			    const char *name, struct found *ret_found)
{
	int view = view_from_name(name), error;
	struct stat status;
	char path[4096];
	unsigned rank;

	namespace_look(ns, parent->folder);
	error = stored_join(parent->path, name, path);
	if (!error)
		error = stored_find(ns, path, &status, &rank);
	if (error == -ENOENT && view >= 0)
		return lookup_view(ns, parent, (enum view)view, ret_found);
	if (error)
		return error;
	return lookup_stored(ns, parent, path, &status, rank, ret_found);
}

static int lookup_hidden(struct namespace *ns, const char *name,
			 struct found *ret_found)
{
	if (strcmp(name, views_name) == 0)
		return lookup_own_folder(ns, NODE_MIRROR, "", ret_found);
	if (!ns->report || !ns->report(ns->report_context, name, NULL))
		return -ENOENT;
	return lookup_own_folder(ns, NODE_REPORT, name, ret_found);
}

int namespace_lookup(struct namespace *ns, uint64_t parent, const char *name,
		     bool nowait, struct found *ret_found)
{
	struct place place;
	int error = nodes_find(&ns->nodes, parent, &place);

	if (error)
		return error;
	if (place.what == PLACE_VIEW)
		return lookup_file(ns, place.live, place.view, name, nowait,
				   ret_found);
	if (place.what != PLACE_NODE || is_file(place.node))
		return -ENOTDIR;
	if (place.node->kind == NODE_HIDDEN)
		return lookup_hidden(ns, name, ret_found);
	if (place.node->kind == NODE_FOLDER && !*place.node->path &&
	    strcmp(name, hidden_name) == 0)
		return lookup_own_folder(ns, NODE_HIDDEN, "", ret_found);
	if (nowait)
		return -EAGAIN;
	return lookup_in_folder(ns, place.node, name, ret_found);
}

void namespace_forget(struct namespace *ns, uint64_t inode, uint64_t count)
{
	nodes_forget(&ns->nodes, inode, count);
}

void namespace_hold(struct namespace *ns, uint64_t inode)
{
	nodes_hold_inode(&ns->nodes, inode);
}

/* ---- links, attributes, the whole ---------------------------------------- */

int namespace_link(struct namespace *ns, uint64_t inode, bool nowait,
		   struct array *out)
{
	struct place place;
	int error = nodes_find(&ns->nodes, inode, &place);

	if (error)
		return error;
	if (place.what == PLACE_LINK)
		return link_target(place.live, place.view, out);
	if (place.what != PLACE_NODE || place.node->kind != NODE_FILE)
		return -EINVAL;
	return nowait ? -EAGAIN : stored_link(ns, place.node->path, out);
}

int namespace_attribute(struct namespace *ns, uint64_t inode, const char *name,
			struct array *out)
{
	struct place place;
	int error;

	/* `ls -l` asks for two that nobody has, of each file. */
	if (!view_is_attribute(name))
		return -ENODATA;
	error = nodes_find(&ns->nodes, inode, &place);
	if (error)
		return error;
	if (place.what != PLACE_FILE)
		return -ENODATA;
	return view_attribute(place.live->checkpoint->catalog, &place.file,
			      name, out);
}

int namespace_attributes(struct namespace *ns, uint64_t inode,
			 struct array *out)
{
	struct place place;
	int error = nodes_find(&ns->nodes, inode, &place);

	if (error || place.what != PLACE_FILE)
		return error;
	return view_attributes(&place.file, out);
}

int namespace_statfs(struct namespace *ns, struct statvfs *ret_status)
{
	return fstatvfs(ns->root, ret_status) < 0 ? -errno : 0;
}

static void close_folders(struct namespace *ns)
{
	if (ns->assets >= 0)
		close(ns->assets);
	if (ns->root >= 0)
		close(ns->root);
}

static int open_folder(const char *path, int *ret_fd, const char **ret_bad)
{
	*ret_bad = path;
	*ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *ret_fd < 0 ? -errno : 0;
}

int namespace_init(struct namespace *ns, const char *path,
		   const struct namespace_options *options,
		   const char **ret_bad)
{
	struct statfs status;
	struct place place;
	int error;

	*ns = (struct namespace){ .root = -1, .assets = -1,
				  .hf_root = options->hf_root };
	pthread_mutex_init(&ns->kept_lock, NULL);
	error = open_folder(path, &ns->root, ret_bad);
	if (!error && options->hf_assets)
		error = open_folder(options->hf_assets, &ns->assets, ret_bad);
	if (error)
		goto close_folders;
	ns->in_memory = fstatfs(ns->root, &status) == 0 &&
			(status.f_type == TMPFS_MAGIC ||
			 status.f_type == RAMFS_MAGIC);
	ns->cache = decoded_cache_create(options->decoded_cache);
	error = ns->cache ? nodes_init(&ns->nodes) : -ENOMEM;
	if (error)
		goto destroy_cache;
	nodes_find(&ns->nodes, 1, &place);
	if (!options->ranks)
		namespace_look(ns, place.node->folder);
	return 0;
destroy_cache:
	decoded_cache_destroy(ns->cache);
close_folders:
	close_folders(ns);
	return error;
}

static void say(void *context, const char *line)
{
	(void)context;
	log_line(LOG_LEVEL_WARNING, "%s", line);
}

int namespace_join(struct namespace *ns, struct peers *peers)
{
	ns->merger = merger_create(peers, say, NULL);
	if (!ns->merger)
		return -ENOMEM;
	ns->peers = peers;
	/* Whatever is asked for may be elsewhere. */
	ns->in_memory = false;
	return 0;
}

static void put_kept(struct namespace *ns)
{
	unsigned i;

	for (i = 0; i < NAMESPACE_KEPT; i++)
		if (ns->kept[i])
			nodes_put_folder(&ns->nodes, ns->kept[i]);
}

void namespace_finish(struct namespace *ns)
{
	handle_close_all(ns);
	listing_close_all(ns);
	put_kept(ns);
	nodes_finish(&ns->nodes);
	merger_destroy(ns->merger);
	pthread_mutex_destroy(&ns->kept_lock);
	decoded_cache_destroy(ns->cache);
	close_folders(ns);
}
