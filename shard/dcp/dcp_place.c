/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/dcp/dcp_place.h"

#include <errno.h>
#include <string.h>

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

/* ---- stream extensions --------------------------------------------------- */

struct transform_chain {
	char text[LIMIT_TRANSFORM_DEPTH * (LIMIT_TRANSFORM_NAME + 1)];
	size_t size;		/* bytes */
	unsigned depth;		/* descriptors */
};

/* Append a descriptor, and a line end. */
static bool add_descriptor(struct transform_chain *chain,
			   const struct pickle *p, struct pickle_value value)
{
	struct dcp_text text;
	uint64_t i;

	if (chain->depth == LIMIT_TRANSFORM_DEPTH ||
	    !dcp_text(p, value, &text) || text.size > LIMIT_TRANSFORM_NAME)
		return false;
	for (i = 0; i < text.size; i++)
		if ((unsigned char)text.data[i] < ' ' || text.data[i] == 0x7f)
			return false;
	memcpy(chain->text + chain->size, text.data, text.size);
	chain->size += text.size;
	chain->text[chain->size++] = '\n';
	chain->depth++;
	return true;
}

/* What @value lists: a list, or a tuple, of strings. */
static bool read_chain(struct transform_chain *chain, const struct pickle *p,
		       struct pickle_value value)
{
	struct pickle_items items = pickle_items(p, value);
	const struct pickle_value *parts;
	struct pickle_value key, part;
	uint64_t count, i;
	bool good = true;

	chain->size = 0;
	chain->depth = 0;
	if (pickle_tuple(p, value, &parts, &count)) {
		for (i = 0; i < count && good; i++)
			good = add_descriptor(chain, p, parts[i]);
		return good;
	}
	while (good && pickle_items_next(&items, &key, &part))
		good = add_descriptor(chain, p, part);
	return good && pickle_kind(p, value) == PICKLE_LIST;
}

static int place_transforms(struct dcp_index *index,
			    struct catalog_builder *builder,
			    const struct dcp_item *item, uint32_t *ret_flags)
{
	const struct pickle *p = &index->pickles[item->file];
	struct pickle_value value;
	struct transform_chain chain;
	int error;

	if (!dcp_attribute(p, item->info, "transform_descriptors", &value) ||
	    pickle_kind(p, value) == PICKLE_NONE)
		return 0;
	if (!read_chain(&chain, p, value))
		return dcp_index_bad(index, item->file, item->info,
				     "bad stream extensions of a stored item",
				     &item->name);
	if (chain.depth == 0)
		return 0;
	index->bad = item->file;
	error = catalog_builder_transform(builder, chain.text, chain.size,
					  ret_flags);
	return !error ? 0 :
	       fault_set(index->fault, error, 0, error == -E2BIG ?
			 "too many different stream extensions" :
			 "out of memory");
}

/* ---- items --------------------------------------------------------------- */

int dcp_place(struct dcp_index *index, struct catalog_builder *builder,
	      const struct dcp_item *item, struct catalog_item *ret)
{
	const struct pickle *p = &index->pickles[item->file];
	struct pickle_value value;
	struct dcp_text path;
	uint64_t end;
	int error;

	*ret = (struct catalog_item){ .flags = 0 };
	if (!dcp_attribute(p, item->info, "relative_path", &value) ||
	    !dcp_text(p, value, &path) || !good_path(&path))
		return dcp_index_bad(index, item->file, item->info,
			"path of a stored item is not a plain relative path",
			&item->name);
	if (!dcp_size(p, item->info, "offset", &ret->offset) ||
	    !dcp_size(p, item->info, "length", &ret->size) ||
	    __builtin_add_overflow(ret->offset, ret->size, &end) ||
	    end > LIMIT_TENSOR_SIZE)
		return dcp_index_bad(index, item->file, item->info,
				     "bad offset or length of a stored item",
				     &item->name);
	error = place_transforms(index, builder, item, &ret->flags);
	if (error)
		return error;
	error = catalog_builder_file(builder, path.data, path.size,
				     &ret->file);
	if (error) {
		index->bad = item->file;
		return fault_set(index->fault, error, 0, "too many files");
	}
	return 0;
}
