/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two passes over the pickles. The first collects, with a hash table each,
 *
 *	items: (name, offsets) -> where the stored item is   [storage_data]
 *	names: name -> its metadata in each file    [state_dict_metadata]
 *
 * the second walks the names in stored order, gives each tensor's chunks to
 * the builder and looks up their items.
 */
#include "shard/dcp.h"

#include "shard/array.h"
#include "shard/dcp_value.h"
#include "shard/name.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One element of storage_data. */
struct item {
	struct dcp_text name;
	struct pickle_value offsets;	/* a tuple; None of an object */
	struct pickle_value info;	/* _StorageInfo */
	uint32_t file;			/* index of the metadata file */
};

/* One element of a state_dict_metadata. */
struct named {
	struct dcp_text name;
	struct pickle_value value;
	uint32_t file;		/* index of the metadata file */
	uint32_t next;		/* index + 1 of the same name's in a later
				 * file; 0: none */
	uint32_t last;		/* of the first of its name: index + 1 of the
				 * last; 0: it is not the first */
};

struct reader {
	struct catalog_builder *builder;
	struct notes *notes;
	struct fault *fault;
	struct pickle *pickles;
	unsigned file_count, bad;
	uint64_t seed;				/* of the hash tables */
	uint64_t budget;			/* shards and tensors that may
						 * still come */
	unsigned tensor_file;			/* that began the tensor at hand:
						 * the builder's faults are in it */
	struct array items, names;		/* struct item, named */
	struct array item_slots, name_slots;	/* uint32_t hash tables */
};

static int bad(struct reader *r, unsigned file, struct pickle_value where,
	       const char *reason, const struct dcp_text *name)
{
	static const struct dcp_text nothing = { "", 0 };

	if (!name)
		name = &nothing;
	r->bad = file;
	fault_set_detail(r->fault, -EBADMSG,
			 pickle_offset(&r->pickles[file], where), reason,
			 name->data, name->size);
	return -EBADMSG;
}

static int no_memory(struct reader *r)
{
	fault_set(r->fault, -ENOMEM, 0, "out of memory");
	return -ENOMEM;
}

/* ---- hash tables --------------------------------------------------------- */

static uint64_t hash_item(const struct reader *r, unsigned file,
			  const struct dcp_text *name, struct pickle_value offsets)
{
	uint64_t hash = name_hash(name->data, name->size, r->seed);
	const struct pickle_value *items;
	int64_t numbers[LIMIT_NDIM];
	uint64_t count, i;

	if (!pickle_tuple(&r->pickles[file], offsets, &items, &count))
		return hash;
	for (i = 0; i < count && i < LIMIT_NDIM; i++)
		if (!pickle_int(&r->pickles[file], items[i], &numbers[i]))
			numbers[i] = -1;
	return name_hash(numbers, i * sizeof(*numbers), hash);
}

