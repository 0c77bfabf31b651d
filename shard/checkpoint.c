/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/checkpoint.h"

#include "shard/array.h"
#include "shard/dcp.h"
#include "shard/limits.h"
#include "shard/name.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char global_marker[] = ".metadata";

/* Data files that are this much younger than the marker were hardly copied
 * together with it: an overwrite began, and did not end. */
static const int64_t overwrite_delay_ns = INT64_C(600) * 1000000000;

/* ---- markers ------------------------------------------------------------- */

/* "__N.metadata"; the number without leading zeros, so that one rank has one
 * file. */
static bool is_rank_marker(const char *name, uint64_t *ret_rank)
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
	return strcmp(p, global_marker) == 0;
}

static int compare_markers(const void *a, const void *b)
{
	const struct checkpoint_marker *x = a, *y = b;
	uint64_t x_rank = 0, y_rank = 0;

	is_rank_marker(x->name, &x_rank);
	is_rank_marker(y->name, &y_rank);
	return x_rank < y_rank ? -1 : x_rank > y_rank;
}

static int list_rank_markers(DIR *stream, struct array *markers)
{
	struct checkpoint_marker marker;
	struct dirent *entry;
	uint64_t rank;

	for (;;) {
		errno = 0;
		entry = readdir(stream);
		if (!entry)
			return -errno;
		if (!is_rank_marker(entry->d_name, &rank))
			continue;
		if (markers->size / sizeof(marker) == LIMIT_METADATA_FILES)
			return -E2BIG;
		memset(&marker, 0, sizeof(marker));
		snprintf(marker.name, sizeof(marker.name), "__%" PRIu64 "%s",
			 rank, global_marker);
		if (array_append(markers, &marker, sizeof(marker)))
			return -ENOMEM;
	}
}

static DIR *open_stream(int folder)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);

	if (fd >= 0 && !stream)
		close(fd);
	return stream;
}

/* 0, -ENOENT, or -errno. */
static int find_global_marker(int folder)
{
	struct stat status;

	return fstatat(folder, global_marker, &status, AT_SYMLINK_NOFOLLOW) <
	       0 ? -errno : 0;
}

/* The names of the markers: .metadata alone, or those of the ranks. */
static int list_markers(int folder, struct array *markers)
{
	struct checkpoint_marker marker = { .name = ".metadata" };
	DIR *stream;
	int error = find_global_marker(folder);

	if (!error)
		return array_append(markers, &marker, sizeof(marker));
	if (error != -ENOENT)
		return error;
	stream = open_stream(folder);
	if (!stream)
		return -errno;
	error = list_rank_markers(stream, markers);
	closedir(stream);
	if (error)
		return error;
	if (markers->size == 0)
		return -ENOENT;
	qsort(markers->data, markers->size / sizeof(marker), sizeof(marker),
	      compare_markers);
	return 0;
}

uint64_t checkpoint_signature(int folder)
{
	struct array markers = { .data = NULL };
	struct checkpoint_marker *marker;
	struct stat status;
	uint64_t signature = 0;
	size_t i;

	if (list_markers(folder, &markers) == 0) {
		marker = (void *)markers.data;
		for (i = 0; i < markers.size / sizeof(*marker); i++)
			if (fstatat(folder, marker[i].name, &status,
				    AT_SYMLINK_NOFOLLOW) == 0)
				marker[i].pin = pin_from_stat(&status);
		signature = name_hash(markers.data, markers.size, 0) | 1;
	}
	array_finish(&markers);
	return signature;
}

/* ---- opening --------------------------------------------------------------- */

struct loader {
	struct checkpoint *checkpoint;
	struct checkpoint_report *report;
	struct dcp_file *files;		/* owned, with their data */
};

static int refuse(struct loader *l, unsigned marker, int error,
		  const char *reason)
{
	if (reason)
		fault_set(&l->report->fault, error, 0, reason);
	snprintf(l->report->file, sizeof(l->report->file), "%s",
		 l->checkpoint->markers[marker].name);
	return error;
}

/* All pickles since protocol 2 begin with PROTO: whatever else is called
 * .metadata is not read as a whole. */
static int check_start(int fd, uint64_t size)
{
	unsigned char first = 0;
	int error = size > 0 ? io_read(fd, &first, 1, 0) : 0;

	return error ? error : first == 0x80 ? 0 : -EBADMSG;
}

