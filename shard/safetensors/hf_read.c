/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First all pieces are collected under the names of their tensors, in the
 * order of files and of their data; then the tensors are added, in the order
 * in which their names came, each with all its pieces.
 */
#include "shard/safetensors/hf.h"

#include "shard/base/name_table.h"
#include "shard/safetensors/hf_index.h"
#include "shard/safetensors/hf_tensor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Chains of pieces: index + 1; 0: the end. */
struct hf_chain {
	uint32_t first, last;
};

struct hf_reader {
	struct catalog_builder *builder;
	const struct hf_file *files;
	unsigned count;
	struct notes *notes;
	struct fault *fault;		/* as that of the pieces */
	struct hf_pieces all;
	struct name_table names;
	struct array named;		/* struct hf_chain, of each name */
	struct hf_index index;
	uint64_t lost;		/* tensors of the index that are nowhere */
};

static int no_memory(const struct hf_reader *r)
{
	return fault_set(r->fault, -ENOMEM, 0, "out of memory");
}

/* A file that counts could not be read. */
static int refuse_file(struct hf_reader *r, unsigned file)
{
	if (r->fault)
		*r->fault = r->files[file].fault;
	r->all.bad = file;
	return r->files[file].error;
}

/* ---- which pieces count -------------------------------------------------- */

/* Add tensor @tensor of file @file under @name. @join: to those that have the
 * name; else it only counts when it is the first. */
static int add_piece(struct hf_reader *r, unsigned file, uint64_t tensor,
		     const struct sharding_piece *what, bool join)
{
	struct hf_piece piece = { .file = file, .tensor = (uint32_t)tensor };
	struct hf_chain none = { 0, 0 }, *named;
	uint32_t index, place;
	int added = name_table_add(&r->names, what->name, what->name_size,
				   &index);

	if (added == 0 && !join)
		return 0;
	if (added < 0)
		return fault_set(r->fault, added, 0, strerror(-added));
	if (added && array_append(&r->named, &none, sizeof(none)))
		return no_memory(r);
	if (r->all.pieces.size / sizeof(piece) == LIMIT_COUNT)
		return hf_tensor_refuse(&r->all, &piece, -E2BIG,
					"too many tensors");
	if (array_append(&r->all.pieces, &piece, sizeof(piece)))
		return no_memory(r);
	place = (uint32_t)(r->all.pieces.size / sizeof(piece));
	named = (struct hf_chain *)(void *)r->named.data + index;
	if (named->last)
		((struct hf_piece *)(void *)r->all.pieces.data)
			[named->last - 1].next = place;
	else
		named->first = place;
	named->last = place;
	return 0;
}

/* @index_file: only what the index has in that file; -1: all. */
static int collect_file(struct hf_reader *r, unsigned file, int64_t index_file)
{
	const struct safetensors *header = &r->files[file].header;
	struct sharding_piece what;
	uint64_t i;
	int error = 0;

	if (header->is_sharded) {
		error = sharding_read(header, &r->all.shardings[file],
				      r->fault);
		r->all.bad = file;
	}
	for (i = 0; i < header->tensor_count && !error; i++) {
		sharding_piece(&r->all.shardings[file], header, i, &what);
		if (index_file >= 0 &&
		    !hf_index_has(&r->index, what.name, what.name_size,
				  (uint32_t)index_file))
			continue;
		error = add_piece(r, file, i, &what, header->is_sharded);
	}
	return error;
}

/* All files, those with sharding first: what is in one of them does not count
 * elsewhere. */
static int collect_sharded(struct hf_reader *r)
{
	unsigned i;
	int error = 0;

	for (i = 0; i < r->count && !error; i++)
		if (r->files[i].error)
			error = refuse_file(r, i);
		else if (r->files[i].header.is_sharded)
			error = collect_file(r, i, -1);
	for (i = 0; i < r->count && !error; i++)
		if (!r->files[i].header.is_sharded)
			error = collect_file(r, i, -1);
	return error;
}

static int compare_path(const void *key, const void *file)
{
	return strcmp(key, ((const struct hf_file *)file)->path);
}

static const struct hf_file *find_file(const struct hf_reader *r,
				       const char *path)
{
	return bsearch(path, r->files, r->count, sizeof(*r->files),
		       compare_path);
}

/* Where the index sends us, and what it is there for. */
static int64_t find_in_index(const struct hf_reader *r, unsigned file)
{
	const char *path = r->files[file].path;

	return name_table_find(&r->index.files, path, strlen(path));
}

