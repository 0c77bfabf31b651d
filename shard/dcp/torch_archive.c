/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/dcp/torch_archive.h"

#include "shard/base/limits.h"
#include "shard/dcp/zip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/*
 * All that is read of an item but its payload stands at its start or at its
 * end: two reads, kept here, answer the dozen small ones of the parsers.
 */
enum { WINDOW_SIZE = 4096 };

struct archive_window {
	struct input input;		/* first: passed as this */
	const struct input *below;	/* borrowed from the caller */
	uint64_t tail_offset;
	unsigned char head[WINDOW_SIZE], tail[WINDOW_SIZE];
};

static int window_read(const struct input *input, void *buffer, size_t size,
		       uint64_t offset)
{
	const struct archive_window *window = (const void *)input;

	if (offset + size <= WINDOW_SIZE)
		memcpy(buffer, window->head + offset, size);
	else if (offset >= window->tail_offset)
		memcpy(buffer, window->tail + (offset - window->tail_offset),
		       size);
	else
		return window->below->read(window->below, buffer, size, offset);
	return 0;
}

static int window_init(struct archive_window *window, const struct input *below,
		       struct fault *fault)
{
	uint64_t size = below->size;
	size_t part = size < WINDOW_SIZE ? (size_t)size : WINDOW_SIZE;
	int error;

	window->input = (struct input){ .read = window_read, .size = size };
	window->below = below;
	window->tail_offset = size - part;
	error = below->read(below, window->head, part, 0);
	if (!error)
		error = below->read(below, window->tail, part,
				    window->tail_offset);
	return error ? fault_set(fault, error, 0, "reading failed") : 0;
}

static int damaged(struct fault *fault, uint64_t offset, const char *reason)
{
	fault_set(fault, -EIO, offset, reason);
	return -EIO;
}

static int unsupported(struct fault *fault, uint64_t offset,
		       const char *reason)
{
	fault_set(fault, -EOPNOTSUPP, offset, reason);
	return -EOPNOTSUPP;
}

/* Read a whole record of at most @limit bytes; the caller frees it. */
static int read_record(const struct zip *zip, struct zip_record *record,
		       uint64_t limit, void **ret_data, struct fault *fault)
{
	void *data;
	int error = zip_locate(zip, record, fault);

	if (error)
		return error;
	if (record->size > limit)
		return fault_set(fault, -E2BIG, record->offset,
				 "data.pkl is too large");
	data = malloc(record->size + 1);
	if (!data)
		return fault_set(fault, -ENOMEM, 0, "out of memory");
	error = zip->input->read(zip->input, data, record->size,
				 record->offset);
	if (error)
		fault_set(fault, error, record->offset, "reading failed");
	else if (record->crc && crc32_z(0, data, record->size) != record->crc)
		/* torch can be told to record none, and writes 0 then. */
		error = damaged(fault, record->offset,
				"data.pkl does not match its checksum");
	if (error) {
		free(data);
		return error;
	}
	*ret_data = data;
	return 0;
}

/* The record data.pkl, parsed. */
struct archive_pickle {
	void *data;			/* owned; the pickle borrows it */
	struct pickle pickle;		/* owned */
	uint64_t offset;		/* bytes from the start of the item */
};

/* Faults count from the start of the item, too. */
static int read_pickle(const struct zip *zip, uint64_t limit,
		       struct archive_pickle *ret, struct fault *fault)
{
	struct archive_pickle parsed;
	struct zip_record record;
	int error = zip_find(zip, "data.pkl", 8, &record, fault);

	if (error == -ENOENT)
		return damaged(fault, zip->directory_offset,
			       "no data.pkl in the stored item");
	if (!error)
		error = read_record(zip, &record, limit, &parsed.data, fault);
	if (error)
		return error;
	error = pickle_init(&parsed.pickle, parsed.data, record.size, fault);
	if (error) {
		free(parsed.data);
		if (fault)
			fault->offset += record.offset;
		return error;
	}
	parsed.offset = record.offset;
	*ret = parsed;
	return 0;
}

