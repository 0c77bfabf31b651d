/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/checkpoint/metadata_files.h"

#include "shard/base/hash.h"
#include "shard/base/limits.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char global_name[] = ".metadata";
static const char inner_folder[] = "sharded", inner_prefix[] = "sharded/";
static const char index_name[] = "model.safetensors.index.json";

/* What a folder has. */
struct found_markers {
	struct array ranks, files; /* struct metadata_file */
	char *index;			/* owned; the first by name, or the one
					 * that is called as usual */
};

/* ---- names --------------------------------------------------------------- */

/* "__N.metadata"; the number without leading zeros, so that one rank has one
 * file. */
static bool is_rank_name(const char *name, uint64_t *ret_rank)
{
	uint64_t rank = 0;
	const char *p = name + 2;

	if (strncmp(name, "__", 2) != 0 || *p < '0' || *p > '9' ||
	    (*p == '0' && p[1] != '.'))
		return false;
	for (; *p >= '0' && *p <= '9'; p++) {
		rank = rank * 10 + (uint64_t)(*p - '0');
		if (rank > UINT32_MAX)
			return false;
	}
	*ret_rank = rank;
	return strcmp(p, global_name) == 0;
}

static bool ends_in(const char *name, const char *end)
{
	size_t size = strlen(name), end_size = strlen(end);

	return *name != '.' && size > end_size &&
	       strcmp(name + size - end_size, end) == 0;
}

static int compare_ranks(const void *a, const void *b)
{
	const struct metadata_file *x = a, *y = b;
	uint64_t x_rank = 0, y_rank = 0;

	is_rank_name(x->name, &x_rank);
	is_rank_name(y->name, &y_rank);
	return x_rank < y_rank ? -1 : x_rank > y_rank;
}

