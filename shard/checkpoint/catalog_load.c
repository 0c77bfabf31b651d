/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/checkpoint/catalog_load.h"

#include "shard/base/limits.h"
#include "shard/dcp/dcp.h"
#include "shard/safetensors/hf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A catalog that is made. */
struct loading {
	struct store_folder *folder;		/* borrowed, as are the three */
	struct metadata_files *markers;
	struct checkpoint_report *report;
	bool named;
	struct catalog_builder *builder;	/* owned */
	struct dcp_file *metadata;		/* owned, with their data */
	struct hf_file *files;			/* owned, with their headers */
	unsigned file_count;
	struct array index;			/* owned: text */
	uint64_t header_size;			/* of all files, bytes */
};

static int refuse(struct loading *l, const struct metadata_file *marker,
		  int error, const char *reason)
{
	return checkpoint_report_refuse(l->report, marker->name, error,
					reason);
}

/* ---- one marker ---------------------------------------------------------- */

/* Open a marker and pin it; what is known of it already must be true. -ENOENT:
 * it is gone since it was listed. */
static int open_marker(struct loading *l, struct metadata_file *marker,
		       struct stored_file **ret_file)
{
	struct store *store = l->folder->store;
	struct stored_file *file;
	int error = store->open_in(l->folder, marker->name, &file);

