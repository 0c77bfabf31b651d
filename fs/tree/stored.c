/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/stored.h"

#include "shard/store/folder_store.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int stored_join(const char *path, const char *name, char ret_path[4096])
{
	int size = snprintf(ret_path, 4096, "%s%s%s", path, *path ? "/" : "",
			    name);

	return size < 4096 ? 0 : -ENAMETOOLONG;
}

/*
 * The folder that @path lies in, which the caller closes unless it is the
 * root, and the last part of the path. Folders above are never left.
 */
static int open_parent(const struct namespace *ns, const char *path,
		       int *ret_folder, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	char copy[4096];

	if (!slash) {
		*ret_folder = ns->root;
		*ret_name = *path ? path : ".";
		return 0;
	}
	if (slash - path >= (ptrdiff_t)sizeof(copy))
		return -ENAMETOOLONG;
	memcpy(copy, path, (size_t)(slash - path));
	copy[slash - path] = '\0';
	*ret_name = slash + 1;
	return io_open_folder(ns->root, copy, ret_folder);
}

static void close_parent(const struct namespace *ns, int folder)
{
	if (folder != ns->root)
		close(folder);
}

bool stored_is_own(const struct namespace *ns, const struct stat *status)
{
	uint64_t device = atomic_load(&ns->own_device);

	return device && status->st_dev == device;
}

static int own_status(const struct namespace *ns, const char *path,
		      struct stat *ret_status)
{
	const char *name;
	int folder, error = open_parent(ns, path, &folder, &name);

	if (error)
		return error;
	error = fstatat(folder, name, ret_status, AT_SYMLINK_NOFOLLOW) < 0 ?
		-errno : 0;
	close_parent(ns, folder);
	return !error && stored_is_own(ns, ret_status) ? -ENOENT : error;
}

/* In the union. */
static int merged_status(const struct namespace *ns, const char *path,
			 struct stat *ret_status, unsigned *ret_rank)
{
	const struct merged_entry *entry;
	struct merged *merged = NULL;
	int error = merger_find(ns->merger, path, &merged, &entry);

	if (!error) {
		pin_status(&entry->stored.pin, ret_status);
		*ret_rank = entry->rank;
	}
	merged_put(merged);
	return error;
}

int stored_find(const struct namespace *ns, const char *path,
		struct stat *ret_status, unsigned *ret_rank)
{
	if (ns->merger && *path)
		return merged_status(ns, path, ret_status, ret_rank);
	*ret_rank = ns->peers ? ns->peers->rank : 0;
	return own_status(ns, path, ret_status);
}

int stored_status(const struct namespace *ns, const char *path,
		  struct stat *ret_status)
{
	unsigned rank;

	return stored_find(ns, path, ret_status, &rank);
}

bool stored_is_remote(const struct namespace *ns, const struct node *node)
{
	return ns->peers && node->kind == NODE_FILE &&
	       ns->peers->stores[node->rank] < 0;
}

int stored_node_status(const struct namespace *ns, const struct node *node,
		       struct stat *ret_status)
{
	struct array entry = { .data = NULL };
	struct stored stored;
	size_t position = 0;
	int error;

	if (!ns->merger || !*node->path || node->kind != NODE_FILE)
		return stored_status(ns, node->path, ret_status);
	error = stored_is_remote(ns, node) ?
		ns->peers->status(ns->peers, node->rank, node->path, &entry) :
		store_status(ns->peers->stores[node->rank], node->path,
			     &entry);
	if (!error && !stored_entry_next(entry.data, entry.size, &position,
					 &stored))
		error = -EIO;
	if (!error)
		pin_status(&stored.entry.pin, ret_status);
	array_finish(&entry);
	return error;
}

int stored_open(const struct namespace *ns, const struct node *node,
		int *ret_fd, struct stat *ret_status)
{
	const char *name;
	int folder, error;

	if (node->kind == NODE_ASSET)
		return io_open_linked(ns->assets, node->path, ret_fd,
				      ret_status);
	if (ns->peers)
		return store_open(ns->peers->stores[node->rank], node->path,
				  ret_fd, ret_status);
	error = open_parent(ns, node->path, &folder, &name);
	if (error)
		return error;
	error = io_open(folder, name, ret_fd, ret_status);
	close_parent(ns, folder);
	return error;
}

bool stored_hides(const struct namespace *ns, const char *path, enum view view)
{
	char name[4096];
	struct stat status;

	return stored_join(path, view_names[view], name) ||
	       stored_status(ns, name, &status) == 0;
}

static int merged_link(const struct namespace *ns, const char *path,
		       struct array *out)
{
	const struct merged_entry *entry;
	struct merged *merged = NULL;
	int error = merger_find(ns->merger, path, &merged, &entry);

	if (!error && !S_ISLNK(entry->stored.pin.mode))
		error = -EINVAL;
	if (!error)
		error = array_append(out, entry->target,
				     entry->target_size + 1);
	merged_put(merged);
	return error;
}

int stored_link(const struct namespace *ns, const char *path,
		struct array *out)
{
	char target[4096];
	const char *name;
	ssize_t size;
	int folder, error;

	if (ns->merger)
		return merged_link(ns, path, out);
	error = open_parent(ns, path, &folder, &name);
	if (error)
		return error;
	size = readlinkat(folder, name, target, sizeof(target));
	if (size < 0 || size == sizeof(target))
		error = size < 0 ? -errno : -ENAMETOOLONG;
	close_parent(ns, folder);
	if (!error)
		error = array_append(out, target, (size_t)size);
	return error ? error : array_append(out, "", 1);
}

/* ---- the folder of assets ------------------------------------------------ */

int asset_status(const struct namespace *ns, const char *name,
		 struct stat *ret_status)
{
	if (ns->assets < 0)
		return -ENOENT;
	if (fstatat(ns->assets, name, ret_status, 0) < 0)
		return -errno;
	return S_ISREG(ret_status->st_mode) ? 0 : -ENOENT;
}

bool asset_is_shown(const char *name)
{
	static const char *const patterns[] = {
		"*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.py",
	};
	size_t i;

	if (*name == '.' || strcmp(name, view_names[VIEW_JSON]) == 0 ||
	    fnmatch("*.safetensors.index.json", name, 0) == 0 ||
	    fnmatch("*.bin.index.json", name, 0) == 0)
		return false;
	for (i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
		if (fnmatch(patterns[i], name, 0) == 0)
			return true;
	return false;
}
