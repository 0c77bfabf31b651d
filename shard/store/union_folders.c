/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/union_folders.h"

#include "shard/base/clock.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

/* Folders to keep. */
enum { KEPT_MAX = 4096 };

/* The last of a path. Never freed before the others: few, and shared. */
struct kept_folder {
	char *path;		/* owned */
	pthread_mutex_t lock;	/* held while the ranks are asked */
	struct union_folder *folder; /* one reference; guarded by the folders'
				      * lock, as is made_ms */
	uint64_t made_ms;
};

struct union_folders {
	struct peers *peers;	/* borrowed; const */
	struct comparer comparer;
	pthread_mutex_t lock;
	void *kept;		/* a tree of search.h; guarded by lock */
	unsigned kept_count;	/* guarded by lock */
};

static void put_folder(struct union_folder *folder)
{
	if (folder)
		store_list_put(&folder->list);
}

static struct union_folder *get_folder(struct union_folder *folder)
{
	if (folder)
		store_list_get(&folder->list);
	return folder;
}

/* ---- what is kept -------------------------------------------------------- */

static int compare_kept(const void *a, const void *b)
{
	const struct kept_folder *x = a, *y = b;

	return strcmp(x->path, y->path);
}

static struct kept_folder *find_kept_locked(struct union_folders *folders,
					    const char *path)
{
	struct kept_folder key = { .path = (char *)path }, **found;

	found = tfind(&key, &folders->kept, compare_kept);
	return found ? *found : NULL;
}

/* NULL: no more are kept, or no memory. */
static struct kept_folder *get_kept_locked(struct union_folders *folders,
					   const char *path)
{
	struct kept_folder *kept = find_kept_locked(folders, path);

	if (kept || folders->kept_count == KEPT_MAX)
		return kept;
	kept = calloc(1, sizeof(*kept));
	if (!kept)
		return NULL;
	kept->path = strdup(path);
	if (!kept->path || !tsearch(kept, &folders->kept, compare_kept)) {
		free(kept->path);
		free(kept);
		return NULL;
	}
	pthread_mutex_init(&kept->lock, NULL);
	folders->kept_count++;
	return kept;
}

static void free_kept(void *data)
{
	struct kept_folder *kept = data;

	put_folder(kept->folder);
	pthread_mutex_destroy(&kept->lock);
	free(kept->path);
	free(kept);
}

/* With one more reference; NULL: there is none yet. */
static struct union_folder *get_last(struct union_folders *folders,
				     struct kept_folder *kept,
				     uint64_t *ret_made_ms)
{
	struct union_folder *folder;

	pthread_mutex_lock(&folders->lock);
	folder = get_folder(kept->folder);
	*ret_made_ms = kept->made_ms;
	pthread_mutex_unlock(&folders->lock);
	return folder;
}

static int refresh_locked(struct union_folders *folders,
			  struct kept_folder *kept,
			  const struct union_folder *before,
			  struct union_folder **ret_folder)
{
	struct union_folder *folder, *old;
	int error = union_folder_create(folders->peers, &folders->comparer,
					kept->path, before, &folder);

	if (error)
		return error;
	pthread_mutex_lock(&folders->lock);
	old = kept->folder;
	kept->folder = get_folder(folder);
	kept->made_ms = clock_coarse_ms();
	pthread_mutex_unlock(&folders->lock);
	put_folder(old);
	*ret_folder = folder;
	return 0;
}

/* Whoever waited for the lock is served by who had it. */
static int get_fresh_locked(struct union_folders *folders,
			    struct kept_folder *kept, bool fresh,
			    uint64_t asked_ms, struct union_folder **ret_folder)
{
	uint64_t made_ms;
	struct union_folder *last = get_last(folders, kept, &made_ms);
	int error;

	if (last && (made_ms > asked_ms ||
		     (!fresh && asked_ms - made_ms < UNION_FRESH_MS))) {
		*ret_folder = last;
		return 0;
	}
	error = refresh_locked(folders, kept, last, ret_folder);
	put_folder(last);
	return error;
}

int union_folders_get(struct union_folders *folders, const char *path,
		      bool fresh, struct union_folder **ret_folder)
{
	uint64_t asked_ms = clock_coarse_ms();
	struct kept_folder *kept;
	int error = folders->peers->wait_ready(folders->peers);

	if (error)
		return error;
	pthread_mutex_lock(&folders->lock);
	kept = get_kept_locked(folders, path);
	pthread_mutex_unlock(&folders->lock);
	if (!kept)
		return union_folder_create(folders->peers, &folders->comparer,
					   path, NULL, ret_folder);
	pthread_mutex_lock(&kept->lock);
	error = get_fresh_locked(folders, kept, fresh, asked_ms, ret_folder);
	pthread_mutex_unlock(&kept->lock);
	return error;
}

int union_folders_get_open(struct union_folders *folders,
			   const struct store_folder *folder,
			   struct union_folder **ret_folder)
{
	return union_folder_create_open(folders->peers, &folders->comparer,
					folder->path, folder->fds, ret_folder);
}

int union_folders_recall(struct union_folders *folders, const char *path,
			 unsigned rank, struct array *out)
{
	struct union_folder *folder = NULL;
	struct kept_folder *kept;
	int error = -ENODATA;

	pthread_mutex_lock(&folders->lock);
	kept = find_kept_locked(folders, path);
	if (kept)
		folder = get_folder(kept->folder);
	pthread_mutex_unlock(&folders->lock);
	if (folder && rank < folder->ranks && folder->known[rank])
		error = array_append(out, folder->lists[rank].data,
				     folder->lists[rank].size);
	put_folder(folder);
	return error;
}

int union_folders_find(struct union_folders *folders, const char *path,
		       struct union_folder **folder,
		       const struct store_entry **ret_entry)
{
	const char *slash = strrchr(path, '/');
	size_t size = slash ? (size_t)(slash - path) : 0;
	char parent[LIMIT_PATH_SIZE];
	int error = 0;

	if (size >= sizeof(parent))
		return -ENAMETOOLONG;
	memcpy(parent, path, size);
	parent[size] = '\0';
	if (*folder && strcmp((*folder)->path, parent) != 0) {
		put_folder(*folder);
		*folder = NULL;
	}
	if (!*folder)
		error = union_folders_get(folders, parent, false, folder);
	if (error)
		return error;
	*ret_entry = store_list_find(&(*folder)->list,
				     slash ? slash + 1 : path);
	return *ret_entry ? 0 : -ENOENT;
}

/* ---- life ---------------------------------------------------------------- */

struct union_folders *
union_folders_create(struct peers *peers,
		     void (*say)(void *context, const char *line),
		     void *context)
{
	struct union_folders *folders = calloc(1, sizeof(*folders));

	if (!folders)
		return NULL;
	folders->peers = peers;
	comparer_init(&folders->comparer, peers, say, context);
	pthread_mutex_init(&folders->lock, NULL);
	return folders;
}

void union_folders_destroy(struct union_folders *folders)
{
	if (!folders)
		return;
	tdestroy(folders->kept, free_kept);
	comparer_finish(&folders->comparer);
	pthread_mutex_destroy(&folders->lock);
	free(folders);
}
