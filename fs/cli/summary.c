/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/summary.h"

#include "fs/cli/tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- totals -------------------------------------------------------------- */

/* Sums of what a hostile checkpoint claims end at the largest number. */
static void add_size(uint64_t *sum, uint64_t size)
{
	if (__builtin_add_overflow(*sum, size, sum))
		*sum = UINT64_MAX;
}

static bool same_key(const struct summary_key *a, const struct summary_key *b)
{
	return !a->name == !b->name && a->name_size == b->name_size &&
	       (!a->name || memcmp(a->name, b->name, a->name_size) == 0);
}

/* By name; what lies below no key comes last. */
static int compare_keys(const void *a, const void *b)
{
	const struct summary_key *x = a, *y = b;
	size_t size = x->name_size < y->name_size ? x->name_size :
						    y->name_size;
	int order;

	if (!x->name || !y->name)
		return !x->name - !y->name;
	order = memcmp(x->name, y->name, size);
	if (order)
		return order;
	return x->name_size < y->name_size ? -1 :
	       x->name_size > y->name_size;
}

/* Entries of one key mostly stand together. */
static int add_to_key(struct summary *s, const struct catalog_entry *entry)
{
	const struct catalog *catalog = s->checkpoint->catalog;
	struct summary_key key = { .name = NULL }, *last = NULL;

	if (entry->depth > 1) {
		key.name = catalog_text(catalog, entry->name);
		key.name_size = catalog_path_size(catalog, entry, 1);
	}
	if (s->keys.size > 0)
		last = (struct summary_key *)(s->keys.data + s->keys.size) - 1;
	if (last && same_key(last, &key)) {
		last->tensors++;
		add_size(&last->size, entry->size);
		return 0;
	}
	key.tensors = 1;
	key.size = entry->size;
	return array_append(&s->keys, &key, sizeof(key));
}

static void unite_keys(struct summary *s)
{
	struct summary_key *keys = (struct summary_key *)s->keys.data;
	size_t count = s->keys.size / sizeof(*keys), i, used = 0;

	if (count == 0)
		return;
	qsort(keys, count, sizeof(*keys), compare_keys);
	for (i = 1; i < count; i++) {
		if (!same_key(&keys[used], &keys[i])) {
			keys[++used] = keys[i];
			continue;
		}
		keys[used].tensors += keys[i].tensors;
		add_size(&keys[used].size, keys[i].size);
	}
	s->keys.size = (used + 1) * sizeof(*keys);
}

static int count_entries(struct summary *s, const char *glob)
{
	const struct catalog *catalog = s->checkpoint->catalog;
	uint64_t count = catalog->tensor_count + catalog->object_count, i;
	int error = 0;

	for (i = 0; i < count && !error; i++) {
		const struct catalog_entry *entry = catalog_entry(catalog, i);

		s->incomplete += (entry->flags & CATALOG_HOLES) != 0;
		if (!tool_matches(catalog, entry, glob))
			continue;
		if (entry->flags & CATALOG_OBJECT) {
			s->objects++;
			continue;
		}
		s->tensors++;
		add_size(&s->size, entry->size);
		error = add_to_key(s, entry);
	}
	unite_keys(s);
	return error;
}

/* ---- files --------------------------------------------------------------- */

static void check_entry(struct summary *s, const struct catalog_entry *entry)
{
	const struct checkpoint *c = s->checkpoint;
	uint64_t i;

	for (i = 0; i < entry->shard_count; i++) {
		const struct catalog_shard *shard =
			catalog_shard(c->catalog, entry, i);
		const struct pin *pin = checkpoint_pin(c, shard->file);

		if (pin->inode == 0)
			s->file_flags[shard->file] = SUMMARY_MISSING;
		else if (shard->offset > pin->size ||
			 shard->size > pin->size - shard->offset)
			s->file_flags[shard->file] = SUMMARY_CUT;
	}
}