static bool same_text(const struct dcp_text *a, const struct dcp_text *b)
{
	return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

static bool same_offsets(const struct pickle *p, struct pickle_value a,
			 const struct pickle *q, struct pickle_value b)
{
	const struct pickle_value *x, *y;
	uint64_t x_count, y_count, i;
	int64_t m, n;

	if (!pickle_tuple(p, a, &x, &x_count))
		return pickle_kind(q, b) == PICKLE_NONE;
	if (!pickle_tuple(q, b, &y, &y_count) || x_count != y_count)
		return false;
	for (i = 0; i < x_count; i++)
		if (!pickle_int(p, x[i], &m) || !pickle_int(q, y[i], &n) ||
		    m != n)
			return false;
	return true;
}

static int make_slots(struct reader *r, struct array *slots, uint64_t count)
{
	uint64_t slot_count = 2;

	while (slot_count < 2 * count)
		slot_count *= 2;
	if (!array_add(slots, slot_count * sizeof(uint32_t)))
		return no_memory(r);
	memset(slots->data, 0, slots->size);
	return 0;
}

/* The slot of (@name, @offsets), where the latter are of pickle @file. */
static uint32_t *item_slot(const struct reader *r, const struct dcp_text *name,
			   unsigned file, struct pickle_value offsets)
{
	uint32_t *slots = (void *)r->item_slots.data;
	const struct item *items = (const void *)r->items.data;
	uint64_t mask = r->item_slots.size / sizeof(*slots) - 1;
	uint64_t i = hash_item(r, file, name, offsets) & mask;

	for (; slots[i]; i = (i + 1) & mask) {
		const struct item *item = &items[slots[i] - 1];

		if (same_text(&item->name, name) &&
		    same_offsets(&r->pickles[file], offsets,
				 &r->pickles[item->file], item->offsets))
			break;
	}
	return &slots[i];
}

static uint32_t *name_slot(const struct reader *r, const struct dcp_text *name)
{
	uint32_t *slots = (void *)r->name_slots.data;
	const struct named *names = (const void *)r->names.data;
	uint64_t mask = r->name_slots.size / sizeof(*slots) - 1;
	uint64_t i = name_hash(name->data, name->size, r->seed) & mask;

	while (slots[i] && !same_text(&names[slots[i] - 1].name, name))
		i = (i + 1) & mask;
	return &slots[i];
}

/* ---- first pass ---------------------------------------------------------- */

static int collect_item(struct reader *r, unsigned file,
			struct pickle_value key, struct pickle_value info)
{
	const struct pickle *p = &r->pickles[file];
	struct item item = { .info = info, .file = file };
	struct pickle_value value;
	uint64_t dims[LIMIT_NDIM];
	unsigned ndim;

	if (!dcp_attribute(p, key, "fqn", &value) ||
	    !dcp_text(p, value, &item.name))
		return bad(r, file, key, "storage index without a name", NULL);
	if (!dcp_attribute(p, key, "offset", &item.offsets) ||
	    pickle_kind(p, item.offsets) == PICKLE_NONE)
		item.offsets = pickle_none();
	else if (dcp_dims(p, item.offsets, dims, &ndim) ||
		 !dcp_tuple(p, item.offsets, &item.offsets))
		return bad(r, file, key, "bad offsets of a stored item",
			   &item.name);
	if (array_append(&r->items, &item, sizeof(item)))
		return no_memory(r);
	return 0;
}

static int collect_name(struct reader *r, unsigned file,
			struct pickle_value key, struct pickle_value value)
{
	struct named named = { .value = value, .file = file };

	if (!dcp_text(&r->pickles[file], key, &named.name))
		return bad(r, file, key, "name that is not a string", NULL);
	if (named.name.size > LIMIT_NAME_SIZE)
		return bad(r, file, key, "name longer than 64 KiB",
			   &named.name);
	if (array_append(&r->names, &named, sizeof(named)))
		return no_memory(r);
	return 0;
}

static int collect(struct reader *r, unsigned file)
{
	const struct pickle *p = &r->pickles[file];
	struct pickle_value tensors, storage, key, value;
	struct pickle_items items;
	int error = 0;

	if (!dcp_attribute(p, p->root, "state_dict_metadata", &tensors) ||
	    pickle_kind(p, tensors) != PICKLE_DICT)
		return bad(r, file, p->root,
			   "no state_dict_metadata: not the metadata of a distributed checkpoint",
			   NULL);
	if (!dcp_attribute(p, p->root, "storage_data", &storage) ||
	    pickle_kind(p, storage) != PICKLE_DICT)
		return bad(r, file, p->root,
			   "no storage_data: not the metadata of a distributed checkpoint",
			   NULL);
	items = pickle_items(p, tensors);
	while (!error && pickle_items_next(&items, &key, &value))
		error = collect_name(r, file, key, value);
	items = pickle_items(p, storage);
	while (!error && pickle_items_next(&items, &key, &value))
		error = collect_item(r, file, key, value);
	return error;
}

/* A later pair of one dict replaces the earlier, as in Python; a lower rank
 * goes before a higher. */
static int index_items(struct reader *r)
{
	struct item *items = (void *)r->items.data;
	uint64_t count = r->items.size / sizeof(*items), i;
	int error = make_slots(r, &r->item_slots, count);

	for (i = 0; i < count && !error; i++) {
		uint32_t *slot = item_slot(r, &items[i].name, items[i].file,
					   items[i].offsets);

		if (!*slot || items[*slot - 1].file == items[i].file)
			*slot = (uint32_t)(i + 1);
	}
	return error;
}

static int index_names(struct reader *r)
{
	struct named *names = (void *)r->names.data;
	uint64_t count = r->names.size / sizeof(*names), i;
	int error = make_slots(r, &r->name_slots, count);

	for (i = 0; i < count && !error; i++) {
		uint32_t *slot = name_slot(r, &names[i].name);
		struct named *first, *last;

		if (!*slot) {
			*slot = names[i].last = (uint32_t)(i + 1);
			continue;
		}
		first = &names[*slot - 1];
		last = &names[first->last - 1];
		if (last->file == names[i].file)
			last->value = names[i].value;
		else
			last->next = first->last = (uint32_t)(i + 1);
	}
	return error;
}

/* ---- second pass --------------------------------------------------------- */

static bool good_path(const struct dcp_text *path)
{
	const char *p = path->data, *end = p + path->size;

	if (path->size == 0 || path->size > LIMIT_PATH_SIZE || *p == '/')
		return false;
	for (; p < end; p++)
		if ((unsigned char)*p < ' ')
			return false;
	p = path->data;
	while (p < end) {
		const char *slash = memchr(p, '/', (size_t)(end - p));
		size_t size = (size_t)((slash ? slash : end) - p);

		if (size == 2 && p[0] == '.' && p[1] == '.')
			return false;
		p += size + 1;
	}
	return true;
}

/* Where @item lies, for the builder. */
static int resolve_item(struct reader *r, const struct item *item,
			struct catalog_item *ret)
{
	const struct pickle *p = &r->pickles[item->file];
	struct pickle_value value, key, descriptor;
	struct pickle_items items;
	struct dcp_text path;
	uint64_t end;
	int error;

	*ret = (struct catalog_item){ .flags = 0 };
	if (!dcp_attribute(p, item->info, "relative_path", &value) ||
	    !dcp_text(p, value, &path) || !good_path(&path))
		return bad(r, item->file, item->info,
			   "path of a stored item is not a plain relative path",
			   &item->name);
	if (!dcp_size(p, item->info, "offset", &ret->offset) ||
	    !dcp_size(p, item->info, "length", &ret->size) ||
	    __builtin_add_overflow(ret->offset, ret->size, &end) ||
	    end > LIMIT_TENSOR_SIZE)
		return bad(r, item->file, item->info,
			   "bad offset or length of a stored item",
			   &item->name);
	if (dcp_attribute(p, item->info, "transform_descriptors", &value)) {
		items = pickle_items(p, value);
		if (pickle_items_next(&items, &key, &descriptor))
			ret->flags |= CATALOG_TRANSFORMED;
	}
	error = catalog_builder_file(r->builder, path.data, path.size,
				     &ret->file);
	if (error) {
		r->bad = item->file;
		return fault_set(r->fault, error, 0, "too many files");
	}
	return 0;
}

/* Pay for a shard or tensor of @ndim axes. */
static bool spend(struct reader *r, unsigned ndim)
{
	uint64_t cost = 1 + ndim / 4;

	if (cost > r->budget)
		return false;
	r->budget -= cost;
	return true;
}

static int read_chunk(struct reader *r, const struct named *named,
		      struct pickle_value chunk, unsigned ndim)
{
	const struct pickle *p = &r->pickles[named->file];
	struct pickle_value offsets, sizes;
	struct catalog_item item;
	unsigned sizes_ndim;
	struct box box;
	uint32_t *slot;
	int error = 0;

	if (!dcp_attribute(p, chunk, "offsets", &offsets) ||
	    !dcp_attribute(p, chunk, "sizes", &sizes) ||
	    dcp_dims(p, offsets, box.offset, &box.ndim) ||
	    dcp_dims(p, sizes, box.size, &sizes_ndim) ||
	    box.ndim != ndim || sizes_ndim != ndim ||
	    !dcp_tuple(p, offsets, &offsets))
		return bad(r, named->file, chunk, "bad shard", &named->name);
	if (!spend(r, ndim))
		return bad(r, named->file, chunk,
			   "more shards than the metadata has room for",
			   &named->name);
	item = (struct catalog_item){ .file = CATALOG_NO_FILE };
	slot = item_slot(r, &named->name, named->file, offsets);
	if (!*slot)
		notes_add(r->notes, "%.*s: a shard has no stored item",
			  named->name.size > 160 ? 160 : (int)named->name.size,
			  named->name.data);
	else
		error = resolve_item(r, (struct item *)(void *)r->items.data +
				     *slot - 1, &item);
	if (error)
		return error;
	r->bad = r->tensor_file;
	return catalog_builder_shard(r->builder, &box, &item, r->fault);
}

/* The global named torch.NAME of the properties; false: none. */
static bool get_type(const struct pickle *p, struct pickle_value properties,
		     struct dcp_text *ret_name)
{
	struct pickle_value state = pickle_state(p, properties), value;
	const struct pickle_value *items;
	struct dcp_text module;
	uint64_t count;

	if (pickle_tuple(p, state, &items, &count)) {
		if (count == 0)
			return false;
		value = items[0];
	} else if (!pickle_get(p, state, "dtype", &value)) {
		return false;
	}
	return pickle_symbol(p, value, &module.data, &module.size,
			     &ret_name->data, &ret_name->size);
}

static int begin_tensor(struct reader *r, const struct named *named,
			struct catalog_tensor *tensor)
{
	const struct pickle *p = &r->pickles[named->file];
	struct pickle_value properties, size;
	struct dcp_text type;
	unsigned i;
	int error;

	*tensor = (struct catalog_tensor){
		.name = named->name.data, .name_size = named->name.size,
		.source = pickle_offset(p, named->value),
	};
	if (!dcp_attribute(p, named->value, "properties", &properties) ||
	    !get_type(p, properties, &type) || type.size > LIMIT_TYPE_NAME_SIZE)
		return bad(r, named->file, named->value,
			   "tensor without a type", &named->name);
	tensor->dtype = dtype_from_torch(type.data, type.size);
	if (tensor->dtype == DTYPE_UNKNOWN) {
		tensor->type_name = type.data;
		tensor->type_name_size = type.size;
	}
	if (dtype_info(tensor->dtype)->size == 0)
		notes_add(r->notes, "%.*s: type %.*s cannot be read",
			  named->name.size > 160 ? 160 : (int)named->name.size,
			  named->name.data, (int)type.size, type.data);
	error = dcp_attribute(p, named->value, "size", &size) ?
		dcp_dims(p, size, tensor->shape.size, &tensor->shape.ndim) :
		-EBADMSG;
	if (error)
		return bad(r, named->file, named->value,
			   error == -E2BIG ? "tensor of more than 32 axes" :
			   "bad size of a tensor", &named->name);
	if (!spend(r, tensor->shape.ndim))
		return bad(r, named->file, named->value,
			   "more tensors than the metadata has room for",
			   &named->name);
	for (i = 0; i < tensor->shape.ndim; i++)
		tensor->shape.offset[i] = 0;
	r->bad = r->tensor_file = named->file;
	return catalog_builder_begin(r->builder, tensor, r->fault);
}

static int read_chunks(struct reader *r, const struct named *named,
		       unsigned ndim)
{
	const struct pickle *p = &r->pickles[named->file];
	struct pickle_value chunks, key, chunk;
	struct pickle_items items;
	int error = 0;

	if (!dcp_attribute(p, named->value, "chunks", &chunks) ||
	    pickle_kind(p, chunks) != PICKLE_LIST)
		return bad(r, named->file, named->value,
			   "tensor without a list of shards", &named->name);
	items = pickle_items(p, chunks);
	while (!error && pickle_items_next(&items, &key, &chunk))
		error = read_chunk(r, named, chunk, ndim);
	return error;
}

/* A later rank's description of a tensor fits the first one's. */
static bool same_tensor(const struct reader *r, const struct named *named,
			const struct catalog_tensor *tensor)
{
	const struct pickle *p = &r->pickles[named->file];
	uint64_t dims[LIMIT_NDIM];
	struct pickle_value size;
	unsigned ndim;

	return dcp_is_instance(p, named->value, "TensorStorageMetadata") &&
	       dcp_attribute(p, named->value, "size", &size) &&
	       !dcp_dims(p, size, dims, &ndim) && ndim == tensor->shape.ndim &&
	       memcmp(dims, tensor->shape.size, ndim * sizeof(*dims)) == 0;
}

static int read_tensor(struct reader *r, const struct named *named)
{
	const struct named *names = (const void *)r->names.data;
	struct catalog_tensor tensor;
	int error = begin_tensor(r, named, &tensor);

	while (!error) {
		error = read_chunks(r, named, tensor.shape.ndim);
		if (!named->next || error)
			break;
		named = &names[named->next - 1];
		if (same_tensor(r, named, &tensor))
			continue;
		notes_add(r->notes, "%.*s: ranks disagree about it",
			  tensor.name_size > 160 ? 160 : (int)tensor.name_size,
			  tensor.name);
		break;
	}
	if (error)
		return error;
	r->bad = r->tensor_file;
	return catalog_builder_end(r->builder, r->fault);
}

static int read_object(struct reader *r, const struct named *named)
{
	struct catalog_item item;
	uint32_t *slot;
	int error;

	slot = item_slot(r, &named->name, named->file, pickle_none());
	if (!*slot) {
		notes_add(r->notes, "%.*s: an object has no stored item",
			  named->name.size > 160 ? 160 : (int)named->name.size,
			  named->name.data);
		return 0;
	}
	error = resolve_item(r, (struct item *)(void *)r->items.data +
			     *slot - 1, &item);
	r->bad = error ? r->bad : named->file;
	return error ? error :
	       catalog_builder_object(r->builder, named->name.data,
				      named->name.size, &item, r->fault);
}

static int read_entry(struct reader *r, const struct named *named)
{
	const struct pickle *p = &r->pickles[named->file];

	if (dcp_is_instance(p, named->value, "TensorStorageMetadata"))
		return read_tensor(r, named);
	if (dcp_is_instance(p, named->value, "BytesStorageMetadata"))
		return read_object(r, named);
	return bad(r, named->file, named->value,
		   "neither the metadata of a tensor nor of an object",
		   &named->name);
}

int dcp_read(struct catalog_builder *builder, const struct dcp_file *files,
	     unsigned count, struct notes *notes, struct fault *fault,
	     unsigned *ret_bad)
{
	struct reader r = { .builder = builder, .notes = notes,
			    .fault = fault, .seed = name_seed() };
	const struct named *names;
	uint64_t name_count, i;
	int error = 0;

	r.pickles = calloc(count, sizeof(*r.pickles));
	if (!r.pickles)
		return no_memory(&r);
	for (; r.file_count < count && !error; r.file_count++) {
		r.bad = r.file_count;
		r.budget += files[r.file_count].size / LIMIT_SHARD_COST;
		error = pickle_init(&r.pickles[r.file_count],
				    files[r.file_count].data,
				    files[r.file_count].size, fault);
		if (!error)
			error = collect(&r, r.file_count);
	}
	if (!error)
		error = index_items(&r);
	if (!error)
		error = index_names(&r);
	names = (const void *)r.names.data;
	name_count = r.names.size / sizeof(*names);
	for (i = 0; i < name_count && !error; i++)
		if (names[i].last)
			error = read_entry(&r, &names[i]);
	if (error)
		*ret_bad = r.bad;
	while (r.file_count > 0)
		pickle_finish(&r.pickles[--r.file_count]);
	free(r.pickles);
	array_finish(&r.items);
	array_finish(&r.names);
	array_finish(&r.item_slots);
	array_finish(&r.name_slots);
	return error;
}
