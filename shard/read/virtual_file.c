/* SPDX-License-Identifier: Apache-2.0 */
/*
 *	header | span 0 | span 1 | ...
 *
 * A span is a tensor, or the selection of the only one. A read covers parts of
 * some of them, each of which is
 *
 *	end of an element | whole elements | start of an element
 *
 * Whole elements are read to where they belong; of one that is cut, which
 * hardly anybody asks for, all is read beside, and a part is copied.
 */
#include "shard/read/virtual_file.h"

#include "shard/base/reference.h"
#include "shard/read/npy.h"
#include "shard/read/transfer.h"
#include "shard/safetensors/safetensors_header.h"
#include "shard/values/convert.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct file_span {
	uint64_t begin;		/* bytes from the start of the data */
	uint64_t entry;		/* index in the catalog */
	enum dtype dtype;	/* to convert to; DTYPE_UNKNOWN: as stored */
};

struct virtual_file {
	atomic_uint references;
	const struct catalog *catalog;	/* borrowed; const, like all below */
	struct box selection;		/* of the only span; unless `whole` */
	bool whole;			/* all of each tensor */
	struct array header;		/* owned */
	uint64_t data_size;		/* bytes */
	uint64_t span_count;
	struct file_span spans[];
};

/* ---- making -------------------------------------------------------------- */

static struct virtual_file *create(const struct catalog *catalog,
				   uint64_t span_count)
{
	struct virtual_file *file = NULL;
	size_t size;

	if (!__builtin_mul_overflow(span_count, sizeof(file->spans[0]),
				    &size) &&
	    !__builtin_add_overflow(size, sizeof(*file), &size))
		file = calloc(1, size);
	if (!file)
		return NULL;
	file->references = 1;
	file->catalog = catalog;
	file->span_count = span_count;
	return file;
}

/* The type of what is read; DTYPE_UNKNOWN: it cannot be had so. */
static enum dtype read_type(const struct catalog *catalog, uint64_t entry,
			    enum dtype dtype)
{
	enum dtype stored = (enum dtype)catalog_entry(catalog, entry)->dtype;

	if (dtype_info(stored)->size == 0)
		return DTYPE_UNKNOWN;
	if (dtype == DTYPE_UNKNOWN || dtype == stored)
		return stored;
	return convert_is_possible(stored, dtype) ? dtype : DTYPE_UNKNOWN;
}

/* A file of one span, and the type of its elements. */
static int create_single(const struct virtual_file_origin *origin,
			 struct virtual_file **ret_file, enum dtype *ret_type)
{
	struct virtual_file *file;

	*ret_type = read_type(origin->catalog, origin->entry, origin->dtype);
	if (*ret_type == DTYPE_UNKNOWN)
		return -EOPNOTSUPP;
	file = create(origin->catalog, 1);
	if (!file)
		return -ENOMEM;
	file->selection = origin->selection;
	file->data_size =
		box_volume(&origin->selection) * dtype_info(*ret_type)->size;
	file->spans[0] = (struct file_span){ 0, origin->entry, *ret_type };
	*ret_file = file;
	return 0;
}

int virtual_file_raw(const struct virtual_file_origin *origin,
		     struct virtual_file **ret_file)
{
	enum dtype dtype;

	return create_single(origin, ret_file, &dtype);
}

int virtual_file_npy(const struct virtual_file_origin *origin,
		     struct virtual_file **ret_file)
{
	char header[NPY_HEADER_MAX];
	struct virtual_file *file;
	enum dtype dtype;
	int error = create_single(origin, &file, &dtype);

	if (!error)
		error = array_append(&file->header, header,
				     npy_header(dtype, &origin->selection,
						header));
	else
		return error;
	if (error)
		virtual_file_put(file);
	else
		*ret_file = file;
	return error;
}

int virtual_file_safetensors_slice(const struct virtual_file_origin *origin,
				   struct virtual_file **ret_file)
{
	struct virtual_file *file;
	enum dtype dtype;
	int error = create_single(origin, &file, &dtype);

