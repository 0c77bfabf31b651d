/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/union_store.h"

#include "shard/base/clock.h"
#include "shard/store/folder_records.h"
#include "shard/store/local_file.h"
#include "shard/store/remote_file.h"
#include "shard/store/replica_file.h"
#include "shard/store/union_folders.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct union_store {
	struct store base;		/* first: passed as this */
	struct peers *peers;		/* borrowed; const */
	struct union_folders *folders;	/* owned; const */
};

static struct union_store *from_store(struct store *store)
{
	return (struct union_store *)store;
}

static void put_folder(struct union_folder *folder)
{
	if (folder)
		store_list_put(&folder->list);
}

static int own_store(const struct union_store *s)
{
	return s->peers->stores[s->peers->rank];
}

/* ---- what is at a path --------------------------------------------------- */

/* Open the folder @path of the folders @from, where they are open. */
static void open_fds(const struct union_store *s, const int *from,
		     const char *path, int *fds)
{
	unsigned i;

	for (i = 0; i < s->base.ranks; i++)
		if (from[i] >= 0 &&
		    io_open_folder(from[i], *path ? path : ".", &fds[i]) < 0)
			fds[i] = -1;
}

/*
 * Has @folder lost its name? On this host it is told from what has the name now.
 * Then what its descriptors lead to is all that there is of it.
 */
static bool has_moved(const struct union_store *s,
		      const struct store_folder *folder)
{
	struct stat status, now;
	unsigned i;

	for (i = 0; i < s->base.ranks; i++)
		if (folder->fds[i] >= 0 && fstat(folder->fds[i], &now) == 0 &&
		    (fstatat(s->peers->stores[i],
			     *folder->path ? folder->path : ".", &status,
			     0) < 0 ||
		     !store_folder_is(folder, i, &status)))
			return true;
	return false;
}

/* As old as what is known of the folder may be. */
static bool is_moved(const struct union_store *s, struct store_folder *folder)
{
	uint64_t now_ms = clock_coarse_ms();

	if (!folder)
		return false;
	if (now_ms - atomic_load(&folder->looked_ms) >= UNION_FRESH_MS) {
		atomic_store(&folder->looked_ms, now_ms);
		atomic_store(&folder->moved, has_moved(s, folder));
	}
	return atomic_load(&folder->moved);
}

/* An entry, with what has to be let go. */
struct found_entry {
	struct union_folder *folder;	/* one reference; NULL: none */
	struct store_folder *in;	/* one reference; NULL: found by its
					 * name, else by these descriptors */
	const struct store_entry *entry;
	char path[LIMIT_PATH_SIZE];	/* from the top */
};

static void finish_found(struct found_entry *found)
{
	put_folder(found->folder);
	store_folder_put(found->in);
}

static int find_moved(struct union_store *s, struct store_path path,
		      struct found_entry *found)
{
	const char *slash = strrchr(path.text, '/');
	const char *name = slash ? slash + 1 : path.text;
	char folder[LIMIT_PATH_SIZE];
	int error;

	memcpy(folder, path.text, (size_t)(name - path.text));
	folder[name - path.text] = '\0';
	found->in = store_folder_create(&s->base, path.at->path);
	if (!found->in)
		return -ENOMEM;
	open_fds(s, path.at->fds, folder, found->in->fds);
	error = union_folders_get_open(s->folders, found->in, &found->folder);
	if (error)
		return error;
	found->entry = store_list_find(&found->folder->list, name);
	return found->entry ? 0 : -ENOENT;
}

/* @path is not "". The caller calls finish_found in any case. */
static int find_entry(struct union_store *s, struct store_path path,
		      struct found_entry *found)
{
	int error = store_path_whole(path, found->path);

	found->folder = NULL;
	found->in = NULL;
	if (error)
		return error;
	return is_moved(s, path.at) ? find_moved(s, path, found) :
	       union_folders_find(s->folders, found->path, &found->folder,
				  &found->entry);
}