/* A whole marker, pinned: the same before and after reading. */
static int read_marker(struct loader *l, unsigned index)
{
	struct checkpoint_marker *marker = &l->checkpoint->markers[index];
	struct stat before, after;
	struct pin pin;
	void *data;
	int fd, error;

	error = io_open(l->checkpoint->folder, marker->name, &fd, &before);
	if (error == -ENOENT)
		return -ESTALE;
	if (error)
		return refuse(l, index, error, strerror(-error));
	marker->pin = pin_from_stat(&before);
	if (index == 0)
		l->checkpoint->status = before;
	data = NULL;
	if (marker->pin.size > LIMIT_METADATA_SIZE)
		error = refuse(l, index, -E2BIG, "the file is too large");
	else
		error = check_start(fd, marker->pin.size);
	if (error == -EBADMSG)
		refuse(l, index, error, "not a pickle");
	if (!error)
		data = malloc(marker->pin.size + 1);
	if (!error && !data)
		error = refuse(l, index, -ENOMEM, "out of memory");
	if (!error)
		error = io_read(fd, data, marker->pin.size, 0);
	if (fstat(fd, &after) == 0) {
		pin = pin_from_stat(&after);
		if (!pin_equal(&pin, &marker->pin))
			error = -ESTALE;
	}
	close(fd);
	l->files[index] = (struct dcp_file){ data, marker->pin.size };
	if (error == -EIO)
		return refuse(l, index, error, "reading failed");
	return error;
}

static int read_markers(struct loader *l)
{
	unsigned count = l->checkpoint->marker_count, i;
	int error = 0;

	l->files = calloc(count, sizeof(*l->files));
	if (!l->files)
		return refuse(l, 0, -ENOMEM, "out of memory");
	for (i = 0; i < count && !error; i++)
		error = read_marker(l, i);
	return error;
}

static int build_catalog(struct loader *l)
{
	struct checkpoint_report *report = l->report;
	struct catalog_builder *builder;
	unsigned bad = 0;
	int error;

	builder = catalog_builder_create(&report->notes);
	if (!builder)
		return refuse(l, 0, -ENOMEM, "out of memory");
	error = dcp_read(builder, l->files, l->checkpoint->marker_count,
			 &report->notes, &report->fault, &bad);
	if (error)
		refuse(l, bad, error, NULL);
	else if (catalog_builder_finish(builder, &l->checkpoint->catalog))
		error = refuse(l, 0, -ENOMEM, "out of memory");
	catalog_builder_destroy(builder);
	return error;
}

static const char *file_path(const struct checkpoint *c, uint64_t index)
{
	return catalog_text(c->catalog, catalog_file(c->catalog, index)->path);
}

static struct pin find_pin(const struct checkpoint *c, uint64_t index,
			   int *ret_error)
{
	struct stat status;

	*ret_error = io_stat(c->folder, file_path(c, index), &status);
	return *ret_error ? (struct pin){ .inode = 0 } :
			    pin_from_stat(&status);
}

static int pin_files(struct loader *l)
{
	struct checkpoint *c = l->checkpoint;
	uint64_t i, newer = 0;
	int error;

	c->pins = calloc(c->catalog->file_count + 1, sizeof(*c->pins));
	if (!c->pins)
		return refuse(l, 0, -ENOMEM, "out of memory");
	for (i = 0; i < c->catalog->file_count; i++) {
		c->pins[i] = find_pin(c, i, &error);
		if (error && !io_is_missing(error))
			return refuse(l, 0, error, strerror(-error));
		if (error)
			notes_add(&l->report->notes,
				  "%s: %s, what it holds cannot be read",
				  file_path(c, i), strerror(-error));
		newer += c->pins[i].mtime >
			 c->markers[0].pin.mtime + overwrite_delay_ns;
	}
	if (newer > 0)
		notes_add(&l->report->notes, "%" PRIu64
			  " files are newer than %s by more than 10 minutes: an overwrite that was not finished?",
			  newer, c->markers[0].name);
	return 0;
}

static int make_source(struct loader *l, struct decoded_cache *cache)
{
	struct checkpoint *c = l->checkpoint;

	c->files = source_file_create(c->folder, c->catalog, c->pins);
	if (c->files && c->catalog->transform_count > 0)
		c->decoded = source_decoded_create(c->files, c->catalog,
						   cache);
	if (!c->files || (c->catalog->transform_count > 0 && !c->decoded))
		return refuse(l, 0, -ENOMEM, "out of memory");
	return 0;
}