	if (error)
		return error;
	error = safetensors_header_slice(origin->catalog, origin->entry, dtype,
					 &origin->selection, &file->header);
	if (error)
		virtual_file_put(file);
	else
		*ret_file = file;
	return error;
}

/* The order of the tensors that the file can hold. */
static int compare_candidates(const void *a, const void *b)
{
	const struct safetensors_header_tensor *x = a, *y = b;
	int x_order = dtype_info(x->dtype)->order;
	int y_order = dtype_info(y->dtype)->order;
	int order;

	if (x_order != y_order)
		return x_order > y_order ? -1 : 1;
	order = memcmp(x->key, y->key, x->key_size < y->key_size ?
		       x->key_size : y->key_size);
	return order ? order :
	       x->key_size < y->key_size ? -1 : x->key_size > y->key_size;
}

static int take_parts(struct safetensors_header *header,
		      const struct catalog *catalog,
		      const struct virtual_file_part *parts, uint64_t count,
		      struct array *candidates)
{
	uint64_t i;
	int error = 0;

	for (i = 0; i < count && !error; i++) {
		const struct catalog_entry *entry =
			catalog_entry(catalog, parts[i].entry);
		struct safetensors_header_tensor candidate = {
			.key = catalog_text(catalog, entry->name) +
			       parts[i].key,
			.key_size = entry->name_size - parts[i].key,
			.entry = parts[i].entry,
			.dtype = read_type(catalog, parts[i].entry,
					   parts[i].dtype),
		};

		/* Who maps the file dies of a read that fails. */
		if (parts[i].left_out || entry->flags & CATALOG_HOLES ||
		    !safetensors_header_fits(catalog, &candidate))
			error = safetensors_header_leave_out(header,
				candidate.key, candidate.key_size);
		else
			error = array_append(candidates, &candidate,
					     sizeof(candidate));
	}
	return error;
}

static int add_parts(struct safetensors_header *header,
		     struct virtual_file *file,
		     struct safetensors_header_tensor *candidates)
{
	const struct catalog *catalog = file->catalog;
	uint64_t i;
	int error = 0;

	for (i = 0; i < file->span_count && !error; i++) {
		struct safetensors_header_tensor *candidate = &candidates[i];
		struct box shape;
		uint64_t size;

		catalog_shape(catalog, catalog_entry(catalog, candidate->entry),
			      &shape);
		size = box_volume(&shape) * dtype_info(candidate->dtype)->size;
		file->spans[i] = (struct file_span){
			file->data_size,
			candidate->entry,
			candidate->dtype,
		};
		candidate->begin = file->data_size;
		error = safetensors_header_add(header, candidate);
		if (__builtin_add_overflow(file->data_size, size,
					   &file->data_size) ||
		    file->data_size > LIMIT_TENSOR_SIZE)
			error = -E2BIG;
	}
	return error;
}

int virtual_file_safetensors(const struct catalog *catalog,
			     const struct virtual_file_part *parts,
			     uint64_t count, struct virtual_file **ret_file)
{
	struct safetensors_header header = { .catalog = catalog };
	struct array candidates = { .data = NULL };
	struct virtual_file *file = NULL;
	uint64_t candidate_count;
	int error = take_parts(&header, catalog, parts, count, &candidates);

	candidate_count = candidates.size /
			  sizeof(struct safetensors_header_tensor);
	if (!error) {
		file = create(catalog, candidate_count);
		error = file ? 0 : -ENOMEM;
	}
	if (!error) {
		file->whole = true;
		if (candidate_count > 1)
			qsort(candidates.data, candidate_count,
			      sizeof(struct safetensors_header_tensor),
			      compare_candidates);
		error = add_parts(&header, file, (void *)candidates.data);
	}
	if (!error)
		error = safetensors_header_finish(&header, &file->header);
	safetensors_header_clear(&header);
	array_finish(&candidates);
	if (error)
		virtual_file_put(file);
	else
		*ret_file = file;
	return error;
}