/* Of the folder that a path starts at, each rank shows its own if it can. */
static int find_start(struct union_store *s, struct store_folder *at,
		      struct store_found *ret_found)
{
	const int *fds = at ? at->fds : s->peers->stores;
	unsigned rank = s->peers->rank, i;

	for (i = 0; fds[rank] < 0 && i < s->base.ranks; i++)
		rank = i;
	if (fds[rank] < 0)
		return -ENOENT;
	ret_found->owner = rank;
	return fstat(fds[rank], &ret_found->status) < 0 ? -errno : 0;
}

static int find(struct store *store, struct store_path path,
		struct store_found *ret_found)
{
	struct union_store *s = from_store(store);
	struct found_entry found;
	int error;

	if (!*path.text && (!path.at || is_moved(s, path.at)))
		return find_start(s, path.at, ret_found);
	if (!*path.text)
		path = store_path_in(NULL, path.at->path);
	error = find_entry(s, path, &found);
	if (!error) {
		pin_status(&found.entry->pin, &ret_found->status);
		ret_found->owner = found.entry->owner;
	}
	finish_found(&found);
	return error;
}

/* What one rank has, as it is now. */
static int ask_status(struct union_store *s, struct store_path path,
		      unsigned rank, struct pin *ret_pin)
{
	int start = path.at && path.at->fds[rank] >= 0 ? path.at->fds[rank] :
							  -1;
	struct array record = { .data = NULL };
	char whole[LIMIT_PATH_SIZE];
	struct stored stored;
	size_t position = 0;
	int error = store_path_whole(path, whole);

	if (error)
		return error;
	if (s->peers->stores[rank] < 0)
		return remote_file_status(s->peers, rank, whole, ret_pin);
	error = start >= 0 ? folder_records_status(start, path.text, &record) :
		folder_records_status(s->peers->stores[rank], whole, &record);
	if (!error && !stored_entry_next(record.data, record.size, &position,
					 &stored))
		error = -EIO;
	if (!error)
		*ret_pin = stored.entry.pin;
	array_finish(&record);
	return error;
}

static int get_status(struct store *store, struct store_path path,
		      unsigned owner, struct stat *ret_status)
{
	struct union_store *s = from_store(store);
	struct store_found start;
	struct pin pin;
	int error;

	if (!*path.text && !path.at) {
		error = find_start(s, NULL, &start);
		*ret_status = start.status;
		return error;
	}
	error = ask_status(s, path, owner, &pin);
	if (!error)
		pin_status(&pin, ret_status);
	return error;
}

static int get_link(struct store *store, struct store_path path,
		    struct array *out)
{
	struct found_entry found;
	int error = find_entry(from_store(store), path, &found);

	if (!error && !S_ISLNK(found.entry->pin.mode))
		error = -EINVAL;
	if (!error)
		error = array_append(out, found.entry->target,
				     strlen(found.entry->target) + 1);
	finish_found(&found);
	return error;
}

/* ---- files --------------------------------------------------------------- */

/* The nearest copy of @found that lives. */
static int open_entry(struct union_store *s, const struct found_entry *found,
		      struct stored_file **ret_file)
{
	const struct store_entry *entry = found->entry;
	const struct replica_opening opening = {
		.peers = s->peers, .path = found->path, .folder = found->in,
		.name = entry->name, .pin = entry->pin,
		.replicas = entry->replicas, .count = entry->replica_count,
	};

	return entry->replica_count == 0 ? -EINVAL :
	       replica_file_open(&opening, ret_file);
}

/* A file that may be growing: as it is now, of whose it is. */
static int open_owned(struct union_store *s, const struct found_entry *found,
		      struct stored_file **ret_file)
{
	unsigned owner = found->entry->owner;
	struct local_opened opened = {
		.rank = owner, .path = found->path,
		.folder = s->peers->stores[owner],
	};
	int error;

	if (opened.folder < 0)
		return remote_file_open(s->peers, owner, found->path, NULL,
					ret_file);
	error = folder_records_open(opened.folder, found->path, &opened.fd,
				    &opened.status);
	return error ? error : local_file_create(&opened, ret_file);
}