/* ---- the tensor of a data.pkl -------------------------------------------- */

struct archive_tensor {
	const struct pickle *pickle;
	struct fault *fault;
	uint64_t where;			/* offset of the pickle in the item */
	const struct pickle_value *args;
	uint64_t arg_count;
	enum dtype dtype;
	const char *key;		/* of the storage */
	uint64_t key_size;
	uint64_t storage_size;		/* bytes */
	unsigned flags;			/* enum layout_flag */
	bool typed_by_args;		/* _rebuild_tensor_v3 */
};

static int bad_tensor(const struct archive_tensor *t, const char *reason)
{
	return damaged(t->fault, t->where, reason);
}

static int unknown_callable(const struct archive_tensor *t,
			    struct pickle_value call)
{
	struct pickle_symbol symbol = { .name = "" };

	pickle_symbol(t->pickle, call, &symbol);
	fault_set_detail(t->fault, -EOPNOTSUPP,
			 t->where + pickle_offset(t->pickle, call),
			 "tensor of a kind that is not read",
			 (struct fault_detail){ symbol.name,
						symbol.name_size });
	return -EOPNOTSUPP;
}

/*
 * Down to the call that makes the tensor: a parameter and a subclass wrap
 * it. What may be wrapped is bounded by the pickle's size, since arguments
 * were pickled before what takes them.
 */
static int unwrap(struct archive_tensor *t)
{
	const struct pickle *p = t->pickle;
	struct pickle_value call = pickle_callable(p, p->root);
	struct pickle_value args = pickle_args(p, p->root);
	unsigned depth;

	if (pickle_kind(p, p->root) != PICKLE_CALL)
		return bad_tensor(t, "data.pkl holds no tensor");
	for (depth = 0; depth < 8; depth++) {
		if (!pickle_tuple(p, args, &t->args, &t->arg_count))
			return bad_tensor(t, "data.pkl holds no tensor");
		if (pickle_symbol_is(p, call, "_rebuild_tensor_v2") ||
		    pickle_symbol_is(p, call, "_rebuild_qtensor"))
			return 0;
		if (pickle_symbol_is(p, call, "_rebuild_tensor_v3")) {
			t->typed_by_args = true;
			return 0;
		}
		if ((pickle_symbol_is(p, call, "_rebuild_parameter") ||
		     pickle_symbol_is(p, call,
				      "_rebuild_parameter_with_state")) &&
		    t->arg_count > 0 &&
		    pickle_kind(p, t->args[0]) == PICKLE_CALL) {
			call = pickle_callable(p, t->args[0]);
			args = pickle_args(p, t->args[0]);
		} else if (pickle_symbol_is(p, call,
					    "_rebuild_from_type_v2") &&
			   t->arg_count >= 3) {
			call = t->args[0];
			args = t->args[2];
		} else {
			return unknown_callable(t, call);
		}
	}
	return unknown_callable(t, call);
}

/* ('storage', type, key, location, elements or bytes) */
static int read_storage(struct archive_tensor *t)
{
	const struct pickle *p = t->pickle;
	const struct pickle_value *id;
	struct pickle_symbol type;
	uint64_t count;
	int64_t number;

	if (t->arg_count < 6 ||
	    pickle_kind(p, t->args[0]) != PICKLE_PERSID ||
	    !pickle_tuple(p, pickle_args(p, t->args[0]), &id, &count) ||
	    count < 5 ||
	    !pickle_symbol(p, id[1], &type) ||
	    !pickle_string(p, id[2], &t->key, &t->key_size) ||
	    !pickle_int(p, id[4], &number) || number < 0)
		return bad_tensor(t, "bad storage of a tensor");
	t->dtype = dtype_from_storage(type.name, type.name_size);
	t->storage_size = (uint64_t)number;
	if (t->typed_by_args) {
		if (t->arg_count < 7 || !pickle_symbol(p, t->args[6], &type))
			return bad_tensor(t, "bad type of a tensor");
		t->dtype = dtype_from_torch(type.name, type.name_size);
		return 0;
	}
	if (t->dtype == DTYPE_UNKNOWN)
		return unsupported(t->fault, t->where,
				   "storage of an unknown type");
	if (__builtin_mul_overflow(t->storage_size,
				   dtype_info(t->dtype)->size,
				   &t->storage_size))
		return bad_tensor(t, "storage too large");
	return 0;
}

