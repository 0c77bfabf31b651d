/* SPDX-License-Identifier: Apache-2.0 */
/*
 *	header | span 0 | span 1 | ...
 *
 * A span is a tensor, or the selection of the only one. A read covers some of
 * them; it is widened to whole elements at its two ends, which is all the
 * widening there can be, and each span puts its part behind the base of the
 * reply.
 */
#include "shard/read/virtual_file.h"

#include "shard/read/npy.h"
#include "shard/read/transfer.h"
#include "shard/safetensors/safetensors_header.h"
#include "shard/values/convert.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct span {
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
	struct span spans[];
};

/* ---- making -------------------------------------------------------------- */

static struct virtual_file *create(const struct catalog *catalog,
				   uint64_t span_count)
{
	struct virtual_file *file = NULL;
	size_t size;

	if (!__builtin_mul_overflow(span_count, sizeof(struct span), &size) &&
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
	file->spans[0] = (struct span){ 0, origin->entry, *ret_type };
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

/* The parts that the file can hold, as sort wants them. */
struct candidate {
	const char *key;	/* borrowed from the catalog */
	size_t size;		/* of the key, bytes */
	uint64_t entry;
	enum dtype dtype;	/* of what is read */
};

static int compare_candidates(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	int x_order = dtype_info(x->dtype)->order;
	int y_order = dtype_info(y->dtype)->order;
	int order;

	if (x_order != y_order)
		return x_order > y_order ? -1 : 1;
	order = memcmp(x->key, y->key, x->size < y->size ? x->size : y->size);
	return order ? order : x->size < y->size ? -1 : x->size > y->size;
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
		struct candidate candidate = {
			.key = catalog_text(catalog, entry->name) +
			       parts[i].key,
			.size = entry->name_size - parts[i].key,
			.entry = parts[i].entry,
			.dtype = read_type(catalog, parts[i].entry,
					   parts[i].dtype),
		};

		/* Who maps the file dies of a read that fails. */
		if (parts[i].left_out || entry->flags & CATALOG_HOLES ||
		    !safetensors_header_fits(catalog, parts[i].entry,
					     candidate.dtype, candidate.key,
					     candidate.size))
			error = safetensors_header_leave_out(header,
				candidate.key, candidate.size);
		else
			error = array_append(candidates, &candidate,
					     sizeof(candidate));
	}
	return error;
}

static int add_parts(struct safetensors_header *header,
		     struct virtual_file *file,
		     const struct candidate *candidates)
{
	const struct catalog *catalog = file->catalog;
	uint64_t i;
	int error = 0;

	for (i = 0; i < file->span_count && !error; i++) {
		const struct candidate *candidate = &candidates[i];
		struct box shape;
		uint64_t size;

		catalog_shape(catalog, catalog_entry(catalog, candidate->entry),
			      &shape);
		size = box_volume(&shape) * dtype_info(candidate->dtype)->size;
		file->spans[i] = (struct span){
			file->data_size,
			candidate->entry,
			candidate->dtype,
		};
		error = safetensors_header_add(header, candidate->entry,
					       candidate->dtype, candidate->key,
					       candidate->size,
					       file->data_size);
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

	candidate_count = candidates.size / sizeof(struct candidate);
	if (!error) {
		file = create(catalog, candidate_count);
		error = file ? 0 : -ENOMEM;
	}
	if (!error) {
		file->whole = true;
		if (candidate_count > 1)
			qsort(candidates.data, candidate_count,
			      sizeof(struct candidate), compare_candidates);
		error = add_parts(&header, file, (const void *)candidates.data);
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
	if (!file || atomic_fetch_sub(&file->references, 1) > 1)
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

/* Elements [@begin, @end) of the transfer's tensor, converted. */
static int fill_converted(struct transfer *transfer, enum dtype to,
			  uint64_t begin, uint64_t end, struct reply *reply)
{
	enum dtype from = (enum dtype)transfer->entry->dtype;
	uint64_t element = dtype_info(from)->size;
	uint64_t most = LIMIT_READ_SIZE / element, count;
	unsigned char *target = reply_buffer(reply);
	struct reply *inner = reply_inner(reply);
	int error;

	if (!target || !inner)
		return -ENOMEM;
	target += reply->base;
	for (; begin < end; begin += count) {
		count = end - begin < most ? end - begin : most;
		transfer->offset = begin * element;
		transfer->size = count * element;
		error = transfer_read(transfer, inner);
		reply->lane = inner->lane;
		if (inner->fault.error) {
			reply->fault = inner->fault;
			reply->fault_file = inner->fault_file;
		}
		if (error)
			return error;
		/* What copies has all of it in its buffer, in one piece. */
		convert(from, to, inner->iov[0].iov_base, target, count);
		target += count * dtype_info(to)->size;
		reply_release(inner);
	}
	return 0;
}

/* Bytes [@from, @to) of the span, whole elements. */
static int fill_span(const struct virtual_file *file, uint64_t index,
		     struct source *source, uint64_t from, uint64_t to,
		     struct reply *reply)
{
	const struct span *span = &file->spans[index];
	const struct catalog_entry *entry =
		catalog_entry(file->catalog, span->entry);
	uint64_t element = dtype_info(span->dtype)->size;
	struct transfer transfer = {
		.source = source,
		.catalog = file->catalog,
		.entry = entry,
		.selection = &file->selection,
		.offset = from,
		.size = to - from,
	};
	struct box shape;

	if (file->whole) {
		catalog_shape(file->catalog, entry, &shape);
		transfer.selection = &shape;
	}
	if (span->dtype == (enum dtype)entry->dtype)
		return transfer_fill(&transfer, reply);
	return fill_converted(&transfer, span->dtype, from / element,
			      to / element, reply);
}

struct range {
	uint64_t begin, end;	/* bytes of the data, whole elements */
	uint64_t first;		/* span */
};

static int fill(const struct virtual_file *file, struct source *source,
		const struct range *range, struct reply *reply)
{
	uint64_t i;
	int error = 0;

	for (i = range->first; i < file->span_count && !error; i++) {
		uint64_t begin = file->spans[i].begin;
		uint64_t from = begin > range->begin ? begin : range->begin;
		uint64_t to = span_end(file, i);

		if (begin >= range->end)
			break;
		if (to > range->end)
			to = range->end;
		if (from >= to)
			continue;
		reply->base = from - range->begin;
		error = fill_span(file, i, source, from - begin, to - begin,
				  reply);
	}
	return error;
}

/* @size > 0 bytes of the data. */
static int read_data(const struct virtual_file *file, struct source *source,
		     uint64_t offset, uint64_t size, struct reply *reply)
{
	uint64_t end = offset + size, last = find_span(file, end - 1);
	struct range range = { .first = find_span(file, offset) };
	const struct span *a = &file->spans[range.first];
	const struct span *b = &file->spans[last];
	uint64_t element = dtype_info(b->dtype)->size;
	bool gather = false;
	int error;

	range.begin = offset -
		      (offset - a->begin) % dtype_info(a->dtype)->size;
	range.end = b->begin +
		    (end - b->begin + element - 1) / element * element;
	for (;;) {
		reply_begin(reply, range.end - range.begin);
		reply->gather |= gather;
		error = fill(file, source, &range, reply);
		if (!error)
			error = reply_finish(reply, offset - range.begin,
					     size);
		if (error != -ENOBUFS || reply->gather)
			break;
		/* Too finely cut to be borrowed: copy it together. */
		gather = true;
	}
	if (error)
		reply_release(reply);
	return error;
}

int virtual_file_read(const struct virtual_file *file, struct source *source,
		      uint64_t offset, uint64_t size, struct reply *reply)
{
	uint64_t from_header = 0;
	int error = 0;

	reply_begin(reply, 0);
	if (offset < file->header.size) {
		from_header = file->header.size - offset;
		if (from_header > size)
			from_header = size;
	}
	if (size > from_header)
		error = read_data(file, source,
				  offset + from_header - file->header.size,
				  size - from_header, reply);
	if (error || from_header == 0)
		return error;
	memmove(reply->iov + 1, reply->iov,
		reply->iov_count * sizeof(*reply->iov));
	reply->iov[0] =
		(struct iovec){ file->header.data + offset, from_header };
	reply->iov_count++;
	return 0;
}
