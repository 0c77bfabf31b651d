/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two passes over the pickles: dcp_index.c collects names and stored items,
 * with a hash table each; here the names are walked in stored order, each
 * tensor's chunks go to the builder and their items are looked up.
 */
#include "shard/dcp/dcp.h"

#include "shard/dcp/dcp_origin.h"
#include "shard/dcp/dcp_path.h"
#include "shard/dcp/dcp_place.h"

#include <errno.h>
#include <string.h>

struct dcp_reader {
	struct dcp_index index;
	struct catalog_builder *builder;
	struct notes *notes;
	uint64_t budget;		/* shards and tensors that may still
					 * come */
	unsigned tensor_file;		/* that began the tensor at hand: the
					 * builder's faults are in it */
};

static int bad(struct dcp_reader *r, const struct dcp_name *named,
	       struct pickle_value where, const char *reason)
{
	return dcp_index_bad(&r->index, named->file, where, reason,
			     &named->name);
}

/* A note that begins with the name, cut when it is long. */
static void note(struct dcp_reader *r, const struct dcp_name *named,
		 const char *text)
{
	notes_add(r->notes, "%.*s: %s",
		  named->name.size > 160 ? 160 : (int)named->name.size,
		  named->name.data, text);
}

/* Pay for a shard or tensor of @ndim axes. */
static bool spend(struct dcp_reader *r, unsigned ndim)
{
	uint64_t cost = 1 + ndim / 4;

	if (cost > r->budget)
		return false;
	r->budget -= cost;
	return true;
}

static int read_chunk(struct dcp_reader *r, const struct dcp_name *named,
		      struct pickle_value chunk, unsigned ndim)
{
	const struct pickle *p = &r->index.pickles[named->file];
	struct catalog_item item = { .file = CATALOG_NO_FILE };
	struct pickle_value offsets, sizes;
	const struct dcp_item *found;
	unsigned sizes_ndim;
	struct box box;
	int error = 0;

	if (!dcp_attribute(p, chunk, "offsets", &offsets) ||
	    !dcp_attribute(p, chunk, "sizes", &sizes) ||
	    dcp_dims(p, offsets, box.offset, &box.ndim) ||
	    dcp_dims(p, sizes, box.size, &sizes_ndim) ||
	    box.ndim != ndim || sizes_ndim != ndim ||
	    !dcp_tuple(p, offsets, &offsets))
		return bad(r, named, chunk, "bad shard");
	if (!spend(r, ndim))
		return bad(r, named, chunk,
			   "more shards than the metadata has room for");
	found = dcp_index_item(&r->index, &named->name, named->file, offsets);
	if (!found)
		note(r, named, "a shard has no stored item");
	else
		error = dcp_place(&r->index, r->builder, found, &item);
	if (error)
		return error;
	r->index.bad = r->tensor_file;
	return catalog_builder_shard(r->builder, &box, &item, r->index.fault);
}

/* The global named torch.NAME of the properties; false: none. */
static bool get_type(const struct pickle *p, struct pickle_value properties,
		     struct pickle_symbol *ret_type)
{
	struct pickle_value state = pickle_state(p, properties), value;
	const struct pickle_value *items;
	uint64_t count;

	if (pickle_tuple(p, state, &items, &count)) {
		if (count == 0)
			return false;
		value = items[0];
	} else if (!pickle_get(p, state, "dtype", &value)) {
		return false;
	}
	return pickle_symbol(p, value, ret_type);
}

static int read_type(struct dcp_reader *r, const struct dcp_name *named,
		     struct catalog_tensor *tensor)
{
	const struct pickle *p = &r->index.pickles[named->file];
	struct pickle_value properties;
	struct pickle_symbol type;

	if (!dcp_attribute(p, named->value, "properties", &properties) ||
	    !get_type(p, properties, &type) ||
	    type.name_size > LIMIT_TYPE_NAME_SIZE)
		return bad(r, named, named->value, "tensor without a type");
	tensor->dtype = dtype_from_torch(type.name, type.name_size);
	if (tensor->dtype == DTYPE_UNKNOWN) {
		tensor->type_name = type.name;
		tensor->type_name_size = type.name_size;
	}
	if (dtype_info(tensor->dtype)->size == 0)
		notes_add(r->notes, "%.*s: type %.*s cannot be read",
			  named->name.size > 160 ? 160 : (int)named->name.size,
			  named->name.data, (int)type.name_size, type.name);
	return 0;
}

static int begin_tensor(struct dcp_reader *r, const struct dcp_name *named,
			struct catalog_tensor *tensor)
{
	const struct pickle *p = &r->index.pickles[named->file];
	uint32_t ends[LIMIT_PATH_DEPTH];
	struct pickle_value size;
	unsigned i;
	int error;