static int compare_names(const void *a, const void *b)
{
	const struct metadata_file *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/* ---- what a folder has --------------------------------------------------- */

static unsigned count_of(const struct array *markers)
{
	return (unsigned)(markers->size / sizeof(struct metadata_file));
}

static void finish_markers(struct array *markers)
{
	struct metadata_file *marker = (void *)markers->data;
	unsigned i;

	for (i = 0; i < count_of(markers); i++)
		free(marker[i].name);
	array_finish(markers);
}

static void found_finish(struct found_markers *found)
{
	finish_markers(&found->ranks);
	finish_markers(&found->files);
	free(found->index);
}

/* Takes @marker over, also on failure. */
static int append_marker(struct array *markers, struct metadata_file *marker)
{
	int error = -ENOMEM;

	if (count_of(markers) == LIMIT_METADATA_FILES)
		error = -E2BIG;
	else if (marker->name)
		error = array_append(markers, marker, sizeof(*marker));
	if (error)
		free(marker->name);
	return error;
}

/* Of @entry, which may be NULL; @prefix is "" or that of a folder inside. */
static int add_marker(struct array *markers, const char *prefix,
		      const char *name, const struct store_entry *entry)
{
	struct metadata_file marker = { .name = NULL };

	if (entry && entry->known)
		marker.owner = (struct replica){ entry->owner, entry->pin };
	if (asprintf(&marker.name, "%s%s", prefix, name) < 0)
		marker.name = NULL;
	return append_marker(markers, &marker);
}

/* The first by name, or the one that is called as usual. */
static int take_index(struct found_markers *found, const char *name)
{
	char *copy;

	if (found->index &&
	    (strcmp(found->index, index_name) == 0 ||
	     (strcmp(name, index_name) != 0 &&
	      strcmp(name, found->index) > 0)))
		return 0;
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	free(found->index);
	found->index = copy;
	return 0;
}

static int take_entry(struct found_markers *found, const char *prefix,
		      const struct store_entry *entry)
{
	mode_t type = entry->pin.mode & S_IFMT;
	uint64_t rank;

	if (is_rank_name(entry->name, &rank))
		return add_marker(&found->ranks, "", entry->name, entry);
	if (type != S_IFREG && type != S_IFLNK && type != 0)
		return 0;
	if (ends_in(entry->name, ".safetensors"))
		return add_marker(&found->files, prefix, entry->name, entry);
	if (ends_in(entry->name, ".safetensors.index.json"))
		return take_index(found, entry->name);
	return 0;
}

static int take_list(struct found_markers *found, const char *prefix,
		     const struct store_list *list)
{
	size_t i;
	int error = 0;

	for (i = 0; i < list->count && !error; i++)
		error = take_entry(found, prefix, &list->entries[i]);
	return error;
}

/* ---- which of them count ------------------------------------------------- */

/* Of what @inner has found in sharded/, only the files count. */
static int add_inner(struct found_markers *found, struct found_markers *inner)
{
	struct metadata_file *marker = (void *)inner->files.data;
	unsigned i;
	int error = 0;

	for (i = 0; i < count_of(&inner->files) && !error; i++) {
		error = append_marker(&found->files, &marker[i]);
		marker[i].name = NULL;
	}
	return error;
}

/* The folder sharded/ of @folder, if it is one and no link. */
static int list_inner(struct store_folder *folder, const struct store_list *all,
		      struct store_list **ret_list)
{
	const struct store_entry *entry = store_list_find(all, inner_folder);
	mode_t type = entry ? entry->pin.mode & S_IFMT : S_IFREG;
	struct store_folder *inner;
	int error;

	if (type != S_IFDIR && type != 0)
		return -ENOENT;
	error = folder->store->open_folder(folder->store,
					   store_path_in(folder, inner_folder),
					   &inner);
	if (error)
		return error;
	error = folder->store->list(inner, false, ret_list);
	store_folder_put(inner);
	return error;
}

static int find_inner(struct store_folder *folder, const struct store_list *all,
		      struct found_markers *found)
{
	struct found_markers inner = { .index = NULL };
	struct store_list *list = NULL;
	int error = list_inner(folder, all, &list);

	if (error)
		return error == -ENOENT || error == -ENOTDIR ||
		       error == -ELOOP ? 0 : error;
	error = take_list(&inner, inner_prefix, list);
	if (!error)
		error = add_inner(found, &inner);
	store_list_put(list);
	found_finish(&inner);
	return error;
}

static void take_markers(struct metadata_files *files, struct array *markers)
{
	files->count = count_of(markers);
	files->files = (void *)markers->data;
	*markers = (struct array){ .data = NULL };
}

static int take_files(struct found_markers *found, const struct store_list *all,
		      struct metadata_files *files)
{
	int error = 0;

	qsort(found->files.data, count_of(&found->files),
	      sizeof(struct metadata_file), compare_names);
	if (found->index)
		error = add_marker(&found->files, "", found->index,
				   store_list_find(all, found->index));
	if (error)
		return error;
	files->kind = METADATA_SAFETENSORS;
	files->has_index = found->index;
	take_markers(files, &found->files);
	return 0;
}

/* One marker that was named to us. */
static int take_one(enum metadata_kind kind, const char *name,
		    const struct store_entry *entry,
		    struct metadata_files *files)
{
	struct array markers = { .data = NULL };
	int error = add_marker(&markers, "", name, entry);

	if (error)
		return error;
	files->kind = kind;
	take_markers(files, &markers);
	return 0;
}

/* Those of ranks, else the files, to which sharded/ was added if need be. */
static int take_found(struct found_markers *found,
		      const struct store_list *all,
		      struct metadata_files *files)
{
	if (count_of(&found->ranks) == 0)
		return count_of(&found->files) > 0 ?
		       take_files(found, all, files) : -ENOENT;
	qsort(found->ranks.data, count_of(&found->ranks),
	      sizeof(struct metadata_file), compare_ranks);
	files->kind = METADATA_DCP_LOCAL;
	take_markers(files, &found->ranks);
	return 0;
}

static int read_list(struct store_folder *folder, const struct store_list *list,
		     struct metadata_files *files)
{
	struct found_markers found = { .index = NULL };
	int error = take_list(&found, "", list);

	if (!error && count_of(&found.ranks) == 0 &&
	    count_of(&found.files) > 0)
		error = find_inner(folder, list, &found);
	if (!error)
		error = take_found(&found, list, files);
	found_finish(&found);
	return error;
}

/* DCP's own, whatever else there is: a folder may have many names. */
static int find_global(struct store_folder *folder,
		       struct metadata_files *files)
{
	struct store_entry entry = { .name = global_name };
	struct store_found found;
	int error = folder->store->find(folder->store,
					store_path_in(folder, global_name),
					&found);

	if (error)
		return error;
	/* Of a link it counts where it leads to. */
	entry.known = S_ISREG(found.status.st_mode);
	entry.pin = pin_from_stat(&found.status);
	entry.owner = found.owner;
	return take_one(METADATA_DCP, global_name, &entry, files);
}

int metadata_files_read(struct store_folder *folder, const char *file,
			struct metadata_files *ret)
{
	struct metadata_files files = { .count = 0 };
	struct store_list *list;
	int error = file ? take_one(METADATA_SAFETENSORS, file, NULL, &files) :
			   find_global(folder, &files);

	if (error == -ENOENT && !file) {
		error = folder->store->list(folder, false, &list);
		if (error)
			return error;
		error = read_list(folder, list, &files);
		store_list_put(list);
	}
	if (!error)
		*ret = files;
	return error;
}

void metadata_files_finish(struct metadata_files *files)
{
	unsigned i;

	for (i = 0; i < files->count; i++)
		free(files->files[i].name);
	free(files->files);
	files->files = NULL;
	files->count = 0;
}

/* ---- asking -------------------------------------------------------------- */

unsigned metadata_files_safetensors(const struct metadata_files *files)
{
	return files->kind == METADATA_SAFETENSORS ?
	       files->count - files->has_index : 0;
}

const struct metadata_file *
metadata_files_find(const struct metadata_files *files, const char *name)
{
	struct metadata_file key = { .name = (char *)name };

	return bsearch(&key, files->files, metadata_files_safetensors(files),
		       sizeof(key), compare_names);
}

bool metadata_file_is_inner(const struct metadata_file *file)
{
	return strchr(file->name, '/');
}

bool metadata_files_equal(const struct metadata_files *a,
			  const struct metadata_files *b)
{
	unsigned i;

	if (a->kind != b->kind || a->count != b->count ||
	    a->has_index != b->has_index)
		return false;
	for (i = 0; i < a->count; i++)
		if (strcmp(a->files[i].name, b->files[i].name) != 0)
			return false;
	return true;
}

void metadata_files_pin(struct metadata_files *files,
			struct store_folder *folder)
{
	struct replica owner;
	unsigned i;

	for (i = 0; i < files->count; i++)
		if (files->files[i].owner.pin.inode == 0 &&
		    folder->store->resolve(folder, files->files[i].name,
					   &owner) == 0)
			files->files[i].owner = owner;
}

uint64_t metadata_files_signature(const struct metadata_files *files)
{
	uint64_t signature = 0;
	unsigned i;

	for (i = 0; i < files->count; i++) {
		const struct metadata_file *file = &files->files[i];

		signature = hash_64(file->name, strlen(file->name),
				    signature + file->owner.rank);
		signature = hash_64(&file->owner.pin, sizeof(file->owner.pin),
				    signature);
	}
	return signature | 1;
}
