/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/tool.h"

#include "fs/cli/internal.h"

#include <dirent.h>
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

/* One for all that is opened in this process. */
static struct decoded_cache *cache;
static uint64_t cache_size = GIB;

void open_set_cache_size(uint64_t size)
{
	cache_size = size;
}

void open_finish(void)
{
	decoded_cache_destroy(cache);
	cache = NULL;
}

/* ---- where there is no marker -------------------------------------------- */

struct search {
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

static void search_folder(struct search *search, int fd, const char *path,
			  unsigned depth);

static void search_entry(struct search *search, int folder, const char *path,
			 const struct dirent *entry, unsigned depth)
{
	char child[PATH_MAX];
	int fd, size;

	if (depth == 0 && has_suffix(entry->d_name, ".distcp"))
		search->shards = true;
	if (depth == 0 && strcmp(entry->d_name, ".metadata.tmp") == 0)
		search->leftover = true;
	if (entry->d_name[0] == '.' ||
	    (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN))
		return;
	size = snprintf(child, sizeof(child), "%s%s%s", path,
			*path ? "/" : "", entry->d_name);
	if (size < 0 || size >= (int)sizeof(child) ||
	    io_open_folder(folder, entry->d_name, &fd))
		return;
	if (checkpoint_signature(fd)) {
		if (search->count++ > 0)
			tool_print(&search->found, ", ");
		tool_print_text(child, strlen(child), &search->found);
	} else if (depth + 1 < SEARCH_DEPTH) {
		search_folder(search, fd, child, depth + 1);
	}
	close(fd);
}

static void search_folder(struct search *search, int fd, const char *path,
			  unsigned depth)
{
	struct dirent **entries;
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int count, i;

	count = copy < 0 ? 0 :
		scandirat(copy, ".", &entries, NULL, versionsort);
	if (copy >= 0)
		close(copy);
	for (i = 0; i < count; i++) {
		if (search->count < SEARCH_NAMES &&
		    search->entries++ < SEARCH_ENTRIES)
			search_entry(search, fd, path, entries[i], depth);
		free(entries[i]);
	}
	if (count > 0)
		free(entries);
}

/* Say why @path is no checkpoint. */
static int explain_absence(const struct tool *tool, const char *path, int fd)
{
	struct search search = { .count = 0 };
	int error = -ENOENT;

	search_folder(&search, fd, "", 0);
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

struct place {
	int folder;		/* owned */
	char *file;		/* owned; the one that counts, or NULL */
};

static int find_place(const char *path, struct place *ret_place)
{
	struct stat status;
	char *real, *copy;
	int error;

	ret_place->file = NULL;
	ret_place->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ret_place->folder >= 0)
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
	ret_place->folder = copy ? open(dirname(real), O_RDONLY | O_DIRECTORY |
					O_CLOEXEC) : -1;
	error = copy ? errno : ENOMEM;
	free(real);
	ret_place->file = copy;
	if (ret_place->folder >= 0)
		return 0;
	free(copy);
	return -error;
}

static void explain(const struct tool *tool, const char *path,
		    const struct place *place,
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
			  place->file ? "" : slash,
			  place->file ? "" : report->file, fault->offset,
			  fault->reason ? fault->reason : strerror(-error),
			  *fault->detail ? ": " : "", fault->detail);
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
	struct checkpoint_options options = { .cache = NULL };
	struct checkpoint_report *report;
	struct place place;
	int error = find_place(path, &place);

	if (error) {
		tool_fail(tool, "%s: %s", path, strerror(-error));
		return error;
	}
	if (!cache)
		cache = decoded_cache_create(cache_size);
	report = calloc(1, sizeof(*report));
	if (!report || !cache) {
		error = -ENOMEM;
		tool_fail(tool, "%s: %s", path, strerror(-error));
		goto finish;
	}
	options.cache = cache;
	options.file = place.file;
	error = checkpoint_open(place.folder, &options, ret_checkpoint, report);
	if (error == -ENOENT)
		error = explain_absence(tool, path, place.folder);
	else
		explain(tool, path, &place, report, error);
	if (error && place.file && !has_suffix(path, ".safetensors"))
		tool_fail(tool, "%s: only a safetensors file can stand for a checkpoint; of all others name the folder",
			  path);
	if (ret_report)
		*ret_report = *report;
finish:
	free(report);
	free(place.file);
	close(place.folder);
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
