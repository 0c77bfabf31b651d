/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/checkpoint/metadata_files.h"

#include "shard/base/hash.h"
#include "shard/base/limits.h"
#include "shard/store/union.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char global_name[] = ".metadata";
static const char inner_folder[] = "sharded", inner_prefix[] = "sharded/";
static const char index_name[] = "model.safetensors.index.json";

/* What one pass over a folder finds. */
struct found {
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

/* ---- reading a folder ---------------------------------------------------- */

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

static void found_finish(struct found *found)
{
	finish_markers(&found->ranks);
	finish_markers(&found->files);
	free(found->index);
}

/* @prefix "" or that of a folder inside. */
static int add_marker(struct array *markers, const char *prefix,
		      const char *name)
{
	size_t prefix_size = strlen(prefix), size = strlen(name) + 1;
	struct metadata_file marker = { .name = NULL };

	if (count_of(markers) == LIMIT_METADATA_FILES)
		return -E2BIG;
	marker.name = malloc(prefix_size + size);
	if (!marker.name)
		return -ENOMEM;
	memcpy(marker.name, prefix, prefix_size);
	memcpy(marker.name + prefix_size, name, size);
	if (array_append(markers, &marker, sizeof(marker)) == 0)
		return 0;
	free(marker.name);
	return -ENOMEM;
}

static int take_index(struct found *found, const char *name)
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

static int take_entry(struct found *found, const char *prefix,
		      const char *name, unsigned char type)
{
	uint64_t rank;

	if (is_rank_name(name, &rank))
		return add_marker(&found->ranks, "", name);
	if (type != DT_REG && type != DT_LNK && type != DT_UNKNOWN)
		return 0;
	if (ends_in(name, ".safetensors"))
		return add_marker(&found->files, prefix, name);
	if (ends_in(name, ".safetensors.index.json"))
		return take_index(found, name);
	return 0;
}

static int read_stream(DIR *stream, const char *prefix, struct found *found)
{
	struct dirent *entry;
	int error;

	for (;;) {
		errno = 0;
		entry = readdir(stream);
		if (!entry)
			return -errno;
		error = take_entry(found, prefix, entry->d_name,
				   entry->d_type);
		if (error)
			return error;
	}
}

/* All of @path below @folder that may be a marker. */
static int find_names(int folder, const char *path, const char *prefix,
		      struct found *found)
{
	int fd = openat(folder, path,
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *stream;
	int error;

	if (fd < 0)
		return -errno;
	stream = fdopendir(fd);
	if (!stream) {
		error = -errno;
		close(fd);
		return error;
	}
	error = read_stream(stream, prefix, found);
	closedir(stream);
	return error;
}

/* ---- which of them count ------------------------------------------------- */

/* Of what @inner has found in sharded/, only the files count. */
static int add_inner(struct found *found, const struct found *inner)
{
	const struct metadata_file *marker = (const void *)inner->files.data;
	unsigned i;
	int error = 0;

	for (i = 0; i < count_of(&inner->files) && !error; i++)
		error = add_marker(&found->files, "", marker[i].name);
	return error;
}

static int find_inner(int folder, struct found *found)
{
	struct found inner = { .index = NULL };
	int error = find_names(folder, inner_folder, inner_prefix, &inner);

	if (error == -ENOENT || error == -ENOTDIR || error == -ELOOP)
		error = 0;
	if (!error)
		error = add_inner(found, &inner);
	found_finish(&inner);
	return error;
}

static void take_markers(struct metadata_files *list, struct array *markers)
{
	list->count = count_of(markers);
	list->markers = (void *)markers->data;
	*markers = (struct array){ .data = NULL };
}

static int take_files(struct found *found, struct metadata_files *list)
{
	int error = 0;

	qsort(found->files.data, count_of(&found->files),
	      sizeof(struct metadata_file), compare_names);
	if (found->index)
		error = add_marker(&found->files, "", found->index);
	if (error)
		return error;
	list->kind = METADATA_SAFETENSORS;
	list->has_index = found->index;
	take_markers(list, &found->files);
	return 0;
}

/* One marker that was named to us. */
static int take_one(enum metadata_kind kind, const char *name,
		    struct metadata_files *list)
{
	struct array markers = { .data = NULL };
	int error = add_marker(&markers, "", name);

