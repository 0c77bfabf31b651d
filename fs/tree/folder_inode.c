/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/folder_inode.h"

#include "fs/tree/revalidate.h"
#include "fs/tree/stored_inode.h"
#include "fs/tree/view_inode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- getting one --------------------------------------------------------- */

static const struct inode_ops folder_ops = {
	.status = folder_inode_status, .lookup = folder_inode_lookup,
	.open_folder = folder_inode_open, .destroy = folder_destroy,
};

/* A folder is what has its path, unless somebody has it open: then it is that
 * one. @what is a struct store_found, or NULL: whatever it is. */
static bool take_folder(struct known_inode *known, const void *what)
{
	const struct store_found *found = what;

	return known->is_folder &&
	       (!found || !((struct folder *)known)->open ||
		store_folder_is(((struct folder *)known)->open, found->owner,
				&found->status));
}

static struct known_inode *make_folder(const void *what)
{
	struct folder *folder = folder_create(&folder_ops);

	(void)what;
	return folder ? &folder->known : NULL;
}

struct folder *folder_inode_walk(struct namespace *ns, const char *path)
{
	const struct inode_wanted wanted = { take_folder, make_folder, NULL };
	struct folder *folder = ns->top, *next;
	char name[NAME_MAX + 1];

	folder_hold(ns, folder);
	while (*path && folder) {
		size_t size = strcspn(path, "/");
		struct inode_name where =
			inode_name_in(&folder->known, name);

		if (size > NAME_MAX)
			size = NAME_MAX;
		memcpy(name, path, size);
		name[size] = '\0';
		path += size + (path[size] == '/');
		next = (void *)inode_table_get_held(&ns->inodes, &where,
						    &wanted);
		folder_put(ns, folder);
		folder = next;
	}
	return folder;
}

/* ---- attributes ---------------------------------------------------------- */

int folder_own_attr(const struct namespace *ns, mode_t type, uint64_t number,
		    struct attr *ret_attr)
{
	struct stat status;
	mode_t mode = type == S_IFDIR ? 0555 : 0444;

	if (fstat(ns->root, &status) < 0)
		return -errno;
	ret_attr->status = (struct stat){
		.st_mode = type | (status.st_mode & mode),
		.st_uid = status.st_uid, .st_gid = status.st_gid,
		.st_mtim = status.st_mtim, .st_ctim = status.st_ctim,
		.st_atim = status.st_mtim, .st_ino = number,
		.st_nlink = type == S_IFDIR ? 2 : 1,
	};
	ret_attr->timeout_s = TIMEOUT_STORE_S;
	return 0;
}

static void fill_attr(const struct stat *status, uint64_t number,
		      struct attr *ret_attr)
{
	ret_attr->status = *status;
	ret_attr->status.st_ino = number;
	ret_attr->timeout_s = TIMEOUT_STORE_S;
}

int folder_inode_status(struct namespace *ns, struct inode *inode, bool nowait,
			struct attr *ret_attr)
{
	struct folder *folder = folder_of(inode);
	struct store_found found;
	struct folder_path path;
	int error;

	if (nowait && !ns->store->in_memory)
		return -EAGAIN;
	error = folder_path_init(ns, &folder->known, NULL, &path);
	if (error)
		return error;
	error = ns->store->find(ns->store, path.path, &found);
	folder_path_finish(&path);
	if (error == -ENOENT || (!error && !S_ISDIR(found.status.st_mode)))
		error = -ESTALE;
	if (!error)
		fill_attr(&found.status, inode->number, ret_attr);
	return error;
}

/* ---- mirrors ------------------------------------------------------------- */

struct mirror {
	struct known_inode known;	/* first: passed as this */
	struct folder *folder;		/* one hold; const */
};

static struct folder *mirrored(struct inode *inode)
{
	return ((struct mirror *)(void *)inode)->folder;
}

static int mirror_status(struct namespace *ns, struct inode *inode, bool nowait,
			 struct attr *ret_attr)
{
	(void)nowait;
	return folder_own_attr(ns, S_IFDIR, inode->number, ret_attr);
}

static void destroy_mirror(struct namespace *ns, struct inode *inode)
{
	folder_put(ns, mirrored(inode));
	free(inode);
}