/* The conjugate and negative bits: the dict behind the hooks. */
static void read_bits(struct archive_tensor *t)
{
	uint64_t index = t->typed_by_args ? 7 : 6;
	struct pickle_value value;
	bool set;

	if (t->arg_count <= index)
		return;
	if (pickle_get(t->pickle, t->args[index], "conj", &value) &&
	    pickle_bool(value, &set) && set)
		t->flags |= LAYOUT_CONJ;
	if (pickle_get(t->pickle, t->args[index], "neg", &value) &&
	    pickle_bool(value, &set) && set)
		t->flags |= LAYOUT_NEG;
}

static int read_numbers(const struct archive_tensor *t, unsigned arg,
			uint64_t numbers[LIMIT_NDIM], unsigned ndim)
{
	const struct pickle_value *items;
	uint64_t count, i;
	int64_t number;

	if (!pickle_tuple(t->pickle, t->args[arg], &items, &count) ||
	    count != ndim)
		return bad_tensor(t, "stored tensor and metadata differ in shape");
	for (i = 0; i < count; i++) {
		if (!pickle_int(t->pickle, items[i], &number) || number < 0)
			return bad_tensor(t, "bad size or stride of a tensor");
		numbers[i] = (uint64_t)number;
	}
	return 0;
}

/* No element may lie outside of the storage. */
static int check_reach(const struct archive_tensor *t, const struct box *shard,
		       uint64_t first, const uint64_t *stride)
{
	uint64_t last = first, part, size = dtype_info(t->dtype)->size;
	unsigned i;

	if (box_volume(shard) == 0)
		return 0;
	for (i = 0; i < shard->ndim; i++)
		if (__builtin_mul_overflow(shard->size[i] - 1, stride[i],
					   &part) ||
		    __builtin_add_overflow(last, part, &last))
			return bad_tensor(t, "tensor reaches beyond its storage");
	if (__builtin_add_overflow(last, 1, &last) ||
	    __builtin_mul_overflow(last, size, &last) ||
	    last > t->storage_size)
		return bad_tensor(t, "tensor reaches beyond its storage");
	return 0;
}

static int read_geometry(const struct archive_tensor *t,
			 const struct box *shard, struct layout *layout)
{
	uint64_t sizes[LIMIT_NDIM];
	int64_t first;
	int error = read_numbers(t, 2, sizes, shard->ndim);

	if (!error)
		error = read_numbers(t, 3, layout->stride, shard->ndim);
	if (error)
		return error;
	if (memcmp(sizes, shard->size, shard->ndim * sizeof(*sizes)) != 0)
		return bad_tensor(t, "stored tensor and metadata differ in shape");
	if (!pickle_int(t->pickle, t->args[1], &first) || first < 0)
		return bad_tensor(t, "bad offset of a tensor in its storage");
	error = check_reach(t, shard, (uint64_t)first, layout->stride);
	if (!error)
		layout->offset = (uint64_t)first * dtype_info(t->dtype)->size;
	return error;
}

static int read_tensor(struct archive_tensor *t, enum dtype dtype,
		       const struct box *shard, struct layout *layout)
{
	int error = unwrap(t);

	if (!error)
		error = read_storage(t);
	if (error)
		return error;
	read_bits(t);
	if (t->dtype != dtype)
		return bad_tensor(t, "stored tensor and metadata differ in type");
	return read_geometry(t, shard, layout);
}

/* ---- the item ------------------------------------------------------------ */