static int check_files(struct summary *s)
{
	const struct catalog *catalog = s->checkpoint->catalog;
	uint64_t count = catalog->tensor_count + catalog->object_count, i;

	s->file_flags = calloc(catalog->file_count + 1, 1);
	if (!s->file_flags)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		check_entry(s, catalog_entry(catalog, i));
	for (i = 0; i < catalog->file_count; i++) {
		s->missing += s->file_flags[i] == SUMMARY_MISSING;
		s->cut += s->file_flags[i] == SUMMARY_CUT;
	}
	return 0;
}

static int compare_paths(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The paths of the catalog's files, sorted. NULL: no memory. */
static const char **sort_paths(const struct catalog *catalog)
{
	const char **paths = calloc(catalog->file_count + 1, sizeof(*paths));
	uint64_t i;

	for (i = 0; paths && i < catalog->file_count; i++)
		paths[i] = catalog_text(catalog,
					catalog_file(catalog, i)->path);
	if (paths)
		qsort(paths, catalog->file_count, sizeof(*paths),
		      compare_paths);
	return paths;
}

static bool has_suffix(const char *name, const char *suffix)
{
	size_t size = strlen(name), end = strlen(suffix);

	return size > end && strcmp(name + size - end, suffix) == 0;
}

static int judge_file(struct summary *s, const char *path, const char **paths)
{
	struct stat status;
	bool leftover = strcmp(path, ".metadata.tmp") == 0 ||
			(strncmp(path, "__", 2) == 0 &&
			 has_suffix(path, ".metadata.tmp"));

	if (leftover)
		return array_append(&s->leftovers, path, strlen(path) + 1);
	if ((!has_suffix(path, ".distcp") &&
	     !has_suffix(path, ".safetensors")) ||
	    bsearch(&path, paths, s->checkpoint->catalog->file_count,
		    sizeof(*paths), compare_paths) ||
	    fstatat(s->checkpoint->folder->fds[0], path, &status, 0) < 0 ||
	    !S_ISREG(status.st_mode))
		return 0;
	s->orphan_count++;
	add_size(&s->orphan_size, (uint64_t)status.st_size);
	return array_append(&s->orphans, path, strlen(path) + 1);
}

/* The files of @folder ("", or "sharded/") below the checkpoint's. */
static int list_folder(struct summary *s, const char *folder,
		       const char **paths)
{
	struct dirent **entries;
	char path[NAME_MAX + 16];
	int fd = openat(s->checkpoint->folder->fds[0], *folder ? folder : ".",
			O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int count, i, error = 0;

	if (fd < 0)
		return *folder ? 0 : -errno;
	count = scandirat(fd, ".", &entries, NULL, alphasort);
	if (count < 0)
		error = -errno;
	close(fd);
	for (i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s%s", folder,
			 entries[i]->d_name);
		if (!error)
			error = judge_file(s, path, paths);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	return error;
}

static int find_orphans(struct summary *s)
{
	const char **paths = sort_paths(s->checkpoint->catalog);
	int error = paths ? list_folder(s, "", paths) : -ENOMEM;

	if (!error)
		error = list_folder(s, "sharded/", paths);
	free(paths);
	return error;
}

int summary_init(struct summary *summary, const struct checkpoint *checkpoint,
		 const char *path, const char *glob)
{
	struct stat status;
	int error;

	memset(summary, 0, sizeof(*summary));
	summary->checkpoint = checkpoint;
	error = count_entries(summary, glob);
	if (!error)
		error = check_files(summary);
	/* The neighbours of a file do not belong to it. */
	if (!error && stat(path, &status) == 0 && S_ISDIR(status.st_mode))
		error = find_orphans(summary);
	return error;
}

void summary_finish(struct summary *summary)
{
	array_finish(&summary->keys);
	array_finish(&summary->orphans);
	array_finish(&summary->leftovers);
	free(summary->file_flags);
}

bool summary_is_complete(const struct summary *summary)
{
	return !summary->incomplete && !summary->missing && !summary->cut &&
	       !summary->checkpoint->catalog->origin.lost;
}