static int mirror_lookup(struct namespace *ns, struct inode *inode,
			 const char *name, bool nowait, struct attr *ret_attr);
static int mirror_open(struct namespace *ns, struct inode *inode, bool nowait,
		       struct open_folder **ret_folder);

static const struct inode_ops mirror_ops = {
	.status = mirror_status, .lookup = mirror_lookup,
	.open_folder = mirror_open, .destroy = destroy_mirror,
};

static bool take_mirror(struct known_inode *known, const void *what)
{
	return known->base.ops == &mirror_ops &&
	       mirrored(&known->base) == what;
}

static struct known_inode *make_mirror(const void *what)
{
	struct mirror *mirror = calloc(1, sizeof(*mirror));

	if (!mirror)
		return NULL;
	mirror->known.base.ops = &mirror_ops;
	mirror->folder = (struct folder *)(uintptr_t)what;
	mirror->folder->known.holds++;
	return &mirror->known;
}

int mirror_inode_get(struct namespace *ns, struct known_inode *parent,
		     const char *name, struct folder *folder,
		     struct attr *ret_attr)
{
	const struct inode_name where = inode_name_in(parent, name);
	const struct inode_wanted wanted = { take_mirror, make_mirror, folder };
	struct known_inode *known = inode_table_get(&ns->inodes, &where,
						    &wanted);
	int error;

	if (!known)
		return -ENOMEM;
	error = folder_own_attr(ns, S_IFDIR, known->base.number, ret_attr);
	if (error)
		inode_table_forget(&ns->inodes, known->base.number, 1);
	return error;
}

/* ---- lookup -------------------------------------------------------------- */

/* Of the view, or of the link to it, the kernel gets a lookup. */
static int lookup_view(struct namespace *ns, struct folder *folder, bool mirror,
		       enum view view, struct attr *ret_attr)
{
	struct mounted *mounted = folder_mounted(ns, folder);
	int error;

	if (!mounted)
		return -ENOENT;
	error = mirror ? view_inode_attr(mounted, view, false, ret_attr) :
			 view_link_attr(mounted, view, ret_attr);
	if (!error)
		inode_table_look_up(&ns->inodes, ret_attr->status.st_ino);
	inode_table_put_mounted(&ns->inodes, mounted);
	return error;
}

/* What the store has at @name, or -ENOENT, -errno. */
static int find(struct namespace *ns, struct folder *folder, const char *name,
		struct store_found *ret_found)
{
	struct folder_path path;
	int error = folder_path_init(ns, &folder->known, name, &path);

	if (error)
		return error;
	error = ns->store->find(ns->store, path.path, ret_found);
	folder_path_finish(&path);
	return error;
}

static int lookup_folder(struct namespace *ns, struct folder *folder,
			 const char *name, const struct store_found *found,
			 struct attr *ret_attr)
{
	const struct inode_name where = inode_name_in(&folder->known, name);
	const struct inode_wanted wanted = { take_folder, make_folder, found };
	struct known_inode *known = inode_table_get(&ns->inodes, &where,
						    &wanted);

	if (!known)
		return -ENOMEM;
	fill_attr(&found->status, known->base.number, ret_attr);
	return 0;
}

/* The mirror of the folder @name of the one that @parent is a mirror of. */
static int lookup_mirror(struct namespace *ns, struct known_inode *parent,
			 const char *name, const struct store_found *found,
			 struct attr *ret_attr)
{
	const struct inode_name where =
		inode_name_in(&mirrored(&parent->base)->known, name);
	const struct inode_wanted wanted = { take_folder, make_folder, found };
	struct known_inode *folder = inode_table_get_held(&ns->inodes, &where,
							  &wanted);
	int error;

	if (!folder)
		return -ENOMEM;
	error = mirror_inode_get(ns, parent, name, (struct folder *)folder,
				 ret_attr);
	inode_table_put(&ns->inodes, folder->base.number);
	return error;
}