int checkpoint_open(int folder, const struct checkpoint_options *options,
		    struct checkpoint **ret_checkpoint,
		    struct checkpoint_report *report)
{
	struct checkpoint *c = calloc(1, sizeof(*c));
	struct loader loader = { .checkpoint = c, .report = report };
	struct array markers = { .data = NULL };
	unsigned i;
	int error;

	memset(report, 0, sizeof(*report));
	if (!c)
		return fault_set(&report->fault, -ENOMEM, 0, "out of memory");
	c->folder = fcntl(folder, F_DUPFD_CLOEXEC, 0);
	error = c->folder < 0 ? -errno : list_markers(folder, &markers);
	c->markers = (void *)markers.data;
	c->marker_count = (unsigned)(markers.size / sizeof(*c->markers));
	if (!error)
		error = read_markers(&loader);
	if (!error)
		error = build_catalog(&loader);
	if (!error)
		error = pin_files(&loader);
	if (!error)
		error = make_source(&loader, options->cache);
	for (i = 0; loader.files && i < c->marker_count; i++)
		free((void *)loader.files[i].data);
	free(loader.files);
	if (error) {
		if (!report->fault.reason)
			fault_set(&report->fault, error, 0, strerror(-error));
		checkpoint_close(c);
		return error;
	}
	*ret_checkpoint = c;
	return 0;
}

void checkpoint_close(struct checkpoint *checkpoint)
{
	if (!checkpoint)
		return;
	source_decoded_destroy(checkpoint->decoded);
	source_file_destroy(checkpoint->files);
	free(checkpoint->markers);
	free(checkpoint->pins);
	free(checkpoint->catalog);
	if (checkpoint->folder >= 0)
		close(checkpoint->folder);
	free(checkpoint);
}

struct source *checkpoint_source(const struct checkpoint *checkpoint)
{
	return checkpoint->decoded ?
	       source_decoded_source(checkpoint->decoded) :
	       source_file_source(checkpoint->files);
}

bool checkpoint_is_stale(const struct checkpoint *checkpoint)
{
	return source_file_is_stale(checkpoint->files);
}

int checkpoint_item(const struct checkpoint *checkpoint,
		    const struct catalog_shard *shard,
		    int (*use)(void *context, const struct input *input),
		    void *context)
{
	return checkpoint->decoded ?
	       source_decoded_item(checkpoint->decoded, shard, use, context) :
	       source_file_item(checkpoint->files, shard, use, context);
}

/* ---- checking -------------------------------------------------------------- */

static bool same_marker(const struct checkpoint *c, unsigned index,
			const char *name)
{
	const struct checkpoint_marker *marker = &c->markers[index];
	struct stat status;
	struct pin pin;
	int error = io_stat(c->folder, name, &status);

	if (error)
		return !io_is_missing(error);
	pin = pin_from_stat(&status);
	return strcmp(name, marker->name) == 0 && pin_equal(&pin, &marker->pin);
}

static bool same_markers(const struct checkpoint *c)
{
	struct array found = { .data = NULL };
	const struct checkpoint_marker *names;
	int error = list_markers(c->folder, &found);
	bool same = found.size == c->marker_count * sizeof(*c->markers);
	unsigned i;

	names = (const void *)found.data;
	for (i = 0; i < c->marker_count && same && !error; i++)
		same = same_marker(c, i, names[i].name);
	array_finish(&found);
	return error ? error != -ENOENT : same;
}

bool checkpoint_is_current(const struct checkpoint *checkpoint,
			   uint64_t *cursor)
{
	uint64_t count = checkpoint->catalog->file_count, i;
	uint64_t looks = count < 4096 ? count : 4096;

	if (checkpoint_is_stale(checkpoint) ||
	    !same_markers(checkpoint))
		return false;
	for (i = 0; i < looks; i++) {
		uint64_t index = (*cursor + i) % count;
		int error;
		struct pin pin = find_pin(checkpoint, index, &error);

		if ((!error || io_is_missing(error)) &&
		    !pin_equal(&pin, &checkpoint->pins[index]))
			return false;
	}
	*cursor += looks;
	return true;
}
