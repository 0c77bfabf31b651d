/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/folder_store.h"

#include "shard/store/local_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct folder_store {
	struct store base;		/* first: passed as this */
	int fd;				/* owned; const */
	_Atomic uint64_t hidden;	/* a device; 0: none */
};

static struct folder_store *from_store(struct store *store)
{
	return (struct folder_store *)store;
}

static const char *here(const char *path)
{
	return *path ? path : ".";
}

static bool is_hidden(const struct folder_store *s, const struct stat *status)
{
	uint64_t device = atomic_load(&s->hidden);

	return device && status->st_dev == device;
}

/* ---- what is at a path --------------------------------------------------- */

static int start_of(const struct folder_store *s, struct store_path path)
{
	return path.at ? path.at->fds[0] : s->fd;
}

static int get_status(struct store *store, struct store_path path,
		      unsigned owner, struct stat *ret_status)
{
	struct folder_store *s = from_store(store);
	struct io_parent parent;
	int error = io_open_parent(start_of(s, path), path.text, &parent);

	(void)owner;
	if (error)
		return error;
	error = fstatat(parent.fd, parent.name, ret_status,
			AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
	io_close_parent(&parent);
	return !error && is_hidden(s, ret_status) ? -ENOENT : error;
}

static int find(struct store *store, struct store_path path,
		struct store_found *ret_found)
{
	ret_found->owner = 0;
	return get_status(store, path, 0, &ret_found->status);
}

static int get_link(struct store *store, struct store_path path,
		    struct array *out)
{
	char target[LIMIT_PATH_SIZE];
	struct io_parent parent;
	ssize_t size;
	int error = io_open_parent(start_of(from_store(store), path),
				   path.text, &parent);

	if (error)
		return error;
	size = readlinkat(parent.fd, parent.name, target, sizeof(target));
	if (size < 0 || size == sizeof(target))
		error = size < 0 ? -errno : -ENAMETOOLONG;
	io_close_parent(&parent);
	if (!error)
		error = array_append(out, target, (size_t)size);
	return error ? error : array_append(out, "", 1);
}

static int open_path(struct store *store, struct store_path path,
		     struct stored_file **ret_file)
{
	struct folder_store *s = from_store(store);
	struct local_opened opened = { .folder = s->fd };
	char whole[LIMIT_PATH_SIZE];
	struct io_parent parent;
	int error = store_path_whole(path, whole);

	if (!error)
		error = io_open_parent(start_of(s, path), path.text, &parent);
	if (error)
		return error;
	error = io_open(parent.fd, parent.name, &opened.fd, &opened.status);
	io_close_parent(&parent);
	opened.path = whole;
	return error ? error : local_file_create(&opened, ret_file);
}

static int get_statfs(struct store *store, struct statvfs *ret_status)
{
	return fstatvfs(from_store(store)->fd, ret_status) < 0 ? -errno : 0;
}

static void hide(struct store *store, uint64_t device)
{
	atomic_store(&from_store(store)->hidden, device);
}

/* ---- folders ------------------------------------------------------------- */

static int open_folder(struct store *store, struct store_path path,
		       struct store_folder **ret_folder)
{
	int start = start_of(from_store(store), path);
	char whole[LIMIT_PATH_SIZE];
	struct store_folder *folder = NULL;
	int error = store_path_whole(path, whole);

	if (!error) {
		folder = store_folder_create(store, whole);
		error = folder ? io_open_folder(start, here(path.text),
						&folder->fds[0]) : -ENOMEM;
	}
	if (error)
		store_folder_put(folder);
	else
		*ret_folder = folder;
	return error;
}

static void destroy_list(struct store_list *list)
{
	free(list->entries);
	free(list->names);
	free(list);
}

/* Its type; 0: not known. False: not to be listed. */
static bool find_type(const struct folder_store *s, int folder,
		      const struct dirent *entry, mode_t *ret_type)
{
	bool known = entry->d_type != DT_UNKNOWN;
	struct stat status;

	*ret_type = known ? DTTOIF(entry->d_type) : 0;
	if (known && (!atomic_load(&s->hidden) || !S_ISDIR(*ret_type)))
		return true;
	if (fstatat(folder, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return true;
	*ret_type = status.st_mode & S_IFMT;
	return !is_hidden(s, &status);
}

/* Names one behind the other, and an entry for each, whose name is an offset
 * as yet. */
static int read_names(const struct folder_store *s, DIR *stream,
		      struct array *names, struct array *entries)
{
	struct dirent *entry;
	mode_t type;
	int error = 0;

	while (!error) {
		struct store_entry made = { .target = "" };

		errno = 0;
		entry = readdir(stream);
		if (!entry)
			return -errno;
		if (strcmp(entry->d_name, ".") == 0 ||
		    strcmp(entry->d_name, "..") == 0 ||
		    !find_type(s, dirfd(stream), entry, &type))
			continue;
		made.name = (const char *)(uintptr_t)names->size;
		made.pin.mode = type;
		error = array_append(names, entry->d_name,
				     strlen(entry->d_name) + 1);
		if (!error)
			error = array_append(entries, &made, sizeof(made));
	}
	return error;
}

static int compare_entries(const void *a, const void *b)
{
	const struct store_entry *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/* Takes both over. NULL: no memory. */
static struct store_list *make_list(struct array *names, struct array *entries)
{
	struct store_list *list = calloc(1, sizeof(*list));
	size_t i;

	if (!list)
		return NULL;
	list->references = 1;
	list->destroy = destroy_list;
	list->names = (char *)names->data;
	list->entries = (void *)entries->data;
	list->count = entries->size / sizeof(*list->entries);
	*names = *entries = (struct array){ .data = NULL };
	for (i = 0; i < list->count; i++)
		list->entries[i].name =
			list->names + (uintptr_t)list->entries[i].name;
	if (list->count > 1)
		qsort(list->entries, list->count, sizeof(*list->entries),
		      compare_entries);
	return list;
}

static int list(struct store_folder *folder, bool fresh,
		struct store_list **ret_list)
{
	struct array names = { .data = NULL }, entries = { .data = NULL };
	int fd = openat(folder->fds[0], ".",
			O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	int error;

	(void)fresh;
	if (!stream) {
		error = -errno;
		if (fd >= 0)
			close(fd);
		return error;
	}
	error = read_names(from_store(folder->store), stream, &names,
			   &entries);
	closedir(stream);
	if (!error) {
		*ret_list = make_list(&names, &entries);
		error = *ret_list ? 0 : -ENOMEM;
	}
	array_finish(&names);
	array_finish(&entries);
	return error;
}

/* ---- for checkpoints ----------------------------------------------------- */

static int resolve(struct store_folder *folder, const char *name,
		   struct replica *ret_owner)
{
	struct stat status;
	int error = io_stat(folder->fds[0], name, &status);

	if (!error)
		*ret_owner = (struct replica){ .pin = pin_from_stat(&status) };
	return error;
}

static int open_in(struct store_folder *folder, const char *name,
		   struct stored_file **ret_file)
{
	struct local_opened opened = {
		.folder = from_store(folder->store)->fd,
	};
	char path[LIMIT_PATH_SIZE];
	int error = store_join(folder->path, name, path);

	if (!error)
		error = io_open(folder->fds[0], name, &opened.fd,
				&opened.status);
	opened.path = path;
	return error ? error : local_file_create(&opened, ret_file);
}

static int place(struct store_folder *folder, const struct catalog *catalog,
		 struct placement **ret_placement, uint64_t *ret_bad)
{
	struct placement *p = placement_create(1, catalog->file_count,
					       catalog->file_count);
	uint64_t i;
	int error = p ? 0 : -ENOMEM;

	if (!error) {
		p->folders[0] = fcntl(folder->fds[0], F_DUPFD_CLOEXEC, 0);
		error = p->folders[0] < 0 ? -errno : 0;
	}
	for (i = 0; i < catalog->file_count && !error; i++) {
		const char *path = catalog_text(catalog,
			catalog_file(catalog, i)->path);

		p->files[i].first = i;
		error = resolve(folder, path, &p->replicas[i]);
		p->files[i].count = !error;
		*ret_bad = i;
		if (io_is_missing(error)) {
			p->files[i].error = error;
			error = 0;
		}
	}
	if (error)
		placement_destroy(p);
	else
		*ret_placement = p;
	return error;
}

/* ---- nobody else --------------------------------------------------------- */

static bool is_builder(struct store *store)
{
	(void)store;
	return true;
}

static int get_catalog(struct store *store, const struct catalog_wanted *wanted,
		       struct catalog **ret_catalog)
{
	(void)store;
	(void)wanted;
	(void)ret_catalog;
	return -ENODATA;
}

static struct source *wrap_source(struct store *store,
				  const struct shard_files *files,
				  struct source *below)
{
	(void)store;
	(void)files;
	return below;
}

static void destroy(struct store *store)
{
	close(from_store(store)->fd);
	free(store);
}

struct store *folder_store_create(int fd)
{
	struct folder_store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->fd = fd;
	s->base = (struct store){
		.ranks = 1, .in_memory = io_is_in_memory(fd),
		.find = find, .status = get_status, .link = get_link,
		.open = open_path, .statfs = get_statfs, .hide = hide,
		.open_folder = open_folder, .list = list, .resolve = resolve,
		.open_in = open_in, .place = place, .is_builder = is_builder,
		.get_catalog = get_catalog, .wrap_source = wrap_source,
		.destroy = destroy,
	};
	return &s->base;
}