int folder_inode_lookup(struct namespace *ns, struct inode *inode,
			const char *name, bool nowait, struct attr *ret_attr)
{
	struct folder *folder = folder_of(inode);
	int view = view_from_name(name), error;
	struct store_found found;

	if (nowait)
		return -EAGAIN;
	revalidate(ns, folder);
	error = find(ns, folder, name, &found);
	if (error == -ENOENT && view >= 0)
		return lookup_view(ns, folder, false, (enum view)view,
				   ret_attr);
	if (error)
		return error;
	return S_ISDIR(found.status.st_mode) ?
	       lookup_folder(ns, folder, name, &found, ret_attr) :
	       stored_inode_get(ns, folder, name, &found, ret_attr);
}

static int mirror_lookup(struct namespace *ns, struct inode *inode,
			 const char *name, bool nowait, struct attr *ret_attr)
{
	struct folder *folder = mirrored(inode);
	int view = view_from_name(name), error;
	struct store_found found;

	if (nowait)
		return -EAGAIN;
	revalidate(ns, folder);
	error = find(ns, folder, name, &found);
	if (error == -ENOENT && view >= 0)
		return lookup_view(ns, folder, true, (enum view)view, ret_attr);
	if (!error && !S_ISDIR(found.status.st_mode))
		error = -ENOENT;
	return error ? error : lookup_mirror(ns, (void *)inode, name, &found,
					     ret_attr);
}

/* ---- listing ------------------------------------------------------------- */

/* What the store has; of a mirror, the folders only. */
static int add_stored(struct folder *folder, struct store_list *list,
		      bool mirror, bool seen[VIEW_COUNT],
		      struct name_list *names)
{
	size_t i;
	int error = 0, view;

	for (i = 0; i < list->count && !error; i++) {
		const struct store_entry *entry = &list->entries[i];
		mode_t type = entry->pin.mode & S_IFMT;

		if (!folder->known.parent &&
		    strcmp(entry->name, NAMESPACE_OWN) == 0)
			continue;
		view = view_from_name(entry->name);
		if (view >= 0)
			seen[view] = true;
		if (!mirror || S_ISDIR(type))
			error = name_list_add(names, entry->name, type, 0);
	}
	return error;
}

static int add_views(struct namespace *ns, struct folder *folder, bool mirror,
		     const bool seen[VIEW_COUNT], struct name_list *names)
{
	struct mounted *mounted = folder_mounted(ns, folder);
	int view, error = 0;

	for (view = 0; mounted && view < VIEW_COUNT && !error; view++) {
		mode_t type = !mirror ? S_IFLNK :
			      view == VIEW_JSON ? S_IFREG : S_IFDIR;

		if (!seen[view])
			error = name_list_add(names, view_names[view], type,
				mirror ?
				mounted_view_number(mounted, (enum view)view) :
				mounted_link_number(mounted, (enum view)view));
	}
	if (mounted)
		inode_table_put_mounted(&ns->inodes, mounted);
	return error;
}

static int read_names(struct namespace *ns, struct folder *folder, bool mirror,
		      struct store_folder *opened, struct name_list *names)
{
	bool seen[VIEW_COUNT] = { false };
	struct store_list *list;
	int error = ns->store->list(opened, false, &list);

	if (error)
		return error == -ENOENT ? -ESTALE : error;
	error = add_stored(folder, list, mirror, seen, names);
	store_list_put(list);
	return error ? error : add_views(ns, folder, mirror, seen, names);
}

static int open_names(struct namespace *ns, struct folder *folder, bool mirror,
		      struct open_folder **ret_folder)
{
	struct name_list names = { .names.size = 0 };
	struct store_folder *opened;
	int error;

	revalidate(ns, folder);
	error = folder_open(ns, folder, &opened);
	if (error)
		return error == -ENOENT ? -ESTALE : error;
	error = read_names(ns, folder, mirror, opened, &names);
	store_folder_put(opened);
	if (!error)
		return open_folder_names(&ns->opens, &names, folder_close, folder,
					 ret_folder);
	name_list_finish(&names);
	folder_close(ns, folder);
	return error;
}

int folder_inode_open(struct namespace *ns, struct inode *inode, bool nowait,
		      struct open_folder **ret_folder)
{
	return nowait ? -EAGAIN : open_names(ns, folder_of(inode), false,
					     ret_folder);
}

static int mirror_open(struct namespace *ns, struct inode *inode, bool nowait,
		       struct open_folder **ret_folder)
{
	return nowait ? -EAGAIN : open_names(ns, mirrored(inode), true,
					     ret_folder);
}
