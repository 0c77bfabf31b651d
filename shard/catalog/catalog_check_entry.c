/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The builder appends tensors and objects as they come, and their shards and
 * numbers each to one section; only the entries are sorted, objects behind
 * tensors. So whichever entry comes next in the shards is the next tensor or
 * the next object, and all of them together have each shard once: who goes
 * through the entries goes through all shards, and meets none twice.
 */
#include "shard/catalog/catalog_check_entry.h"

#include <errno.h>

enum { TENSOR_FLAGS = CATALOG_HOLES | CATALOG_OVERLAP | CATALOG_PACKED };

/* An entry of which the texts, the place of its numbers and the shape are
 * good, while its shards are looked at. */
struct checked_entry {
	const struct catalog_entry *entry;
	struct box shape;
	uint64_t volume;		/* of it */
	uint64_t element;		/* bytes */
	uint64_t covered;		/* elements of the shards so far */
	uint64_t start, reach;		/* of them on axis 0 */
};

static int refuse(const struct catalog_checker *checker, const void *where,
		  const char *reason)
{
	return catalog_checker_refuse(checker, where, reason);
}

/* ---- entries ------------------------------------------------------------- */

static int check_kind(const struct catalog_checker *checker,
		      const struct catalog_entry *entry, bool object)
{
	bool holes = entry->flags & CATALOG_HOLES;

	if (entry->flags & ~(object ? CATALOG_OBJECT : TENSOR_FLAGS) ||
	    object != !!(entry->flags & CATALOG_OBJECT))
		return refuse(checker, entry, "bad flags of an entry");
	if (entry->dtype >= DTYPE_COUNT)
		return refuse(checker, entry, "unknown type of a tensor");
	if (entry->ndim > LIMIT_NDIM ||
	    (entry->width != 4 && entry->width != 8))
		return refuse(checker, entry, "bad shape");
	if (holes != (entry->hole_count > 0) ||
	    entry->hole_count > LIMIT_HOLES)
		return refuse(checker, entry, "bad number of holes");
	if (object && (entry->ndim != 1 || entry->shard_count != 1 ||
		       entry->dtype != DTYPE_U8))
		return refuse(checker, entry, "object that is not one item");
	return 0;
}

/* The parts of a path end at dots of the name, one behind the other. */
static bool is_path(const struct catalog *catalog,
		    const struct catalog_entry *entry)
{
	const char *name = catalog_text(catalog, entry->name);
	size_t last = 0;
	unsigned i;

	for (i = 1; i < entry->depth; i++) {
		size_t end = catalog_path_size(catalog, entry, i);

		if (end >= entry->name_size || name[end] != '.' ||
		    (i > 1 && end <= last))
			return false;
		last = end;
	}
	return true;
}

static int check_texts(struct catalog_checker *checker,
		       const struct catalog_entry *entry)
{
	uint64_t size = entry->name_size;

	if (entry->name_size > LIMIT_NAME_SIZE ||
	    entry->depth > LIMIT_PATH_DEPTH)
		return refuse(checker, entry, "name too long");
	if (entry->depth > 1)
		size += (entry->depth - 1) * sizeof(uint32_t);
	if (!catalog_checker_text(checker, entry->name, size))
		return refuse(checker, entry, "name beyond the names");
	if (!is_path(checker->catalog, entry))
		return refuse(checker, entry, "bad path of a name");
	if (entry->type_name_size == 0)
		return entry->type_name ?
		       refuse(checker, entry, "name of no type") : 0;
	if (entry->type_name_size > LIMIT_TYPE_NAME_SIZE ||
	    !catalog_checker_text(checker, entry->type_name,
				  entry->type_name_size))
		return refuse(checker, entry, "bad name of a type");
	return 0;
}

/* Its shards and numbers begin where those before it end, which is_next has
 * seen. Do they end inside, too? */
static int take_shards(struct catalog_checker *checker,
		       const struct catalog_entry *entry)
{
	const struct catalog *catalog = checker->catalog;
	uint64_t count = (uint64_t)entry->shard_count + entry->hole_count;
	uint64_t shapes = entry->flags & CATALOG_PACKED ? 2 : 1;
	uint64_t size = (shapes + 2 * count) * entry->ndim * entry->width;

	if (count > catalog->shard_count - checker->shard_count)
		return refuse(checker, entry, "shards beyond the last one");
	if (size > catalog->names - checker->dims)
		return refuse(checker, entry, "boxes beyond the numbers");
	checker->shard_count += count;
	checker->dims += (size + 7) & ~(uint64_t)7;
	return 0;
}

