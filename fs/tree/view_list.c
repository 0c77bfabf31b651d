/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/view_list.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- by position --------------------------------------------------------- */

struct catalog_list {
	struct open_folder base;	/* first: passed as this */
	struct mounted *mounted;	/* one hold; const */
	enum view view;			/* const */
};

static int list_object(struct catalog_list *list, uint64_t position,
		       bool nowait, struct view_file *file)
{
	const struct catalog *catalog = list->mounted->checkpoint->catalog;
	uint64_t size, entry = catalog->tensor_count + position / 2;
	int error;

	if (position / 2 >= catalog->object_count)
		return -ENOENT;
	view_whole(catalog, VIEW_OBJECTS, entry, position % 2, file);
	if (!file->json)
		return 0;
	error = mounted_object_size(list->mounted, file, nowait, &size);
	/* Not plain data: the entry is left out, see next_file. */
	return error == -ENOENT ? -EOPNOTSUPP : error;
}

static int list_file(struct catalog_list *list, uint64_t position, bool nowait,
		     struct listed *listed)
{
	struct mounted *mounted = list->mounted;
	const struct catalog *catalog = mounted->checkpoint->catalog;
	struct view_file file;
	int error = 0;

	if (list->view == VIEW_OBJECTS)
		error = list_object(list, position, nowait, &file);
	else if (position >= catalog->tensor_count)
		error = -ENOENT;
	else if (!view_lists(catalog, list->view, position))
		error = -EOPNOTSUPP;
	else
		view_whole(catalog, list->view, position, false, &file);
	if (!error)
		error = mounted_file_status(mounted, &file, nowait,
					    &listed->status);
	if (error)
		return error;
	view_print(catalog, &file, listed->name);
	listed->number = mounted_file_number(mounted, &file);
	listed->status.st_ino = listed->number;
	listed->type = S_IFREG;
	listed->has_status = true;
	listed->next = position + 1;
	return 0;
}

static int next_file(struct open_folder *folder, uint64_t position, bool nowait,
		     struct listed *ret_listed)
{
	struct catalog_list *list = (struct catalog_list *)folder;
	int error;

	do
		error = list_file(list, position++, nowait, ret_listed);
	while (error == -EOPNOTSUPP);
	return error;
}

static void close_list(struct open_folder *folder)
{
	struct catalog_list *list = (struct catalog_list *)folder;

	inode_table_put_mounted(&folder->table->ns->inodes, list->mounted);
	free(list);
}

static const struct open_folder_ops catalog_ops = {
	.next = next_file, .close = close_list,
};

static int open_catalog(struct namespace *ns, struct mounted *mounted,
			enum view view, struct open_folder **ret_folder)
{
	struct catalog_list *list = calloc(1, sizeof(*list));

	if (!list)
		return -ENOMEM;
	list->mounted = mounted;
	list->view = view;
	list->base.immutable = true;
	pthread_mutex_lock(&ns->inodes.lock);
	mounted->holds++;
	pthread_mutex_unlock(&ns->inodes.lock);
	open_folder_init(&list->base, &ns->opens, &catalog_ops);
	*ret_folder = &list->base;
	return 0;
}

/* ---- hf/ ----------------------------------------------------------------- */

const char view_hf_name[] = "model.safetensors";

bool view_hf_shows(const char *name)
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

/* What the folder of assets has: also what a link leads to. */
static int add_assets(const struct namespace *ns, struct name_list *names)
{
	int fd = openat(ns->assets, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat status;
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
		if (view_hf_shows(entry->d_name) &&
		    fstatat(ns->assets, entry->d_name, &status, 0) == 0 &&
		    S_ISREG(status.st_mode))
			error = name_list_add(names, entry->d_name, S_IFREG, 0);
	}
	closedir(stream);
	return error;
}

/* What the folder of the checkpoint has. */
static int add_stored(struct store_folder *folder, struct name_list *names)
{
	struct store *store = folder->store;
	struct store_list *list;
	struct store_found found;
	size_t i;
	int error = store->list(folder, false, &list);

	if (error)
		return error;
	for (i = 0; !error && i < list->count; i++) {
		const struct store_entry *entry = &list->entries[i];
		mode_t type = entry->pin.mode & S_IFMT;

		if (!view_hf_shows(entry->name) ||
		    name_list_has(names, entry->name))
			continue;
		if (!type &&
		    store->find(store, store_path_in(folder, entry->name),
				&found) == 0)
			type = found.status.st_mode & S_IFMT;
		if (type == S_IFREG)
			error = name_list_add(names, entry->name, type, 0);
	}
	store_list_put(list);
	return error;
}

static int list_hf(struct namespace *ns, const struct mounted *mounted,
		   struct name_list *names)
{
	const struct checkpoint *checkpoint = mounted->checkpoint;
	struct view_group group;
	int error = 0;

	if (view_group_root(checkpoint->catalog, ns->hf_root, &group))
		error = name_list_add(names, view_hf_name, S_IFREG, 0);
	if (!error && ns->assets >= 0)
		error = add_assets(ns, names);
	return error ? error : add_stored(checkpoint->folder, names);
}

/* ---- safetensors/ --------------------------------------------------------- */

static int list_groups(struct mounted *mounted, struct name_list *names)
{
	const struct catalog *catalog = mounted->checkpoint->catalog;
	struct view_file file = { .view = VIEW_SAFETENSORS, .grouped = true };
	const struct array *groups;
	char name[NAME_MAX + 1];
	size_t i;
	int error = mounted_groups(mounted, &groups);

	for (i = 0; !error && i < groups->size / sizeof(file.group); i++) {
		file.group = ((struct view_group *)(void *)groups->data)[i];
		view_print(catalog, &file, name);
		error = name_list_add(names, name, S_IFREG, 0);
	}
	return error;
}

/* ---- all ----------------------------------------------------------------- */

int view_list_open(struct namespace *ns, const struct view_inode *inode,
		   bool nowait, struct open_folder **ret_folder)
{
	struct mounted *mounted = inode->mounted;
	struct name_list names = { .names.size = 0 };
	enum view view = mounted_view(inode);
	int error;

	if (atomic_load(&mounted->retired))
		return -ESTALE;
	if (view != VIEW_HF && view != VIEW_SAFETENSORS)
		return open_catalog(ns, mounted, view, ret_folder);
	if (view == VIEW_HF && nowait)
		return -EAGAIN;
	error = view == VIEW_HF ? list_hf(ns, mounted, &names) :
				  list_groups(mounted, &names);
	if (!error)
		return open_folder_names(&ns->opens, &names, NULL, NULL, ret_folder);
	name_list_finish(&names);
	return error;
}
