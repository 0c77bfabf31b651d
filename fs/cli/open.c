/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/tool.h"

#include "fs/cli/internal.h"
#include "shard/store/folder_store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where to look for checkpoints below a folder that is none: so deep, so many
 * entries of each folder; and so many are named. */
enum { SEARCH_DEPTH = 3, SEARCH_ENTRIES = 10000, SEARCH_NAMES = 4 };

/* For all that is opened in this process: folders are few. */
enum { STORES_MAX = 4 };
static struct decoded_cache *cache;
static uint64_t cache_size = GIB;
static struct store *stores[STORES_MAX];
static unsigned store_count;

void open_set_cache_size(uint64_t size)
{
	cache_size = size;
}

void open_finish(void)
{
	decoded_cache_destroy(cache);
	cache = NULL;
	while (store_count > 0) {
		struct store *store = stores[--store_count];

		store->destroy(store);
	}
}

/* ---- where there is no marker -------------------------------------------- */

struct marker_search {
	struct array found;	/* paths, printable, ", " between them */
	unsigned count;
	unsigned entries;	/* looked at */
	bool shards;		/* the folder itself has files of shards, */
	bool leftover;		/* and metadata under its temporary name */
};

static bool has_suffix(const char *name, const char *suffix)
{
	size_t size = strlen(name), end = strlen(suffix);

	return size >= end && strcmp(name + size - end, suffix) == 0;
}

static bool is_checkpoint(struct store_folder *folder)
{
	struct metadata_files markers;
	bool found = metadata_files_read(folder, NULL, &markers) == 0;

	if (found)
		metadata_files_finish(&markers);
	return found;
}

static void search_folder(struct marker_search *search,
			  struct store_folder *folder, unsigned depth);

/* The folder @path of the one that is searched. */
static void search_path(struct marker_search *search, struct store *store,
			const char *path, unsigned depth)
{
	struct store_folder *folder;

	if (store->open_folder(store, store_path_in(NULL, path), &folder))
		return;
	if (is_checkpoint(folder)) {
		if (search->count++ > 0)
			tool_print(&search->found, ", ");
		tool_print_text(path, strlen(path), &search->found);
	} else if (depth < SEARCH_DEPTH) {
		search_folder(search, folder, depth);
	}
	store_folder_put(folder);
}

static void search_entry(struct marker_search *search,
			 struct store_folder *folder,
			 const struct store_entry *entry, unsigned depth)
{
	char path[LIMIT_PATH_SIZE];
	mode_t type = entry->pin.mode & S_IFMT;

	if (depth == 0 && has_suffix(entry->name, ".distcp"))
		search->shards = true;
	if (depth == 0 && strcmp(entry->name, ".metadata.tmp") == 0)
		search->leftover = true;
	if (entry->name[0] != '.' && (!type || S_ISDIR(type)) &&
	    store_join(folder->path, entry->name, path) == 0)
		search_path(search, folder->store, path, depth + 1);
}

/* In the order of people: step-9 is before step-10. */
static int compare_versions(const void *a, const void *b)
{
	const struct store_entry *const *x = a, *const *y = b;

	return strverscmp((*x)->name, (*y)->name);
}

static void search_folder(struct marker_search *search,
			  struct store_folder *folder, unsigned depth)
{
	const struct store_entry **entries = NULL;
	struct store_list *list;
	size_t i;

	if (folder->store->list(folder, true, &list))
		return;
	entries = calloc(list->count + 1, sizeof(*entries));
	for (i = 0; entries && i < list->count; i++)
		entries[i] = &list->entries[i];
	if (entries)
		qsort(entries, list->count, sizeof(*entries),
		      compare_versions);
	for (i = 0; entries && i < list->count; i++)
		if (search->count < SEARCH_NAMES &&
		    search->entries++ < SEARCH_ENTRIES)
			search_entry(search, folder, entries[i], depth);
	free(entries);
	store_list_put(list);
}

/* Say why @path is no checkpoint. */
static int explain_absence(const struct tool *tool, const char *path,
			   struct store *store)
{
	struct marker_search search = { .count = 0 };
	struct store_folder *folder;
	int error = -ENOENT;

	if (store->open_folder(store, store_path_in(NULL, ""), &folder) == 0) {
		search_folder(&search, folder, 0);
		store_folder_put(folder);
	}
	if (search.shards) {
		error = -EINPROGRESS;
		tool_fail(tool, "%s: there are shards, but no .metadata: it is being written, or its save was interrupted%s",
			  path, search.leftover ?
			  "; .metadata.tmp may be what is missing" : "");
	} else if (search.count > 0 && search.found.data) {
		tool_fail(tool, "%s: is no checkpoint, but there are some below it: %s%s",
			  path, search.found.data,
			  search.count == SEARCH_NAMES ? ", ..." : "");
	} else {
		tool_fail(tool, "%s: there is no checkpoint here", path);
	}
	array_finish(&search.found);
	return error;
}

