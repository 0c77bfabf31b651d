/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First all pieces are collected under the names of their tensors, in the
 * order of files and of their data; then the tensors are added, in the order
 * in which their names came, each with all its pieces.
 */
#include "shard/hf.h"

#include "shard/hf_index.h"
#include "shard/name_table.h"
#include "shard/sharding.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Chains of pieces: index + 1; 0: the end. */
struct named {
	uint32_t first, last;
};

struct piece {
	uint32_t file, tensor, next;
};

struct reader {
	struct catalog_builder *builder;
	const struct hf_file *files;
	unsigned count;
	struct notes *notes;
	struct fault *fault;
	unsigned bad;
	struct sharding *shardings;	/* owned; of each file */
	struct name_table names;
	struct array named;		/* struct named, of each name */
	struct array pieces;		/* struct piece */
	struct hf_index index;
};

/* A piece as the catalog has it. */
struct part {
	const struct safetensors_tensor *tensor;
	const uint64_t *written;	/* its sizes in the header */
	const uint64_t *global;		/* of its tensor; NULL: not known */
	struct box box;
	bool packed;
	bool merged;			/* several axes were packed into one */
};

static int no_memory(const struct reader *r)
{
	return fault_set(r->fault, -ENOMEM, 0, "out of memory");
}

/* A file that counts could not be read. */
static int refuse_file(struct reader *r, unsigned file)
{
	if (r->fault)
		*r->fault = r->files[file].fault;
	r->bad = file;
	return r->files[file].error;
}

static int refuse(struct reader *r, const struct piece *piece, int error,
		  const char *reason)
{
	const struct safetensors *header = &r->files[piece->file].header;
	const struct safetensors_tensor *tensor =
		safetensors_tensor(header, piece->tensor);

	r->bad = piece->file;
	return fault_set_detail(r->fault, error, tensor->source, reason,
				safetensors_name(header, tensor),
				tensor->name_size);
}

/* ---- which pieces count ---------------------------------------------------- */

/* Add tensor @tensor of file @file under @name. @join: to those that have the
 * name; else it only counts when it is the first. */
static int add_piece(struct reader *r, unsigned file, uint64_t tensor,
		     const struct sharding_piece *what, bool join)
{
	struct piece piece = { .file = file, .tensor = (uint32_t)tensor };
	struct named none = { 0, 0 }, *named;
	uint32_t index, place;
	int added = name_table_add(&r->names, what->name, what->name_size,
				   &index);

	if (added == 0 && !join)
		return 0;
	if (added < 0)
		return fault_set(r->fault, added, 0, strerror(-added));
	if (added && array_append(&r->named, &none, sizeof(none)))
		return no_memory(r);
	if (r->pieces.size / sizeof(piece) == LIMIT_COUNT)
		return refuse(r, &piece, -E2BIG, "too many tensors");
	if (array_append(&r->pieces, &piece, sizeof(piece)))
		return no_memory(r);
	place = (uint32_t)(r->pieces.size / sizeof(piece));
	named = (struct named *)(void *)r->named.data + index;
	if (named->last)
		((struct piece *)(void *)r->pieces.data)
			[named->last - 1].next = place;
	else
		named->first = place;
	named->last = place;
	return 0;
}

