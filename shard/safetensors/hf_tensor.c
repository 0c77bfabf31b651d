/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/safetensors/hf_tensor.h"

#include <errno.h>
#include <string.h>

/* A piece as the catalog has it. */
struct hf_part {
	const struct safetensors_tensor *tensor;
	const uint64_t *written;	/* its sizes in the header */
	const uint64_t *global;		/* of its tensor; NULL: not known */
	struct box box;
	bool packed;
	bool merged;			/* several axes were packed into one */
};

int hf_tensor_refuse(struct hf_pieces *p, const struct hf_piece *piece,
		     int error, const char *reason)
{
	const struct safetensors *header = &p->files[piece->file].header;
	const struct safetensors_tensor *tensor =
		safetensors_tensor(header, piece->tensor);

	p->bad = piece->file;
	return fault_set_detail(p->fault, error, tensor->source, reason,
				(struct fault_detail){
					safetensors_name(header, tensor),
					tensor->name_size });
}

static const struct hf_piece *piece_at(const struct hf_pieces *p,
				       uint32_t place)
{
	const struct hf_piece *pieces = (const void *)p->pieces.data;

	return &pieces[place - 1];
}

static void load_part(const struct hf_pieces *p, const struct hf_piece *piece,
		      struct hf_part *ret)
{
	const struct safetensors *header = &p->files[piece->file].header;
	struct sharding_piece what;
	unsigned i, last;

	sharding_piece(&p->shardings[piece->file], header, piece->tensor,
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
static int grow_shape(struct hf_pieces *p, const struct hf_piece *piece,
		      const struct hf_part *part, struct box *shape)
{
	uint64_t end;
	unsigned i;

	for (i = 0; i < shape->ndim; i++) {
		if (__builtin_add_overflow(part->box.offset[i],
					   part->box.size[i], &end))
			return hf_tensor_refuse(p, piece, -E2BIG,
						"tensor too large");
		if (end > shape->size[i])
			shape->size[i] = end;
	}
	return 0;
}

/* The shape of all pieces from @place on: the one that they state, else what
 * they reach. */
static int find_shape(struct hf_pieces *p, uint32_t place,
		      const struct hf_part *head, struct box *shape)
{
	const uint64_t *global = NULL;
	size_t size = head->box.ndim * sizeof(*shape->size);
	int error = 0;

	memset(shape, 0, sizeof(*shape));
	shape->ndim = head->box.ndim;
	while (place && !error) {
		const struct hf_piece *piece = piece_at(p, place);
		struct hf_part part;

		load_part(p, piece, &part);
		if (part.tensor->dtype != head->tensor->dtype)
			return hf_tensor_refuse(p, piece, -EBADMSG,
				      "shards of a tensor differ in type");
		if (part.box.ndim != shape->ndim)
			return hf_tensor_refuse(p, piece, -EBADMSG,
				      "shards of a tensor differ in axes");
		if (part.global && global &&
		    memcmp(part.global, global, size) != 0)
			return hf_tensor_refuse(p, piece, -EBADMSG,
				      "shards of a tensor differ in its shape");
		if (part.global)
			global = part.global;
		error = grow_shape(p, piece, &part, shape);
		place = piece->next;
	}
	if (global && !error)
		memcpy(shape->size, global, size);
	return error;
}

/* Is @part all of a tensor of the shape @shape? */
static bool is_whole(const struct hf_part *part, const struct box *shape)
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
static int write_shape(struct hf_pieces *p, uint32_t place,
		       const struct box *shape, uint64_t *ret_written)
{
	const struct hf_piece *piece = piece_at(p, place);
	unsigned last = shape->ndim - 1;
	size_t size = shape->ndim * sizeof(*ret_written);
	struct hf_part part;
	uint64_t bits;

	load_part(p, piece, &part);
	if (is_whole(&part, shape) && !piece->next) {
		memcpy(ret_written, part.written, size);
		return 0;
	}
	memcpy(ret_written, shape->size, size);
	if (__builtin_mul_overflow(shape->size[last], 8, &bits))
		return hf_tensor_refuse(p, piece, -E2BIG, "tensor too large");
	ret_written[last] = bits / dtype_info(part.tensor->dtype)->bits;
	if (bits % dtype_info(part.tensor->dtype)->bits != 0)
		return hf_tensor_refuse(p, piece, -EBADMSG,
			      "tensor whose rows are no whole elements");
	for (; place; place = piece->next) {
		piece = piece_at(p, place);
		load_part(p, piece, &part);
		if (part.merged)
			return hf_tensor_refuse(p, piece, -EBADMSG,
				      "shard whose rows are no whole bytes");
	}
	return 0;
}

static int add_shards(struct hf_pieces *p, struct catalog_builder *builder,
		      uint32_t place)
{
	int error = 0;

	while (place && !error) {
		const struct hf_piece *piece = piece_at(p, place);
		const struct hf_file *file = &p->files[piece->file];
		struct catalog_item item = { .flags = CATALOG_RAW };
		struct hf_part part;

		load_part(p, piece, &part);
		item.offset = file->header.data_offset + part.tensor->begin;
		item.size = part.tensor->end - part.tensor->begin;
		error = catalog_builder_file(builder, file->path,
					     strlen(file->path), &item.file);
		if (error)
			return hf_tensor_refuse(p, piece, error,
						strerror(-error));
		error = catalog_builder_shard(builder, &part.box, &item,
					      p->fault);
		place = piece->next;
	}
	return error;
}

int hf_tensor_add(struct hf_pieces *p, struct catalog_builder *builder,
		  const char *name, size_t size, uint32_t first)
{
	struct catalog_tensor tensor = { .name = name, .name_size = size };
	uint64_t written[LIMIT_NDIM];
	struct hf_part head;
	int error;

	load_part(p, piece_at(p, first), &head);
	tensor.dtype = (enum dtype)head.tensor->dtype;
	tensor.source = head.tensor->source;
	error = find_shape(p, first, &head, &tensor.shape);
	if (!error && head.packed) {
		error = write_shape(p, first, &tensor.shape, written);
		tensor.written = written;
	}
	if (error)
		return error;
	p->bad = piece_at(p, first)->file;
	error = catalog_builder_begin(builder, &tensor, p->fault);
	if (!error)
		error = add_shards(p, builder, first);
	return error ? error : catalog_builder_end(builder, p->fault);
}