static int open_path(struct store *store, struct store_path path,
		     struct stored_file **ret_file)
{
	struct union_store *s = from_store(store);
	struct found_entry found;
	int error = find_entry(s, path, &found);
	bool many;

	if (!error && !S_ISREG(found.entry->pin.mode))
		error = -EINVAL;
	if (!error) {
		many = found.in || found.entry->replica_count > 1;
		error = many ? open_entry(s, &found, ret_file) : -ESTALE;
		/* What is known of it may be of some time ago. */
		if (error == -ESTALE && !found.in)
			error = open_owned(s, &found, ret_file);
	}
	finish_found(&found);
	return error;
}

static int get_statfs(struct store *store, struct statvfs *ret_status)
{
	return fstatvfs(own_store(from_store(store)), ret_status) < 0 ?
	       -errno : 0;
}

/* Mounts of FUSE are left out anyway. */
static void hide(struct store *store, uint64_t device)
{
	(void)store;
	(void)device;
}

/* ---- folders ------------------------------------------------------------- */

static int open_folder(struct store *store, struct store_path path,
		       struct store_folder **ret_folder)
{
	struct union_store *s = from_store(store);
	char whole[LIMIT_PATH_SIZE];
	struct store_folder *folder;
	int error = s->peers->wait_ready(s->peers);

	if (!error)
		error = store_path_whole(path, whole);
	if (error)
		return error;
	folder = store_folder_create(store, whole);
	if (!folder)
		return -ENOMEM;
	if (is_moved(s, path.at))
		open_fds(s, path.at->fds, path.text, folder->fds);
	else
		open_fds(s, s->peers->stores, whole, folder->fds);
	atomic_store(&folder->moved, is_moved(s, path.at));
	atomic_store(&folder->looked_ms, clock_coarse_ms());
	*ret_folder = folder;
	return 0;
}

static int list(struct store_folder *folder, bool fresh,
		struct store_list **ret_list)
{
	struct union_store *s = from_store(folder->store);
	struct union_folder *found;
	int error = is_moved(s, folder) ?
		    union_folders_get_open(s->folders, folder, &found) :
		    union_folders_get(s->folders, folder->path, fresh, &found);

	if (error)
		return error;
	if (!found->found) {
		put_folder(found);
		return -ENOENT;
	}
	*ret_list = &found->list;
	return 0;
}

/* ---- for checkpoints ----------------------------------------------------- */

/* What a link of a snapshot in Hugging Face's cache leads to: see io_open. */
static int follow(struct store_folder *folder, struct found_entry *found)
{
	char above[LIMIT_PATH_SIZE], path[LIMIT_PATH_SIZE];
	const char *target = found->entry->target;
	char *end;
	unsigned up;

	if (found->in || !io_is_blob_target(target))
		return -EINVAL;
	if (store_join("", folder->path, above))
		return -ENAMETOOLONG;
	for (up = 0; up < 2; up++) {
		if (!*above)
			return -EXDEV;
		end = strrchr(above, '/');
		*(end ? end : above) = '\0';
	}
	if (store_join(above, target + strlen("../../"), path))
		return -ENAMETOOLONG;
	finish_found(found);
	return find_entry(from_store(folder->store), store_path_in(NULL, path),
			  found);
}

/* A regular file of @folder. The caller calls finish_found in any case. */
static int find_file(struct store_folder *folder, const char *name,
		     struct found_entry *found)
{
	int error = find_entry(from_store(folder->store),
			       store_path_in(folder, name), found);
	bool below = strchr(name, '/');

	if (!error && S_ISLNK(found->entry->pin.mode) && !below)
		error = follow(folder, found);
	else if (!error && !found->in && !below)
		found->in = store_folder_get(folder);
	return !error && !S_ISREG(found->entry->pin.mode) ? -EINVAL : error;
}

static int resolve(struct store_folder *folder, const char *name,
		   struct replica *ret_owner)
{
	struct found_entry found;
	int error = find_file(folder, name, &found);

	if (!error)
		*ret_owner = (struct replica){ found.entry->owner,
					       found.entry->pin };
	finish_found(&found);
	return error;
}