struct virtual_file *virtual_file_get(struct virtual_file *file)
{
	atomic_fetch_add(&file->references, 1);
	return file;
}

void virtual_file_put(struct virtual_file *file)
{
	if (!file || !reference_drop(&file->references))
		return;
	array_finish(&file->header);
	free(file);
}

uint64_t virtual_file_size(const struct virtual_file *file)
{
	return file->header.size + file->data_size;
}

uint64_t virtual_file_header_size(const struct virtual_file *file)
{
	return file->header.size;
}

/* ---- reading ------------------------------------------------------------- */

static uint64_t span_end(const struct virtual_file *file, uint64_t index)
{
	return index + 1 < file->span_count ? file->spans[index + 1].begin :
					      file->data_size;
}

/* The last span that begins at or before @offset: empty ones are passed. */
static uint64_t find_span(const struct virtual_file *file, uint64_t offset)
{
	uint64_t low = 0, high = file->span_count;

	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;

		if (file->spans[middle].begin <= offset)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* Where a reply was filled, while it is filled elsewhere. */
struct reply_target {
	unsigned char *data;
	uint64_t size, base;
	bool takes_loans;
};

static struct reply_target redirect(struct reply *reply, void *data,
				    uint64_t size)
{
	const struct reply_target filled = {
		reply->data, reply->size, reply->base, reply->takes_loans,
	};

	reply->data = data;
	reply->size = size;
	reply->base = 0;
	reply->takes_loans = false;
	return filled;
}

static void restore(struct reply *reply, const struct reply_target *filled)
{
	reply->data = filled->data;
	reply->size = filled->size;
	reply->base = filled->base;
	reply->takes_loans = filled->takes_loans;
}

/* Elements [@begin, @end) of the transfer's tensor, converted. */
static int read_converted(struct transfer *transfer, enum dtype to,
			  uint64_t begin, uint64_t end, struct reply *reply)
{
	enum dtype from = (enum dtype)transfer->entry->dtype;
	uint64_t element = dtype_info(from)->size, count;
	uint64_t most = LIMIT_READ_SIZE / element;
	unsigned char *target = reply->data + reply->base;
	unsigned char *elements = reply_elements(reply);
	struct reply_target filled;
	int error = elements ? 0 : -ENOMEM;

	for (; begin < end && !error; begin += count) {
		count = end - begin < most ? end - begin : most;
		transfer->offset = begin * element;
		transfer->size = count * element;
		filled = redirect(reply, elements, LIMIT_READ_SIZE);
		error = transfer_read(transfer, reply);
		restore(reply, &filled);
		if (error)
			break;
		convert(from, to, elements, target, count);
		target += count * dtype_info(to)->size;
	}
	return error;
}

/* What one read does. */
struct span_read {
	const struct virtual_file *file;
	struct source *source;
	uint64_t index;			/* of the span */
	struct reply *reply;
};

/* Bytes [@from, @to) of the span, whole elements. */
static int read_elements(const struct span_read *read, uint64_t from,
			 uint64_t to)
{
	const struct virtual_file *file = read->file;
	const struct file_span *span = &file->spans[read->index];
	const struct catalog_entry *entry =
		catalog_entry(file->catalog, span->entry);
	uint64_t element = dtype_info(span->dtype)->size;
	struct transfer transfer = {
		.source = read->source, .catalog = file->catalog,
		.entry = entry, .selection = &file->selection,
		.offset = from, .size = to - from,
	};
	struct box shape;

	if (file->whole) {
		catalog_shape(file->catalog, entry, &shape);
		transfer.selection = &shape;
	}
	if (span->dtype == (enum dtype)entry->dtype)
		return transfer_read(&transfer, read->reply);
	return read_converted(&transfer, span->dtype, from / element,
			      to / element, read->reply);
}

/* Bytes [@from, @to) of the element that begins at @begin of the span. */
static int read_cut(const struct span_read *read, uint64_t begin, uint64_t from,
		    uint64_t to)
{
	struct reply *reply = read->reply;
	enum dtype dtype = read->file->spans[read->index].dtype;
	unsigned char element[DTYPE_SIZE_MAX];
	struct reply_target filled = redirect(reply, element, sizeof(element));
	int error = read_elements(read, begin,
				  begin + dtype_info(dtype)->size);

	restore(reply, &filled);
	if (!error)
		memcpy(reply->data + reply->base, element + (from - begin),
		       to - from);
	return error;
}

/* Bytes [@from, @to) of the span. */
static int read_span(const struct span_read *read, uint64_t from, uint64_t to)
{
	const struct file_span *span = &read->file->spans[read->index];
	uint64_t element = dtype_info(span->dtype)->size, end;
	int error;

	if (from % element > 0) {
		end = from - from % element + element;
		if (end > to)
			end = to;
		error = read_cut(read, from - from % element, from, end);
		if (error || end == to)
			return error;
		read->reply->base += end - from;
		from = end;
	}
	end = to - to % element;
	if (end > from) {
		error = read_elements(read, from, end);
		if (error)
			return error;
		read->reply->base += end - from;
	}
	return end < to ? read_cut(read, end, end, to) : 0;
}

/* Bytes [@begin, @end) of the data, behind what comes before them in the
 * reply. */
static int read_data(const struct virtual_file *file, struct source *source,
		     uint64_t begin, uint64_t end, struct reply *reply)
{
	struct span_read read = {
		.file = file, .source = source, .reply = reply,
		.index = find_span(file, begin),
	};
	uint64_t first = reply->base;
	int error = 0;

	for (; read.index < file->span_count && !error; read.index++) {
		uint64_t start = file->spans[read.index].begin;
		uint64_t from = start > begin ? start : begin;
		uint64_t to = span_end(file, read.index);

		if (start >= end)
			break;
		if (to > end)
			to = end;
		if (from >= to)
			continue;
		reply->base = first + from - begin;
		error = read_span(&read, from - start, to - start);
	}
	return error;
}

int virtual_file_read(const struct virtual_file *file, struct source *source,
		      uint64_t offset, struct reply *reply)
{
	uint64_t header = file->header.size, size = reply->size, taken = 0;

	assert(offset <= virtual_file_size(file) &&
	       size <= virtual_file_size(file) - offset);
	if (offset < header) {
		taken = header - offset < size ? header - offset : size;
		memcpy(reply->data, file->header.data + offset, taken);
	}
	if (taken == size)
		return 0;
	reply->base = taken;
	return read_data(file, source, offset + taken - header,
			 offset + size - header, reply);
}

/* ---- keeping ------------------------------------------------------------- */

static const struct catalog_entry *entry_of(const struct virtual_file *file,
					    uint64_t span)
{
	return catalog_entry(file->catalog, file->spans[span].entry);
}

/* Tensors of one file stand together mostly: the first is enough. */
static bool is_kept_before(const struct virtual_file *file, uint64_t span)
{
	const struct catalog_entry *entry = entry_of(file, span), *before;

	if (span == 0)
		return false;
	before = entry_of(file, span - 1);
	return entry->shard_count == 1 && before->shard_count == 1 &&
	       catalog_shard(file->catalog, entry, 0)->file ==
		       catalog_shard(file->catalog, before, 0)->file;
}

static void release_some(const struct virtual_file *file, struct source *source,
			 uint64_t count)
{
	uint64_t i;

	for (i = 0; i < count; i++)
		if (!is_kept_before(file, i))
			source->release(source, entry_of(file, i));
}

int virtual_file_hold(const struct virtual_file *file, struct source *source,
		      bool nowait)
{
	uint64_t i;
	int error = 0;

	for (i = 0; source->hold && i < file->span_count && !error; i++)
		if (!is_kept_before(file, i))
			error = source->hold(source, entry_of(file, i), nowait);
	if (error)
		release_some(file, source, i - 1);
	return error;
}

void virtual_file_release(const struct virtual_file *file,
			  struct source *source)
{
	if (source->release)
		release_some(file, source, file->span_count);
}