	*tensor = (struct catalog_tensor){
		.name = named->name.data, .name_size = named->name.size,
		.path = ends, .depth = dcp_path(&r->index, named, ends),
		.source = pickle_offset(p, named->value),
	};
	error = read_type(r, named, tensor);
	if (error)
		return error;
	error = dcp_attribute(p, named->value, "size", &size) ?
		dcp_dims(p, size, tensor->shape.size, &tensor->shape.ndim) :
		-EBADMSG;
	if (error)
		return bad(r, named, named->value, error == -E2BIG ?
			   "tensor of more than 32 axes" :
			   "bad size of a tensor");
	if (!spend(r, tensor->shape.ndim))
		return bad(r, named, named->value,
			   "more tensors than the metadata has room for");
	for (i = 0; i < tensor->shape.ndim; i++)
		tensor->shape.offset[i] = 0;
	r->index.bad = r->tensor_file = named->file;
	error = catalog_builder_begin(r->builder, tensor, r->index.fault);
	tensor->path = NULL;
	return error;
}

static int read_chunks(struct dcp_reader *r, const struct dcp_name *named,
		       unsigned ndim)
{
	const struct pickle *p = &r->index.pickles[named->file];
	struct pickle_value chunks, key, chunk;
	struct pickle_items items;
	int error = 0;

	if (!dcp_attribute(p, named->value, "chunks", &chunks) ||
	    pickle_kind(p, chunks) != PICKLE_LIST)
		return bad(r, named, named->value,
			   "tensor without a list of shards");
	items = pickle_items(p, chunks);
	while (!error && pickle_items_next(&items, &key, &chunk))
		error = read_chunk(r, named, chunk, ndim);
	return error;
}

/* A later rank's description of a tensor fits the first one's. */
static bool same_tensor(const struct dcp_reader *r,
			const struct dcp_name *named,
			const struct catalog_tensor *tensor)
{
	const struct pickle *p = &r->index.pickles[named->file];
	uint64_t dims[LIMIT_NDIM];
	struct pickle_value size;
	unsigned ndim;

	return dcp_is_instance(p, named->value, "TensorStorageMetadata") &&
	       dcp_attribute(p, named->value, "size", &size) &&
	       !dcp_dims(p, size, dims, &ndim) && ndim == tensor->shape.ndim &&
	       memcmp(dims, tensor->shape.size, ndim * sizeof(*dims)) == 0;
}

static int read_tensor(struct dcp_reader *r, const struct dcp_name *named)
{
	const struct dcp_name *names = (const void *)r->index.names.data;
	struct catalog_tensor tensor;
	int error = begin_tensor(r, named, &tensor);

	while (!error) {
		error = read_chunks(r, named, tensor.shape.ndim);
		if (!named->next || error)
			break;
		named = &names[named->next - 1];
		if (same_tensor(r, named, &tensor))
			continue;
		note(r, named, "ranks disagree about it");
		break;
	}
	if (error)
		return error;
	r->index.bad = r->tensor_file;
	return catalog_builder_end(r->builder, r->index.fault);
}

static int read_object(struct dcp_reader *r, const struct dcp_name *named)
{
	const struct dcp_item *found = dcp_index_item(&r->index, &named->name,
						      named->file,
						      pickle_none());
	struct catalog_item item;
	int error;

	if (!found) {
		note(r, named, "an object has no stored item");
		return 0;
	}
	error = dcp_place(&r->index, r->builder, found, &item);
	if (error)
		return error;
	r->index.bad = named->file;
	return catalog_builder_object(r->builder, named->name.data,
				      named->name.size, &item,
				      r->index.fault);
}

static int read_entry(struct dcp_reader *r, const struct dcp_name *named)
{
	const struct pickle *p = &r->index.pickles[named->file];

	if (dcp_is_instance(p, named->value, "TensorStorageMetadata"))
		return read_tensor(r, named);
	if (dcp_is_instance(p, named->value, "BytesStorageMetadata"))
		return read_object(r, named);
	return bad(r, named, named->value,
		   "neither the metadata of a tensor nor of an object");
}

static int read_entries(struct dcp_reader *r)
{
	const struct dcp_name *names = (const void *)r->index.names.data;
	uint64_t count = r->index.names.size / sizeof(*names), i;
	int error = 0;

	for (i = 0; i < count && !error; i++)
		if (names[i].last)
			error = read_entry(r, &names[i]);
	return error;
}

int dcp_read(struct catalog_builder *builder, const struct dcp_file *files,
	     unsigned count, struct fault *fault, unsigned *ret_bad)
{
	struct dcp_reader r = {
		.builder = builder, .notes = catalog_builder_notes(builder),
	};
	struct catalog_origin origin;
	bool local = count > 1;
	unsigned i;
	int error = dcp_index_init(&r.index, files, count, fault);

	for (i = 0; i < count; i++) {
		r.budget += files[i].size / LIMIT_SHARD_COST;
		local |= files[i].local;
	}
	if (!error) {
		dcp_path_collect(&r.index);
		origin = dcp_origin(&r.index, local);
		catalog_builder_origin(builder, &origin);
		error = read_entries(&r);
	}
	if (error)
		*ret_bad = r.index.bad;
	dcp_index_finish(&r.index);
	return error;
}