	if (error)
		return error;
	list->kind = kind;
	take_markers(list, &markers);
	return 0;
}

/* Those of ranks, else the files, to which sharded/ was added if need be. */
static int take_found(struct found *found, struct metadata_files *list)
{
	if (count_of(&found->ranks) == 0)
		return count_of(&found->files) > 0 ? take_files(found, list) :
						     -ENOENT;
	qsort(found->ranks.data, count_of(&found->ranks),
	      sizeof(struct metadata_file), compare_ranks);
	list->kind = METADATA_DCP_LOCAL;
	take_markers(list, &found->ranks);
	return 0;
}

int metadata_files_read(int folder, const char *file,
			struct metadata_files *ret)
{
	struct metadata_files list = { .count = 0 };
	struct found found = { .index = NULL };
	struct stat status;
	int error;

	if (file) {
		error = take_one(METADATA_SAFETENSORS, file, &list);
	} else if (fstatat(folder, global_name, &status,
			   AT_SYMLINK_NOFOLLOW) == 0) {
		error = take_one(METADATA_DCP, global_name, &list);
	} else if (errno != ENOENT) {
		error = -errno;
	} else {
		error = find_names(folder, ".", "", &found);
		if (!error && count_of(&found.ranks) == 0 &&
		    count_of(&found.files) > 0)
			error = find_inner(folder, &found);
		if (!error)
			error = take_found(&found, &list);
	}
	found_finish(&found);
	if (!error)
		*ret = list;
	return error;
}

static int take_merged(struct found *found, const char *prefix,
		       const struct merged *merged)
{
	size_t i;
	int error = 0;

	for (i = 0; i < merged->count && !error; i++)
		error = take_entry(found, prefix, merged->entries[i].name,
			IFTODT(merged->entries[i].stored.pin.mode));
	return error;
}

int metadata_files_merged(const struct merged *merged,
			  const struct merged *inner,
			  struct metadata_files *ret)
{
	struct metadata_files list = { .count = 0 };
	struct found found = { .index = NULL }, below = { .index = NULL };
	int error;

	if (merged_find(merged, global_name)) {
		error = take_one(METADATA_DCP, global_name, &list);
	} else {
		error = take_merged(&found, "", merged);
		if (!error && inner && count_of(&found.ranks) == 0 &&
		    count_of(&found.files) > 0)
			error = take_merged(&below, inner_prefix, inner);
		if (!error)
			error = add_inner(&found, &below);
		if (!error)
			error = take_found(&found, &list);
	}
	found_finish(&found);
	found_finish(&below);
	if (!error)
		*ret = list;
	return error;
}

void metadata_files_finish(struct metadata_files *list)
{
	unsigned i;

	for (i = 0; i < list->count; i++)
		free(list->markers[i].name);
	free(list->markers);
	list->markers = NULL;
	list->count = 0;
}

unsigned metadata_files_files(const struct metadata_files *list)
{
	return list->kind == METADATA_SAFETENSORS ?
		       list->count - list->has_index :
		       0;
}

const struct metadata_file *
metadata_files_find(const struct metadata_files *list, const char *name)
{
	struct metadata_file key = { .name = (char *)name };

	return bsearch(&key, list->markers, metadata_files_files(list),
		       sizeof(key), compare_names);
}

bool metadata_file_is_inner(const struct metadata_file *marker)
{
	return strchr(marker->name, '/');
}

bool metadata_files_equal(const struct metadata_files *a,
			  const struct metadata_files *b)
{
	unsigned i;

	if (a->kind != b->kind || a->count != b->count ||
	    a->has_index != b->has_index)
		return false;
	for (i = 0; i < a->count; i++)
		if (strcmp(a->markers[i].name, b->markers[i].name) != 0)
			return false;
	return true;
}

/* Of what a link leads to, if it may be followed. */
static struct pin find_pin(int folder, const char *name)
{
	struct stat status;

	if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return (struct pin){ .inode = 0 };
	if (S_ISLNK(status.st_mode))
		io_stat(folder, name, &status);
	return pin_from_stat(&status);
}

uint64_t metadata_files_signature(int folder)
{
	struct metadata_files list;
	struct pin pin;
	uint64_t signature = 0;
	unsigned i;

	if (metadata_files_read(folder, NULL, &list))
		return 0;
	for (i = 0; i < list.count; i++) {
		const char *name = list.markers[i].name;

		pin = find_pin(folder, name);
		signature = hash_64(name, strlen(name), signature);
		signature = hash_64(&pin, sizeof(pin), signature);
	}
	metadata_files_finish(&list);
	return signature | 1;
}
