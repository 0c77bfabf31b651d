/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/dcp/dcp_path.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The paths that file @file knows; as in a Python dict, the last of two of one
 * name counts. */
static void collect(struct dcp_index *index, unsigned file)
{
	const struct pickle *p = &index->pickles[file];
	struct pickle_value paths, key, path;
	struct dcp_name *name, *last = NULL;
	struct pickle_items items;
	struct dcp_text text;

	if (!dcp_attribute(p, p->root, "planner_data", &paths) ||
	    pickle_kind(p, paths) != PICKLE_DICT)
		return;
	items = pickle_items(p, paths);
	while (pickle_items_next(&items, &key, &path)) {
		name = dcp_text(p, key, &text) ?
		       dcp_index_name(index, &text, last) : NULL;
		if (!name)
			continue;
		last = name;
		if (name->path_file && name->path_file != file + 1)
			continue;
		name->path = path;
		name->path_file = file + 1;
	}
}

void dcp_path_collect(struct dcp_index *index)
{
	unsigned i;

	for (i = 0; i < index->file_count; i++)
		collect(index, i);
}

/* The text of a part: of a number it goes to @buffer. */
static bool get_part(const struct pickle *p, struct pickle_value value,
		     char buffer[24], struct dcp_text *ret)
{
	int64_t number;

	if (dcp_text(p, value, ret))
		return true;
	if (!pickle_int(p, value, &number))
		return false;
	ret->size = (uint64_t)snprintf(buffer, 24, "%" PRId64, number);
	ret->data = buffer;
	return true;
}

unsigned dcp_path(const struct dcp_index *index, const struct dcp_name *name,
		  uint32_t ret_ends[LIMIT_PATH_DEPTH])
{
	const char *rest = name->name.data, *end = rest + name->name.size;
	const struct pickle_value *parts;
	uint64_t count, i;

	if (!name->path_file ||
	    !pickle_tuple(&index->pickles[name->path_file - 1], name->path,
			  &parts, &count))
		return 0;
	for (i = 0; i < count; i++) {
		char buffer[24];
		struct dcp_text part;

		if (!get_part(&index->pickles[name->path_file - 1], parts[i],
			      buffer, &part) ||
		    part.size > (uint64_t)(end - rest) ||
		    memcmp(rest, part.data, part.size) != 0)
			return 0;
		rest += part.size;
		if (i + 1 == count)
			break;
		if (i + 1 < LIMIT_PATH_DEPTH)
			ret_ends[i] = (uint32_t)(rest - name->name.data);
		if (rest == end || *rest++ != '.')
			return 0;
	}
	if (rest != end)
		return 0;
	return count < LIMIT_PATH_DEPTH ? (unsigned)count : LIMIT_PATH_DEPTH;
}