/* ---- opening ------------------------------------------------------------- */

/* What a path on the command line means. */
struct named_checkpoint {
	int folder;		/* owned until there is a store of it */
	char *file;		/* owned; the one that counts, or NULL */
};

static int find_named(const char *path, struct named_checkpoint *ret)
{
	struct stat status;
	char *real, *copy;
	int error;

	ret->file = NULL;
	ret->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ret->folder >= 0)
		return 0;
	if (errno != ENOTDIR)
		return -errno;
	if (stat(path, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode))
		return -ENOTDIR;
	/* A link may lead elsewhere, and no link out of its folder is
	 * followed when a checkpoint is read. */
	real = realpath(path, NULL);
	if (!real)
		return -errno;
	copy = strdup(basename(real));
	ret->folder = copy ? open(dirname(real), O_RDONLY | O_DIRECTORY |
					O_CLOEXEC) : -1;
	error = copy ? errno : ENOMEM;
	free(real);
	ret->file = copy;
	if (ret->folder >= 0)
		return 0;
	free(copy);
	return -error;
}

static void explain(const struct tool *tool, const char *path,
		    const struct named_checkpoint *named,
		    const struct checkpoint_report *report, int error)
{
	const char *slash = has_suffix(path, "/") ? "" : "/";
	const struct fault *fault = &report->fault;
	unsigned i;

	for (i = 0; i < report->notes.count; i++)
		tool_fail(tool, "%s: %s", path, report->notes.line[i]);
	if (report->notes.dropped)
		tool_fail(tool, "%s: %u more like these", path,
			  report->notes.dropped);
	if (!error)
		return;
	if (error == -ESTALE)
		tool_fail(tool, "%s: it changes while it is read", path);
	else if (!*report->file)
		tool_fail(tool, "%s: %s", path, fault->reason ?
			  fault->reason : strerror(-error));
	else
		tool_fail(tool, "%s%s%s: byte %" PRIu64 ": %s%s%s", path,
			  named->file ? "" : slash,
			  named->file ? "" : report->file, fault->offset,
			  fault->reason ? fault->reason : strerror(-error),
			  *fault->detail ? ": " : "", fault->detail);
}

/* Takes @folder over. */
static int make_store(int folder, struct store **ret_store)
{
	struct store *store = store_count < STORES_MAX ?
			      folder_store_create(folder) : NULL;

	if (!store) {
		close(folder);
		return -ENOMEM;
	}
	stores[store_count++] = store;
	*ret_store = store;
	return 0;
}

static int open_named(struct store *store,
		      const struct named_checkpoint *named,
		      struct checkpoint **ret_checkpoint,
		      struct checkpoint_report *report)
{
	struct checkpoint_options options = { .file = named->file };
	struct store_folder *folder;
	int error;

	if (!cache)
		cache = decoded_cache_create(cache_size);
	options.cache = cache;
	error = !cache ? -ENOMEM :
		store->open_folder(store, store_path_in(NULL, ""), &folder);
	return error ? error : checkpoint_open_folder(folder, &options,
						      ret_checkpoint, report);
}

int tool_open(const struct tool *tool, const char *path,
	      struct checkpoint **ret_checkpoint)
{
	return tool_open_report(tool, path, ret_checkpoint, NULL);
}

int tool_open_report(const struct tool *tool, const char *path,
		     struct checkpoint **ret_checkpoint,
		     struct checkpoint_report *ret_report)
{
	struct checkpoint_report *report = calloc(1, sizeof(*report));
	struct named_checkpoint named = { .folder = -1 };
	struct store *store = NULL;
	int error = report ? find_named(path, &named) : -ENOMEM;

	if (!error)
		error = make_store(named.folder, &store);
	if (error) {
		tool_fail(tool, "%s: %s", path, strerror(-error));
		goto finish;
	}
	error = open_named(store, &named, ret_checkpoint, report);
	if (error == -ENOENT)
		error = explain_absence(tool, path, store);
	else
		explain(tool, path, &named, report, error);
	if (error && named.file && !has_suffix(path, ".safetensors"))
		tool_fail(tool, "%s: only a safetensors file can stand for a checkpoint; of all others name the folder",
			  path);
	if (ret_report)
		*ret_report = *report;
finish:
	free(report);
	free(named.file);
	return error;
}

enum tool_status tool_open_status(int error)
{
	switch (error) {
	case 0:
		return TOOL_GOOD;
	case -EBADMSG:
	case -E2BIG:
	case -EOPNOTSUPP:
	case -EINPROGRESS:
		return TOOL_BAD;
	default:
		return TOOL_FAILED;
	}
}
