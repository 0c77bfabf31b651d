/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/checkpoint/catalog_load.h"

#include "shard/base/limits.h"
#include "shard/dcp/dcp.h"
#include "shard/safetensors/hf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct catalog_load {
	struct checkpoint *checkpoint;
	struct checkpoint_report *report;
	struct catalog_builder *builder;	/* owned */
	struct dcp_file *metadata;		/* owned, with their data */
	struct hf_file *files;			/* owned, with their headers */
	unsigned file_count;
	struct array index;			/* text */
	uint64_t header_size;			/* of all files, bytes */
};

int catalog_load_refuse(struct checkpoint_report *report, const char *file,
			int error, const char *reason)
{
	if (reason)
		fault_set(&report->fault, error, 0, reason);
	snprintf(report->file, sizeof(report->file), "%s", file);
	return error;
}

static int refuse(struct catalog_load *l, const struct metadata_file *marker,
		  int error, const char *reason)
{
	return catalog_load_refuse(l->report, marker->name, error, reason);
}

/* ---- one marker ---------------------------------------------------------- */

/* An open marker. */
struct opened {
	int fd;
	struct pin pin;		/* of what is open: a copy, perhaps */
};

/* Open a marker and pin it: all of it, or its header. -ENOENT: it is gone
 * since it was listed. */
static int open_marker(struct catalog_load *l, struct metadata_file *marker,
		       bool whole, struct opened *ret)
{
	struct checkpoint *c = l->checkpoint;
	struct stat status, opened;
	int error = c->spread ?
		    spread_open(c->spread, marker->name, &marker->pin, whole,
				&ret->fd, &status) :
		    io_open(c->folder, marker->name, &ret->fd, &status);

	if (!error && fstat(ret->fd, &opened) < 0) {
		error = -errno;
		close(ret->fd);
	}
	if (error)
		return error;
	ret->pin = pin_from_stat(&opened);
	marker->pin = pin_from_stat(&status);
	if (c->status.st_ino == 0)
		c->status = status;
	return 0;
}

/* Close it; -ESTALE when it is not what it was. */
static int close_marker(const struct opened *opened)
{
	struct stat after;
	struct pin pin;
	int error = 0;

	if (fstat(opened->fd, &after) == 0) {
		pin = pin_from_stat(&after);
		if (!pin_equal(&pin, &opened->pin))
			error = -ESTALE;
	}
	close(opened->fd);
	return error;
}

/* What may be read as a whole. */
struct text_rule {
	uint64_t limit;		/* bytes */
	int first;		/* its first byte; -1: any */
	const char *reason;	/* when that differs */
};

/* All pickles since protocol 2 begin with PROTO. */
static const struct text_rule pickle_rule = {
	LIMIT_METADATA_SIZE, 0x80, "not a pickle",
};
static const struct text_rule index_rule = { LIMIT_SAFETENSORS_HEADER, -1, "" };

static int read_text(struct catalog_load *l, const struct metadata_file *marker,
		     int fd, const struct text_rule *rule, void **ret_data)
{
	uint64_t size = marker->pin.size;
	unsigned char first = 0;
	void *data;
	int error = 0;

	if (size > rule->limit)
		return refuse(l, marker, -E2BIG, "the file is too large");
	if (size > 0)
		error = io_read(fd, &first, 1, 0);
	if (error)
		return refuse(l, marker, error, "reading failed");
	if (rule->first >= 0 && first != rule->first)
		return refuse(l, marker, -EBADMSG, rule->reason);
	data = malloc(size + 1);
	if (!data)
		return refuse(l, marker, -ENOMEM, "out of memory");
	error = io_read(fd, data, size, 0);
	if (error) {
		free(data);
		return refuse(l, marker, error, "reading failed");
	}
	*ret_data = data;
	return 0;
}

/* A whole marker, pinned; the caller frees it. */
static int read_marker(struct catalog_load *l, struct metadata_file *marker,
		       const struct text_rule *rule, void **ret_data)
{
	struct opened opened;
	int changed, error = open_marker(l, marker, true, &opened);
	void *data = NULL;

	if (error == -ENOENT)
		return -ESTALE;
	if (error)
		return refuse(l, marker, error, strerror(-error));
	error = read_text(l, marker, opened.fd, rule, &data);
	changed = close_marker(&opened);
	if (changed) {
		free(data);
		return changed;
	}
	*ret_data = data;
	return error;
}

/* ---- DCP ----------------------------------------------------------------- */

static int read_metadata(struct catalog_load *l)
{
	struct metadata_files *list = &l->checkpoint->markers;
	unsigned i, bad = 0;
	int error = 0;

	l->metadata = calloc(list->count, sizeof(*l->metadata));
	if (!l->metadata)
		return refuse(l, &list->markers[0], -ENOMEM, "out of memory");
	for (i = 0; i < list->count && !error; i++) {
		void *data = NULL;

		error = read_marker(l, &list->markers[i], &pickle_rule, &data);
		l->metadata[i] = (struct dcp_file){
			.data = data,
			.size = list->markers[i].pin.size,
			.local = list->kind == METADATA_DCP_LOCAL,
		};
	}
	if (error)
		return error;
	error = dcp_read(l->builder, l->metadata, list->count,
			 &l->report->notes, &l->report->fault, &bad);
	return error ? refuse(l, &list->markers[bad], error, NULL) : 0;
}

/* ---- safetensors --------------------------------------------------------- */

/* Errors that say something about the file, which may turn out not to count;
 * others are of the moment. */
static bool is_of_file(int error)
{
	return error == -EBADMSG || error == -E2BIG || io_is_missing(error);
}

/* Why a file could not be opened. A link to nothing is there; what is not may
 * just be gone. */