static void note_missing_files(struct hf_reader *r)
{
	uint32_t i;

	for (i = 0; i < r->index.files.count; i++) {
		size_t size;
		const char *path = name_table_name(&r->index.files, i, &size);

		if (!find_file(r, path))
			notes_add(r->notes,
				  "%.200s: named in the index, and not there",
				  path);
	}
}

/* Names of which the file that the index names has none; those of missing
 * files, too. */
static void note_missing_tensors(struct hf_reader *r)
{
	const uint32_t *file_of = (const void *)r->index.file_of.data;
	uint32_t i;

	for (i = 0; i < r->index.tensors.count; i++) {
		size_t size, file_size;
		const char *name = name_table_name(&r->index.tensors, i,
						   &size);
		const char *file = name_table_name(&r->index.files, file_of[i],
						   &file_size);

		if (name_table_find(&r->names, name, size) >= 0)
			continue;
		r->lost++;
		notes_add(r->notes, "%.*s: not in %.*s, where the index has it",
			  size > 120 ? 120 : (int)size, name,
			  file_size > 80 ? 80 : (int)file_size, file);
	}
}

static int collect_indexed(struct hf_reader *r, const struct array *index)
{
	unsigned i;
	int error = hf_index_read(index->data, index->size, &r->index,
				  r->fault);

	r->all.bad = r->count;
	if (error)
		return error;
	note_missing_files(r);
	for (i = 0; i < r->count && !error; i++) {
		int64_t index_file = find_in_index(r, i);

		if (index_file < 0)
			continue;
		error = r->files[i].error ? refuse_file(r, i) :
			collect_file(r, i, index_file);
	}
	if (!error)
		note_missing_tensors(r);
	return error;
}

static int collect_plain(struct hf_reader *r)
{
	const struct hf_file *model = find_file(r, "model.safetensors");
	unsigned i;
	int error = 0;

	for (i = 0; i < r->count && !error; i++)
		if (!model || model == &r->files[i])
			error = r->files[i].error ? refuse_file(r, i) :
				collect_file(r, i, -1);
	return error;
}

static bool is_sharded(const struct hf_reader *r)
{
	unsigned i;

	for (i = 0; i < r->count; i++)
		if (!r->files[i].error && r->files[i].header.is_sharded)
			return true;
	return false;
}

/* ---- all together -------------------------------------------------------- */

static int add_tensor(struct hf_reader *r, uint32_t index)
{
	const struct hf_chain *named =
		(const struct hf_chain *)(const void *)r->named.data + index;
	size_t size;
	const char *name = name_table_name(&r->names, index, &size);

	return hf_tensor_add(&r->all, r->builder, name, size, named->first);
}

static int read_files(struct hf_reader *r, const struct array *index)
{
	bool sharded = is_sharded(r);
	struct catalog_origin origin = {
		.format = sharded ? CATALOG_SAFETENSORS_SHARDED :
				    CATALOG_SAFETENSORS,
		.torch_first = sharded ? 207 : 0,
	};
	uint32_t i;
	int error = sharded ? collect_sharded(r) :
		    index ? collect_indexed(r, index) : collect_plain(r);

	/* Beside shards an index does not say which files count, but what
	 * there is; one that cannot be read says nothing. */
	if (sharded && index && !error &&
	    !hf_index_read(index->data, index->size, &r->index, NULL))
		note_missing_tensors(r);
	if (!error)
		origin.lost = r->lost;
	catalog_builder_origin(r->builder, &origin);
	for (i = 0; i < r->names.count && !error; i++)
		error = add_tensor(r, i);
	return error;
}

int hf_read(struct catalog_builder *builder, const struct hf_folder *folder,
	    struct fault *fault, unsigned *ret_bad)
{
	struct hf_reader r = {
		.builder = builder, .files = folder->files,
		.count = folder->count,
		.notes = catalog_builder_notes(builder), .fault = fault,
		.all = { .files = folder->files, .fault = fault },
	};
	unsigned i;
	int error;

	name_table_init(&r.names, LIMIT_COUNT);
	r.all.shardings = calloc(r.count + 1, sizeof(*r.all.shardings));
	error = r.all.shardings ? read_files(&r, folder->index) :
		no_memory(&r);
	if (error)
		*ret_bad = r.all.bad;
	for (i = 0; i < r.count && r.all.shardings; i++)
		sharding_finish(&r.all.shardings[i]);
	free(r.all.shardings);
	name_table_finish(&r.names);
	array_finish(&r.named);
	array_finish(&r.all.pieces);
	hf_index_finish(&r.index);
	return error;
}