static int open_in(struct store_folder *folder, const char *name,
		   struct stored_file **ret_file)
{
	struct found_entry found;
	int error = find_file(folder, name, &found);

	if (!error)
		error = open_entry(from_store(folder->store), &found, ret_file);
	finish_found(&found);
	return error;
}

/* Where the files of a catalog are, as they are found one by one. */
struct placing {
	struct store_folder *folder;
	const struct catalog *catalog;
	struct array replicas;		/* struct replica */
	struct placement *placement;	/* whose replicas are not there yet */
};

static int place_file(struct placing *placing, uint64_t index)
{
	const struct catalog *catalog = placing->catalog;
	const char *path = catalog_text(catalog,
					catalog_file(catalog, index)->path);
	struct placed_file *file = &placing->placement->files[index];
	struct found_entry found;
	int error = find_file(placing->folder, path, &found);

	file->first = placing->replicas.size / sizeof(struct replica);
	if (io_is_missing(error)) {
		file->error = error;
		error = 0;
	} else if (!error) {
		file->count = found.entry->replica_count;
		placing->placement->owners[index] = found.entry->owner;
		file->has_own = found.entry->has_own;
		error = array_append(&placing->replicas, found.entry->replicas,
				     (file->count + file->has_own) *
					     sizeof(struct replica));
	}
	finish_found(&found);
	return error;
}

static int place(struct store_folder *folder, const struct catalog *catalog,
		 struct placement **ret_placement, uint64_t *ret_bad)
{
	struct union_store *s = from_store(folder->store);
	struct placing placing = {
		.folder = folder, .catalog = catalog,
		.placement = placement_create(s->base.ranks,
					      catalog->file_count, 0),
	};
	uint64_t i;
	int error = placing.placement ? 0 : -ENOMEM;

	for (i = 0; i < catalog->file_count && !error; i++) {
		error = place_file(&placing, i);
		*ret_bad = i;
	}
	if (error) {
		array_finish(&placing.replicas);
		placement_destroy(placing.placement);
		return error;
	}
	if (placing.replicas.data) {
		free(placing.placement->replicas);
		placing.placement->replicas = (void *)placing.replicas.data;
	}
	open_fds(s, folder->fds, "", placing.placement->folders);
	*ret_placement = placing.placement;
	return 0;
}

static bool is_builder(struct store *store)
{
	struct peers *peers = from_store(store)->peers;

	return peers->is_builder(peers);
}

static int get_catalog(struct store *store, const struct catalog_wanted *wanted,
		       struct catalog **ret_catalog)
{
	struct peers *peers = from_store(store)->peers;

	if (!wanted->kept && peers->is_builder(peers))
		return -ENODATA;
	return peers->catalog(peers, wanted, ret_catalog);
}

static struct source *wrap_source(struct store *store,
				  const struct shard_files *files,
				  struct source *below)
{
	struct peers *peers = from_store(store)->peers;

	return peers->source(peers, files, below);
}

/* ---- life ---------------------------------------------------------------- */

static void destroy(struct store *store)
{
	struct union_store *s = from_store(store);

	union_folders_destroy(s->folders);
	free(s);
}

struct store *union_store_create(struct peers *peers,
				 void (*say)(void *context, const char *line),
				 void *context)
{
	struct union_store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->peers = peers;
	s->base = (struct store){
		.rank = peers->rank, .ranks = peers->count,
		.find = find, .status = get_status, .link = get_link,
		.open = open_path, .statfs = get_statfs, .hide = hide,
		.open_folder = open_folder, .list = list, .resolve = resolve,
		.open_in = open_in, .place = place, .is_builder = is_builder,
		.get_catalog = get_catalog, .wrap_source = wrap_source,
		.destroy = destroy,
	};
	s->folders = union_folders_create(peers, say, context);
	if (s->folders)
		return &s->base;
	free(s);
	return NULL;
}

int union_store_recall(struct store *store, const char *path, unsigned rank,
		       struct array *out)
{
	return union_folders_recall(from_store(store)->folders, path, rank,
				    out);
}