static int explain_open(const struct catalog_load *l,
			const struct metadata_file *marker, int error,
			struct fault *fault)
{
	const struct checkpoint *c = l->checkpoint;
	struct stat status;

	if (error == -ENOENT && !c->spread &&
	    fstatat(c->folder, marker->name, &status, AT_SYMLINK_NOFOLLOW) ==
	    0)
		return fault_set(fault, -EINVAL, 0, "link to nothing");
	if (error == -ENOENT && !c->file)
		return -ESTALE;
	return fault_set(fault, error, 0, error == -EXDEV ?
			 "link that leads out of the folder" :
			 strerror(-error));
}

static int read_header(struct catalog_load *l,
		       const struct metadata_file *marker, int fd,
		       struct hf_file *file)
{
	struct input input = input_file(fd, 0, marker->pin.size);
	int error = safetensors_read(&input, true, &file->header,
				     &file->fault);

	if (error)
		return error;
	l->header_size += file->header.data_offset;
	if (l->header_size <= LIMIT_METADATA_SIZE)
		return 0;
	return fault_set(&file->fault, -E2BIG, 0,
			 "headers of all files together too large");
}

/* The header of one file, pinned. What is wrong with it is kept for when it
 * is known whether it counts. */
static int add_file(struct catalog_load *l, struct metadata_file *marker)
{
	struct hf_file *file = &l->files[l->file_count++];
	struct opened opened;
	int changed, error = open_marker(l, marker, false, &opened);

	file->path = marker->name;
	if (error) {
		error = explain_open(l, marker, error, &file->fault);
	} else {
		error = read_header(l, marker, opened.fd, file);
		changed = close_marker(&opened);
		if (changed)
			return changed;
	}
	file->error = error;
	if (!error || is_of_file(error))
		return 0;
	if (error == -ESTALE)
		return error;
	l->report->fault = file->fault;
	return refuse(l, marker, error, NULL);
}

/* Those of sharded/, or those beside it. */
static int add_files(struct catalog_load *l, bool inner)
{
	struct metadata_files *list = &l->checkpoint->markers;
	unsigned count = metadata_files_files(list), i;
	int error = 0;

	for (i = 0; i < count && !error; i++)
		if (metadata_file_is_inner(&list->markers[i]) == inner)
			error = add_file(l, &list->markers[i]);
	return error;
}

static void drop_files(struct catalog_load *l)
{
	while (l->file_count > 0) {
		struct hf_file *file = &l->files[--l->file_count];

		safetensors_finish(&file->header);
		memset(file, 0, sizeof(*file));
	}
}

/* Do the files of sharded/ count? Also when some cannot be read: the ones
 * beside were made from them, and not always well. */
static bool inner_counts(const struct catalog_load *l)
{
	unsigned i;

	for (i = 0; i < l->file_count; i++)
		if (l->files[i].error || l->files[i].header.is_sharded)
			return true;
	return false;
}

static int read_index(struct catalog_load *l)
{
	struct metadata_files *list = &l->checkpoint->markers;
	struct metadata_file *marker = &list->markers[list->count - 1];
	void *data = NULL;
	int error;

	if (!list->has_index)
		return 0;
	error = read_marker(l, marker, &index_rule, &data);
	l->index.data = data;
	l->index.size = marker->pin.size;
	return error;
}

static int read_headers(struct catalog_load *l)
{
	unsigned count = metadata_files_files(&l->checkpoint->markers);
	int error = add_files(l, true);

	if (error)
		return error;
	if (inner_counts(l)) {
		notes_add(&l->report->notes,
			  "sharded/: its shards are used, not the %u files beside, which were made from them",
			  count - l->file_count);
		return 0;
	}
	drop_files(l);
	error = add_files(l, false);
	return error ? error : read_index(l);
}

static int read_safetensors(struct catalog_load *l)
{
	struct metadata_files *list = &l->checkpoint->markers;
	unsigned bad = 0;
	int error;

	l->files = calloc(list->count, sizeof(*l->files));
	if (!l->files)
		return refuse(l, &list->markers[0], -ENOMEM, "out of memory");
	error = read_headers(l);
	if (error)
		return error;
	error = hf_read(l->builder, l->files, l->file_count,
			l->index.data ? &l->index : NULL, &l->report->notes,
			&l->report->fault, &bad);
	if (!error)
		return 0;
	return catalog_load_refuse(l->report,
				   bad < l->file_count ?
					   l->files[bad].path :
					   list->markers[list->count - 1].name,
				   error, NULL);
}

/* ---- all ----------------------------------------------------------------- */

static void finish(struct catalog_load *l)
{
	unsigned i;

	for (i = 0; l->metadata && i < l->checkpoint->markers.count; i++)
		free((void *)l->metadata[i].data);
	free(l->metadata);
	if (l->files)
		drop_files(l);
	free(l->files);
	array_finish(&l->index);
	catalog_builder_destroy(l->builder);
}

int catalog_load_make_catalog(struct checkpoint *checkpoint,
			      struct checkpoint_report *report)
{
	struct catalog_load l = { .checkpoint = checkpoint, .report = report };
	const struct metadata_file *first = &checkpoint->markers.markers[0];
	int error;

	l.builder = catalog_builder_create(&report->notes);
	if (!l.builder)
		return refuse(&l, first, -ENOMEM, "out of memory");
	error = checkpoint->markers.kind == METADATA_SAFETENSORS ?
			read_safetensors(&l) :
			read_metadata(&l);
	if (!error && catalog_builder_finish(l.builder, &checkpoint->catalog))
		error = refuse(&l, first, -ENOMEM, "out of memory");
	finish(&l);
	return error;
}
