/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/folder.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct folder *folder_create(const struct inode_ops *ops)
{
	struct folder *folder = calloc(1, sizeof(*folder));

	if (!folder)
		return NULL;
	folder->known.base.ops = ops;
	folder->known.is_folder = true;
	pthread_mutex_init(&folder->look_lock, NULL);
	return folder;
}

void folder_destroy(struct namespace *ns, struct inode *inode)
{
	struct folder *folder = folder_of(inode);

	if (folder->mounted) {
		atomic_store(&folder->mounted->retired, true);
		inode_table_put_mounted(&ns->inodes, folder->mounted);
	}
	store_folder_put(folder->open);
	pthread_mutex_destroy(&folder->look_lock);
	free(folder);
}

void folder_hold(struct namespace *ns, struct folder *folder)
{
	inode_table_hold(&ns->inodes, folder->known.base.number);
}

void folder_put(struct namespace *ns, struct folder *folder)
{
	inode_table_put(&ns->inodes, folder->known.base.number);
}

/* ---- where it is --------------------------------------------------------- */

/* @text in front of what is at @at of @room, with a slash between them. */
static int prepend(char room[LIMIT_PATH_SIZE], size_t *at, const char *text)
{
	size_t size = strlen(text);
	bool more = *at < LIMIT_PATH_SIZE - 1;

	if (size + more > *at)
		return -ENAMETOOLONG;
	*at -= size + more;
	memcpy(room + *at, text, size);
	if (more)
		room[*at + size] = '/';
	return 0;
}

/* The nearest folder above @inode, or itself, that is open; NULL: none. The top
 * does not count. */
static const struct folder *find_open_locked(const struct known_inode *inode)
{
	const struct folder *folder;

	for (; inode->parent; inode = inode->parent) {
		folder = (const void *)inode;
		if (inode->is_folder && folder->open)
			return folder;
	}
	return NULL;
}

/* From @start, which is not part of it, down to @name below @inode. */
static int make_path_locked(const struct known_inode *inode, const char *name,
			    const struct known_inode *start,
			    char ret_path[LIMIT_PATH_SIZE])
{
	char room[LIMIT_PATH_SIZE];
	size_t at = LIMIT_PATH_SIZE - 1;
	int error = 0;

	room[at] = '\0';
	if (name)
		error = prepend(room, &at, name);
	for (; inode != start && !error; inode = inode->parent)
		error = prepend(room, &at, inode->name);
	if (!error)
		memcpy(ret_path, room + at, LIMIT_PATH_SIZE - at);
	return error;
}

int folder_path_init(struct namespace *ns, const struct known_inode *inode,
		     const char *name, struct folder_path *ret_path)
{
	const struct folder *start;
	int error;

	pthread_mutex_lock(&ns->inodes.lock);
	start = find_open_locked(inode);
	error = make_path_locked(inode, name, start ? &start->known :
						       &ns->top->known,
				 ret_path->text);
	ret_path->path = (struct store_path){
		!error && start ? store_folder_get(start->open) : NULL,
		ret_path->text,
	};
	pthread_mutex_unlock(&ns->inodes.lock);
	return error;
}

void folder_path_finish(struct folder_path *path)
{
	store_folder_put(path->path.at);
}

int folder_name(struct namespace *ns, const struct folder *folder,
		char ret_path[LIMIT_PATH_SIZE])
{
	int error;

	pthread_mutex_lock(&ns->inodes.lock);
	error = make_path_locked(&folder->known, NULL, &ns->top->known,
				 ret_path);
	pthread_mutex_unlock(&ns->inodes.lock);
	return error;
}

int folder_open(struct namespace *ns, struct folder *folder,
		struct store_folder **ret_folder)
{
	struct store_folder *opened;
	struct folder_path path;
	int error = folder_path_init(ns, &folder->known, NULL, &path);

	if (error)
		return error;
	error = ns->store->open_folder(ns->store, path.path, &opened);
	folder_path_finish(&path);
	if (error)
		return error;
	folder_hold(ns, folder);
	pthread_mutex_lock(&ns->inodes.lock);
	if (folder->opens++ == 0)
		folder->open = store_folder_get(opened);
	pthread_mutex_unlock(&ns->inodes.lock);
	*ret_folder = opened;
	return 0;
}

void folder_close(struct namespace *ns, void *context)
{
	struct store_folder *closed = NULL;
	struct folder *folder = context;

	pthread_mutex_lock(&ns->inodes.lock);
	assert(folder->opens > 0);
	if (--folder->opens == 0) {
		closed = folder->open;
		folder->open = NULL;
	}
	pthread_mutex_unlock(&ns->inodes.lock);
	store_folder_put(closed);
	folder_put(ns, folder);
}

/* ---- its checkpoint ------------------------------------------------------ */

struct mounted *folder_mounted(struct namespace *ns, struct folder *folder)
{
	struct mounted *mounted;

	pthread_mutex_lock(&ns->inodes.lock);
	mounted = folder->mounted;
	if (mounted)
		mounted->holds++;
	pthread_mutex_unlock(&ns->inodes.lock);
	return mounted;
}

bool folder_is_checkpoint(struct namespace *ns, const struct folder *folder)
{
	bool is;

	pthread_mutex_lock(&ns->inodes.lock);
	is = folder->mounted;
	pthread_mutex_unlock(&ns->inodes.lock);
	return is;
}

struct mounted *folder_set_mounted(struct namespace *ns, struct folder *folder,
				   struct mounted *mounted)
{
	struct mounted *old;

	pthread_mutex_lock(&ns->inodes.lock);
	old = folder->mounted;
	folder->mounted = mounted;
	if (mounted)
		inode_table_add_mounted_locked(&ns->inodes, mounted);
	if (old)
		atomic_store(&old->retired, true);
	pthread_mutex_unlock(&ns->inodes.lock);
	return old;
}