/* ---- shapes -------------------------------------------------------------- */

/* The product of @first and what of @sizes is not 0: strides are products
 * also when a tensor is empty. */
static bool multiply(uint64_t first, const uint64_t *sizes, unsigned count,
		     uint64_t *ret)
{
	unsigned i;

	for (i = 0; i < count; i++)
		if (sizes[i] > 0 &&
		    __builtin_mul_overflow(first, sizes[i], &first))
			return false;
	*ret = first;
	return true;
}

/* Is @shape in bytes what safetensors_pack makes of @written? */
static bool is_packed(enum dtype dtype, const struct box *shape,
		      const struct box *written)
{
	unsigned axis = shape->ndim - 1u, i;
	uint64_t bits = dtype_info(dtype)->bits, most;

	if (bits % 8 == 0 || shape->ndim == 0 ||
	    !multiply(bits, written->size, shape->ndim, &most))
		return false;
	bits *= written->size[axis];
	while (bits % 8 != 0 && axis > 0) {
		bits *= written->size[--axis];
		if (shape->size[axis] != 1)
			return false;
	}
	for (i = 0; i < axis; i++)
		if (shape->size[i] != written->size[i])
			return false;
	return bits % 8 == 0 && shape->size[shape->ndim - 1] == bits / 8;
}

static int check_shape(const struct catalog_checker *checker,
		       struct checked_entry *s)
{
	const struct catalog_entry *entry = s->entry;
	struct box written;
	uint64_t most;

	catalog_shape(checker->catalog, entry, &s->shape);
	if (!multiply(1, s->shape.size, s->shape.ndim, &most) ||
	    most > LIMIT_TENSOR_SIZE / 16)
		return refuse(checker, entry, "tensor too large");
	s->volume = box_volume(&s->shape);
	s->element = dtype_info(entry->dtype)->size;
	if (entry->size != s->volume * s->element)
		return refuse(checker, entry, "size that is not of the shape");
	if (!(entry->flags & CATALOG_PACKED))
		return 0;
	catalog_written_shape(checker->catalog, entry, &written);
	if (!is_packed(entry->dtype, &s->shape, &written))
		return refuse(checker, entry, "shape that is not packed");
	return 0;
}

/* ---- shards -------------------------------------------------------------- */

/* The box of shard @index: inside, and no further than its `reach`. */
static int check_box(const struct catalog_checker *checker,
		     struct checked_entry *s, uint64_t index,
		     struct box *ret_box)
{
	const struct catalog_shard *shard =
		catalog_shard(checker->catalog, s->entry, index);
	const uint64_t *whole = s->shape.size;
	uint64_t end = 1;
	unsigned i;

	catalog_box(checker->catalog, s->entry, index, ret_box);
	for (i = 0; i < ret_box->ndim; i++)
		if (ret_box->offset[i] > whole[i] ||
		    ret_box->size[i] > whole[i] - ret_box->offset[i])
			return refuse(checker, shard,
				      "shard out of the bounds of its tensor");
	if (ret_box->ndim > 0)
		end = ret_box->offset[0] + ret_box->size[0];
	if (end > s->reach)
		s->reach = end;
	if (shard->reach != s->reach)
		return refuse(checker, shard, "bad reach of a shard");
	return 0;
}

static int check_item(const struct catalog_checker *checker,
		      const struct checked_entry *s,
		      const struct catalog_shard *shard, uint64_t volume)
{
	uint32_t kind = shard->flags & ((1u << CATALOG_TRANSFORM_SHIFT) - 1);
	uint32_t transform = shard->flags >> CATALOG_TRANSFORM_SHIFT;
	bool object = s->entry->flags & CATALOG_OBJECT;
	uint64_t end;

	if (shard->file >= checker->catalog->file_count)
		return refuse(checker, shard, "shard of no file");
	if (__builtin_add_overflow(shard->offset, shard->size, &end) ||
	    end > INT64_MAX)
		return refuse(checker, shard,
			      "bad offset or length of a stored item");
	if ((kind != 0 && kind != CATALOG_TRANSFORMED &&
	     kind != CATALOG_RAW) || (kind == CATALOG_RAW && object))
		return refuse(checker, shard, "bad flags of a shard");
	if (kind == CATALOG_TRANSFORMED ?
	    transform >= checker->catalog->transform_count : transform > 0)
		return refuse(checker, shard, "unknown stream extensions");
	if ((kind == CATALOG_RAW && shard->size != volume * s->element) ||
	    (object && shard->size != s->entry->size))
		return refuse(checker, shard,
			      "stored item of another size than its shard");
	return 0;
}