/* @index_file: only what the index has in that file; -1: all. */
static int collect_file(struct reader *r, unsigned file, int64_t index_file)
{
	const struct safetensors *header = &r->files[file].header;
	struct sharding_piece what;
	uint64_t i;
	int error = 0;

	if (header->is_sharded) {
		error = sharding_read(header, &r->shardings[file], r->fault);
		r->bad = file;
	}
	for (i = 0; i < header->tensor_count && !error; i++) {
		sharding_piece(&r->shardings[file], header, i, &what);
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
static int collect_sharded(struct reader *r)
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

static const struct hf_file *find_file(const struct reader *r,
				       const char *path)
{
	return bsearch(path, r->files, r->count, sizeof(*r->files),
		       compare_path);
}

/* Where the index sends us, and what it is there for. */
static int64_t find_in_index(const struct reader *r, unsigned file)
{
	const char *path = r->files[file].path;

	return name_table_find(&r->index.files, path, strlen(path));
}

static void note_missing_files(struct reader *r)
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
static void note_missing_tensors(struct reader *r)
{
	const uint32_t *file_of = (const void *)r->index.file_of.data;
	uint64_t missing = r->index.tensors.count - r->names.count;
	uint32_t i;

	if (missing == 0)
		return;
	for (i = 0; i < r->index.tensors.count; i++) {
		size_t size, file_size;
		const char *name = name_table_name(&r->index.tensors, i,
						   &size);
		const char *file = name_table_name(&r->index.files, file_of[i],
						   &file_size);

		if (name_table_find(&r->names, name, size) >= 0)
			continue;
		notes_add(r->notes, "%.*s: not in %.*s, where the index has it",
			  size > 120 ? 120 : (int)size, name,
			  file_size > 80 ? 80 : (int)file_size, file);
	}
}

static int collect_indexed(struct reader *r, const struct array *index)
{
	unsigned i;
	int error = hf_index_read(index->data, index->size, &r->index,
				  r->fault);

	r->bad = r->count;
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

static int collect_plain(struct reader *r)
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

static bool is_sharded(const struct reader *r)
{
	unsigned i;

	for (i = 0; i < r->count; i++)
		if (!r->files[i].error && r->files[i].header.is_sharded)
			return true;
	return false;
}

/* ---- tensors --------------------------------------------------------------- */

static const struct piece *piece_at(const struct reader *r, uint32_t place)
{
	return (const struct piece *)(const void *)r->pieces.data + place - 1;
}

static void load_part(const struct reader *r, const struct piece *piece,
		      struct part *ret)
{
	const struct safetensors *header = &r->files[piece->file].header;
	struct sharding_piece what;
	unsigned i, last;

	sharding_piece(&r->shardings[piece->file], header, piece->tensor,
		       &what);
	ret->tensor = safetensors_tensor(header, piece->tensor);
	ret->written = safetensors_dims(header, ret->tensor);
	ret->global = what.global;
	ret->box.ndim = ret->tensor->ndim;
	for (i = 0; i < ret->box.ndim; i++)
		ret->box.offset[i] = what.offsets ? what.offsets[i] : 0;
	ret->packed = safetensors_pack(ret->tensor->dtype, ret->box.ndim,
				       ret->written, ret->box.size);
	last = ret->box.ndim - 1;
	ret->merged = ret->packed &&
		      ret->box.size[last] * 8 !=
		      ret->written[last] * dtype_info(ret->tensor->dtype)->bits;
}

/* Make @shape hold @part, too. */
static int grow_shape(struct reader *r, const struct piece *piece,
		      const struct part *part, struct box *shape)
{
	uint64_t end;
	unsigned i;

	for (i = 0; i < shape->ndim; i++) {
		if (__builtin_add_overflow(part->box.offset[i],
					   part->box.size[i], &end))
			return refuse(r, piece, -E2BIG, "tensor too large");
		if (end > shape->size[i])
			shape->size[i] = end;
	}
	return 0;
}

/* The shape of all pieces from @place on: the one that they state, else what
 * they reach. */
static int find_shape(struct reader *r, uint32_t place, const struct part *head,
		      struct box *shape)
{
	const uint64_t *global = NULL;
	size_t size = head->box.ndim * sizeof(*shape->size);
	int error = 0;

	memset(shape, 0, sizeof(*shape));
	shape->ndim = head->box.ndim;
	while (place && !error) {
		const struct piece *piece = piece_at(r, place);
		struct part part;

		load_part(r, piece, &part);
		if (part.tensor->dtype != head->tensor->dtype)
			return refuse(r, piece, -EBADMSG,
				      "shards of a tensor differ in type");
		if (part.box.ndim != shape->ndim)
			return refuse(r, piece, -EBADMSG,
				      "shards of a tensor differ in axes");
		if (part.global && global &&
		    memcmp(part.global, global, size) != 0)
			return refuse(r, piece, -EBADMSG,
				      "shards of a tensor differ in its shape");
		if (part.global)
			global = part.global;
		error = grow_shape(r, piece, &part, shape);
		place = piece->next;
	}
	if (global && !error)
		memcpy(shape->size, global, size);
	return error;
}

/* Is @part all of a tensor of the shape @shape? */
static bool is_whole(const struct part *part, const struct box *shape)
{
	unsigned i;

	for (i = 0; i < shape->ndim; i++)
		if (part->box.offset[i] != 0 ||
		    part->box.size[i] != shape->size[i])
			return false;
	return true;
}

/*
 * The shape of a packed tensor as people write it. Torch knows only of those
 * that are packed along the last axis; another is read when it is whole.
 */
static int write_shape(struct reader *r, uint32_t place,
		       const struct box *shape, uint64_t *ret_written)
{
	const struct piece *piece = piece_at(r, place);
	unsigned last = shape->ndim - 1;
	size_t size = shape->ndim * sizeof(*ret_written);
	struct part part;
	uint64_t bits;

	load_part(r, piece, &part);
	if (is_whole(&part, shape) && !piece->next) {
		memcpy(ret_written, part.written, size);
		return 0;
	}
	memcpy(ret_written, shape->size, size);
	if (__builtin_mul_overflow(shape->size[last], 8, &bits))
		return refuse(r, piece, -E2BIG, "tensor too large");
	ret_written[last] = bits / dtype_info(part.tensor->dtype)->bits;
	if (bits % dtype_info(part.tensor->dtype)->bits != 0)
		return refuse(r, piece, -EBADMSG,
			      "tensor whose rows are no whole elements");
	for (; place; place = piece->next) {
		piece = piece_at(r, place);
		load_part(r, piece, &part);
		if (part.merged)
			return refuse(r, piece, -EBADMSG,
				      "shard whose rows are no whole bytes");
	}
	return 0;
}

static int add_shards(struct reader *r, uint32_t place)
{
	int error = 0;

	while (place && !error) {
		const struct piece *piece = piece_at(r, place);
		const struct hf_file *file = &r->files[piece->file];
		struct catalog_item item = { .flags = CATALOG_RAW };
		struct part part;

		load_part(r, piece, &part);
		item.offset = file->header.data_offset + part.tensor->begin;
		item.size = part.tensor->end - part.tensor->begin;
		error = catalog_builder_file(r->builder, file->path,
					     strlen(file->path), &item.file);
		if (error)
			return refuse(r, piece, error, strerror(-error));
		error = catalog_builder_shard(r->builder, &part.box, &item,
					      r->fault);
		place = piece->next;
	}
	return error;
}

static int add_tensor(struct reader *r, uint32_t index)
{
	const struct named *named =
		(const struct named *)(const void *)r->named.data + index;
	struct catalog_tensor tensor = { .name = NULL };
	uint64_t written[LIMIT_NDIM];
	struct part head;
	int error;

	load_part(r, piece_at(r, named->first), &head);
	tensor.name = name_table_name(&r->names, index, &tensor.name_size);
	tensor.dtype = (enum dtype)head.tensor->dtype;
	tensor.source = head.tensor->source;
	error = find_shape(r, named->first, &head, &tensor.shape);
	if (!error && head.packed) {
		error = write_shape(r, named->first, &tensor.shape, written);
		tensor.written = written;
	}
	if (error)
		return error;
	r->bad = piece_at(r, named->first)->file;
	error = catalog_builder_begin(r->builder, &tensor, r->fault);
	if (!error)
		error = add_shards(r, named->first);
	return error ? error : catalog_builder_end(r->builder, r->fault);
}

/* ---- all together ------------------------------------------------------------ */

static int read_files(struct reader *r, const struct array *index)
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

	catalog_builder_origin(r->builder, &origin);
	for (i = 0; i < r->names.count && !error; i++)
		error = add_tensor(r, i);
	return error;
}

int hf_read(struct catalog_builder *builder, const struct hf_file *files,
	    unsigned count, const struct array *index, struct notes *notes,
	    struct fault *fault, unsigned *ret_bad)
{
	struct reader r = { .builder = builder, .files = files, .count = count,
			    .notes = notes, .fault = fault };
	unsigned i;
	int error;

	name_table_init(&r.names);
	r.shardings = calloc(count + 1, sizeof(*r.shardings));
	error = r.shardings ? read_files(&r, index) : no_memory(&r);
	if (error)
		*ret_bad = r.bad;
	for (i = 0; i < count && r.shardings; i++)
		sharding_finish(&r.shardings[i]);
	free(r.shardings);
	name_table_finish(&r.names);
	array_finish(&r.named);
	array_finish(&r.pieces);
	hf_index_finish(&r.index);
	return error;
}