/* Where the elements are: PREFIX/data/KEY. */
static int read_payload(const struct zip *zip, const struct archive_tensor *t,
			struct layout *layout, struct fault *fault)
{
	struct zip_record record;
	char name[64] = "data/";
	int error;

	if (t->key_size > sizeof(name) - 5)
		return damaged(fault, 0, "storage with a long name");
	memcpy(name + 5, t->key, t->key_size);
	error = zip_find(zip, name, 5 + t->key_size, &record, fault);
	if (error == -ENOENT)
		return damaged(fault, zip->directory_offset,
			       "no record with the elements of the tensor");
	if (!error)
		error = zip_locate(zip, &record, fault);
	if (error)
		return error;
	if (record.size != t->storage_size)
		return damaged(fault, record.header,
			       "storage and its record differ in size");
	layout->offset += record.offset;
	return 0;
}

static int read_byte_order(const struct zip *zip, struct layout *layout,
			   struct fault *fault)
{
	struct zip_record record;
	char text[6];
	int error = zip_find(zip, "byteorder", 9, &record, fault);

	if (error == -ENOENT)
		return 0;
	if (!error)
		error = zip_locate(zip, &record, fault);
	if (error)
		return error;
	if (record.size == 3 || record.size == 6) {
		error = zip->input->read(zip->input, text, record.size,
					 record.offset);
		if (error)
			return fault_set(fault, error, record.offset,
					 "reading failed");
		if (record.size == 3 && memcmp(text, "big", 3) == 0) {
			layout->flags |= LAYOUT_SWAP;
			return 0;
		}
		if (record.size == 6 && memcmp(text, "little", 6) == 0)
			return 0;
	}
	return damaged(fault, record.offset, "unknown byte order");
}

static int check_start(const struct archive_window *window, struct fault *fault)
{
	if (window->input.size > 9 && memcmp(window->head, "PK\3\4", 4) != 0 &&
	    window->head[8] == '{')
		return unsupported(fault, 0, "stored item is safetensors");
	return 0;
}

int torch_archive_layout(const struct input *input, enum dtype dtype,
			 const struct box *shard, struct layout *ret_layout,
			 struct fault *fault)
{
	struct archive_tensor tensor = { .fault = fault };
	struct layout layout = { .flags = 0 };
	struct archive_window window;
	struct archive_pickle parsed;
	struct zip zip;
	int error = window_init(&window, input, fault);

	if (!error)
		error = check_start(&window, fault);
	if (!error)
		error = zip_open(&zip, &window.input,
				 LIMIT_TENSOR_DIRECTORY_SIZE, fault);
	if (error)
		return error;
	error = read_pickle(&zip, LIMIT_TENSOR_PICKLE_SIZE, &parsed, fault);
	if (error)
		goto close_zip;
	tensor.pickle = &parsed.pickle;
	tensor.where = parsed.offset;
	error = read_tensor(&tensor, dtype, shard, &layout);
	if (!error)
		error = read_payload(&zip, &tensor, &layout, fault);
	if (!error)
		error = read_byte_order(&zip, &layout, fault);
	if (!error) {
		layout.flags |= tensor.flags;
		layout.offset += input->base;
		*ret_layout = layout;
	}
	pickle_finish(&parsed.pickle);
	free(parsed.data);
close_zip:
	zip_close(&zip);
	return error;
}

int torch_archive_pickle(const struct input *input, uint64_t limit,
			 void **ret_data, struct pickle *ret_pickle,
			 struct fault *fault)
{
	struct archive_window window;
	struct archive_pickle parsed;
	struct zip zip;
	int error = window_init(&window, input, fault);

	if (!error)
		error = zip_open(&zip, &window.input,
				 LIMIT_OBJECT_DIRECTORY_SIZE, fault);
	if (error)
		return error;
	error = read_pickle(&zip, limit, &parsed, fault);
	zip_close(&zip);
	if (error)
		return error;
	*ret_data = parsed.data;
	*ret_pickle = parsed.pickle;
	return 0;
}