/* Shards that do not overlap are sorted, and have no more than there is. */
static int check_shard(const struct catalog_checker *checker,
		       struct checked_entry *s, uint64_t index)
{
	const struct catalog_shard *shard =
		catalog_shard(checker->catalog, s->entry, index);
	struct box box;
	uint64_t volume;
	int error = check_box(checker, s, index, &box);

	if (error)
		return error;
	volume = box_volume(&box);
	error = check_item(checker, s, shard, volume);
	if (error || s->entry->flags & CATALOG_OVERLAP)
		return error;
	if (box.ndim > 0) {
		if (box.offset[0] < s->start)
			return refuse(checker, shard, "shards are not sorted");
		s->start = box.offset[0];
	}
	if (volume > s->volume - s->covered)
		return refuse(checker, shard,
			      "shards are more than their tensor");
	s->covered += volume;
	return 0;
}

static int check_hole(const struct catalog_checker *checker,
		      struct checked_entry *s, uint64_t index)
{
	const struct catalog_shard *shard =
		catalog_shard(checker->catalog, s->entry, index);
	struct box box;

	if (shard->file != CATALOG_NO_FILE || shard->flags ||
	    shard->offset || shard->size)
		return refuse(checker, shard, "hole that is stored");
	return check_box(checker, s, index, &box);
}

static int check_shards(const struct catalog_checker *checker,
			struct checked_entry *s)
{
	const struct catalog_entry *entry = s->entry;
	uint64_t i;
	int error = 0;

	for (i = 0; i < entry->shard_count && !error; i++)
		error = check_shard(checker, s, i);
	if (error)
		return error;
	if (!(entry->flags & CATALOG_OVERLAP) &&
	    (s->covered < s->volume) != (entry->hole_count > 0))
		return refuse(checker, entry, "shards and holes do not add up");
	s->reach = 0;
	for (i = 0; i < entry->hole_count && !error; i++)
		error = check_hole(checker, s, entry->shard_count + i);
	return error;
}

/* ---- all of them --------------------------------------------------------- */

static int check_entry(struct catalog_checker *checker, uint64_t index)
{
	const struct catalog *catalog = checker->catalog;
	struct checked_entry subject = {
		.entry = catalog_entry(catalog, index),
	};
	int error = check_kind(checker, subject.entry,
			       index >= catalog->tensor_count);

	if (!error)
		error = check_texts(checker, subject.entry);
	if (!error)
		error = take_shards(checker, subject.entry);
	if (!error)
		error = check_shape(checker, &subject);
	return error ? error : check_shards(checker, &subject);
}

static bool is_next(const struct catalog_checker *checker, uint64_t index)
{
	const struct catalog_entry *entry =
		catalog_entry(checker->catalog, index);

	return entry->first_shard == checker->shard_count &&
	       entry->dims == checker->dims;
}

int catalog_checker_entries(struct catalog_checker *checker)
{
	const struct catalog *catalog = checker->catalog;
	uint64_t tensor = 0, tensors = catalog->tensor_count;
	uint64_t object = tensors, objects = tensors + catalog->object_count;
	int error = 0;

	checker->dims = catalog->dims;
	while (!error && (tensor < tensors || object < objects)) {
		if (tensor < tensors && is_next(checker, tensor))
			error = check_entry(checker, tensor++);
		else if (object < objects && is_next(checker, object))
			error = check_entry(checker, object++);
		else
			return refuse(checker, catalog_entry(catalog,
				      tensor < tensors ? tensor : object),
				      "shards are not behind those before");
	}
	if (!error && (checker->shard_count != catalog->shard_count ||
		       checker->dims != catalog->names))
		return refuse(checker, catalog_text(catalog, catalog->shards),
			      "shards or boxes of no entry");
	return error;
}