	if (error)
		return error;
	if (marker->owner.pin.inode != 0 &&
	    !pin_same_bytes(&marker->owner.pin, &file->pin)) {
		file->close(file);
		return -ESTALE;
	}
	marker->owner.pin = file->pin;
	marker->unused = false;
	*ret_file = file;
	return 0;
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

static int read_text(struct loading *l, const struct metadata_file *marker,
		     const struct input *input, const struct text_rule *rule,
		     void **ret_data)
{
	unsigned char first = 0;
	void *data;
	int error = 0;

	if (input->size > rule->limit)
		return refuse(l, marker, -E2BIG, "the file is too large");
	if (input->size > 0)
		error = input->read(input, &first, 1, 0);
	if (error == -ESTALE)
		return error;
	if (error)
		return refuse(l, marker, error, "reading failed");
	if (rule->first >= 0 && first != rule->first)
		return refuse(l, marker, -EBADMSG, rule->reason);
	data = malloc(input->size + 1);
	if (!data)
		return refuse(l, marker, -ENOMEM, "out of memory");
	error = input->read(input, data, input->size, 0);
	if (error) {
		free(data);
		return error == -ESTALE ? error :
		       refuse(l, marker, error, "reading failed");
	}
	*ret_data = data;
	return 0;
}

/* A whole marker, pinned; the caller frees it. */
static int read_marker(struct loading *l, struct metadata_file *marker,
		       const struct text_rule *rule, void **ret_data)
{
	struct stored_file *file;
	struct input input;
	int error = open_marker(l, marker, &file);

	if (error == -ENOENT || error == -ESTALE)
		return -ESTALE;
	if (error)
		return refuse(l, marker, error, strerror(-error));
	input = stored_file_input(file, NULL);
	error = read_text(l, marker, &input, rule, ret_data);
	file->close(file);
	return error;
}

/* ---- DCP ----------------------------------------------------------------- */

static int read_metadata(struct loading *l)
{
	struct metadata_files *list = l->markers;
	unsigned i, bad = 0;
	int error = 0;

	l->metadata = calloc(list->count, sizeof(*l->metadata));
	if (!l->metadata)
		return refuse(l, &list->files[0], -ENOMEM, "out of memory");
	for (i = 0; i < list->count && !error; i++) {
		void *data = NULL;

		error = read_marker(l, &list->files[i], &pickle_rule, &data);
		l->metadata[i] = (struct dcp_file){
			.data = data,
			.size = list->files[i].owner.pin.size,
			.local = list->kind == METADATA_DCP_LOCAL,
		};
	}
	if (error)
		return error;
	error = dcp_read(l->builder, l->metadata, list->count,
			 &l->report->fault, &bad);
	return error ? refuse(l, &list->files[bad], error, NULL) : 0;
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
static int explain_open(const struct loading *l,
			const struct metadata_file *marker, int error,
			struct fault *fault)
{
	struct store *store = l->folder->store;
	struct store_found found;

	if (error == -ENOENT &&
	    store->find(store, store_path_in(l->folder, marker->name),
			&found) == 0)
		return fault_set(fault, -EINVAL, 0, "link to nothing");
	if (error == -ENOENT && !l->named)
		return -ESTALE;
	return fault_set(fault, error, 0, error == -EXDEV ?
			 "link that leads out of the folder" :
			 strerror(-error));
}

static int read_header(struct loading *l, struct stored_file *stored,
		       struct hf_file *file)
{
	struct input input = stored_file_input(stored, NULL);
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
static int add_file(struct loading *l, struct metadata_file *marker)
{
	struct hf_file *file = &l->files[l->file_count++];
	struct stored_file *stored;
	int error = open_marker(l, marker, &stored);

	file->path = marker->name;
	if (!error) {
		error = read_header(l, stored, file);
		stored->close(stored);
	} else if (error != -ESTALE) {
		error = explain_open(l, marker, error, &file->fault);
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
static int add_files(struct loading *l, bool inner)
{
	struct metadata_files *list = l->markers;
	unsigned count = metadata_files_safetensors(list), i;
	int error = 0;

	for (i = 0; i < count && !error; i++)
		if (metadata_file_is_inner(&list->files[i]) == inner)
			error = add_file(l, &list->files[i]);
	return error;
}

static void drop_files(struct loading *l)
{
	while (l->file_count > 0) {
		struct hf_file *file = &l->files[--l->file_count];

		safetensors_finish(&file->header);
		memset(file, 0, sizeof(*file));
	}
}

/* Do the files of sharded/ count? Also when some cannot be read: the ones
 * beside were made from them, and not always well. */
static bool inner_counts(const struct loading *l)
{
	unsigned i;

	for (i = 0; i < l->file_count; i++)
		if (l->files[i].error || l->files[i].header.is_sharded)
			return true;
	return false;
}

static int read_index(struct loading *l)
{
	struct metadata_files *list = l->markers;
	struct metadata_file *marker = &list->files[list->count - 1];
	void *data = NULL;
	int error;

	if (!list->has_index)
		return 0;
	error = read_marker(l, marker, &index_rule, &data);
	l->index.data = data;
	l->index.size = marker->owner.pin.size;
	return error;
}

static int read_headers(struct loading *l)
{
	unsigned count = metadata_files_safetensors(l->markers);
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

static int read_safetensors(struct loading *l)
{
	struct metadata_files *list = l->markers;
	struct hf_folder folder;
	unsigned bad = 0;
	int error;

	l->files = calloc(list->count, sizeof(*l->files));
	if (!l->files)
		return refuse(l, &list->files[0], -ENOMEM, "out of memory");
	error = read_headers(l);
	if (error)
		return error;
	folder = (struct hf_folder){ l->files, l->file_count,
				     l->index.data ? &l->index : NULL };
	error = hf_read(l->builder, &folder, &l->report->fault, &bad);
	if (!error)
		return 0;
	return checkpoint_report_refuse(l->report,
				   bad < l->file_count ?
					   l->files[bad].path :
					   list->files[list->count - 1].name,
				   error, NULL);
}

/* ---- all ----------------------------------------------------------------- */

static void finish(struct loading *l)
{
	unsigned i;

	for (i = 0; l->metadata && i < l->markers->count; i++)
		free((void *)l->metadata[i].data);
	free(l->metadata);
	if (l->files)
		drop_files(l);
	free(l->files);
	array_finish(&l->index);
	catalog_builder_destroy(l->builder);
}

int catalog_load(struct store_folder *folder, struct metadata_files *files,
		 bool named, struct catalog **ret_catalog,
		 struct checkpoint_report *report)
{
	struct loading l = { .folder = folder, .markers = files,
			     .report = report, .named = named };
	unsigned i;
	int error;

	for (i = 0; i < files->count; i++)
		files->files[i].unused = true;
	l.builder = catalog_builder_create(&report->notes);
	if (!l.builder)
		return refuse(&l, &files->files[0], -ENOMEM, "out of memory");
	error = files->kind == METADATA_SAFETENSORS ? read_safetensors(&l) :
						      read_metadata(&l);
	if (!error && catalog_builder_finish(l.builder, ret_catalog))
		error = refuse(&l, &files->files[0], -ENOMEM, "out of memory");
	finish(&l);
	return error;
}
