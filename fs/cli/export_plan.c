/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/export_plan.h"

#include "shard/base/json_text.h"
#include "shard/base/name.h"
#include "shard/safetensors/safetensors_header.h"
#include "shard/values/convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct virtual_file_part *export_part(const struct array *parts,
					    uint64_t index)
{
	return (const struct virtual_file_part *)parts->data + index;
}

uint64_t export_part_count(const struct array *parts)
{
	return parts->size / sizeof(struct virtual_file_part);
}

uint64_t export_file_count(const struct export_plan *plan)
{
	return plan->files.size / sizeof(struct export_file);
}

static struct export_file *file_at(const struct export_plan *plan,
				   uint64_t index)
{
	return (struct export_file *)plan->files.data + index;
}

const char *export_key(const struct export_plan *plan,
		       const struct virtual_file_part *part, size_t *ret_size)
{
	const struct catalog_entry *entry =
		catalog_entry(plan->catalog, part->entry);

	*ret_size = entry->name_size - part->key;
	return catalog_text(plan->catalog, entry->name) + part->key;
}

enum dtype export_type(const struct export_plan *plan,
		       const struct virtual_file_part *part)
{
	return part->dtype != DTYPE_UNKNOWN ? part->dtype :
	       (enum dtype)catalog_entry(plan->catalog, part->entry)->dtype;
}

uint64_t export_size(const struct export_plan *plan,
		     const struct virtual_file_part *part)
{
	const struct catalog_entry *entry =
		catalog_entry(plan->catalog, part->entry);
	struct box shape;

	if (part->dtype == DTYPE_UNKNOWN)
		return entry->size;
	catalog_shape(plan->catalog, entry, &shape);
	return box_volume(&shape) * dtype_info(part->dtype)->size;
}

/* ---- choosing ------------------------------------------------------------ */

static bool is_wanted(const struct export_plan *plan,
		      const struct catalog_entry *entry)
{
	const struct export_options *options = plan->options;
	unsigned i;

	if (options->top &&
	    !catalog_is_below(plan->catalog, entry, options->top,
			      strlen(options->top)))
		return false;
	for (i = 0; i < options->glob_count; i++)
		if (tool_matches(plan->catalog, entry, options->globs[i]))
			return true;
	return options->glob_count == 0;
}

static bool fits(const struct export_plan *plan,
		 const struct virtual_file_part *part)
{
	struct safetensors_header_tensor tensor = {
		.entry = part->entry, .dtype = export_type(plan, part),
	};

	if (plan->options->form == EXPORT_NPY)
		return dtype_info(tensor.dtype)->size > 0;
	tensor.key = export_key(plan, part, &tensor.key_size);
	return safetensors_header_fits(plan->catalog, &tensor);
}

static int add_part(struct export_plan *plan, uint64_t index)
{
	const struct export_options *options = plan->options;
	enum dtype stored =
		(enum dtype)catalog_entry(plan->catalog, index)->dtype;
	struct virtual_file_part part = {
		.entry = index,
		.dtype = DTYPE_UNKNOWN,
		.key = options->top ? strlen(options->top) + 1 : 0,
	};

	if (options->dtype != stored &&
	    convert_is_possible(stored, options->dtype))
		part.dtype = options->dtype;
	if (!fits(plan, &part))
		return array_append(&plan->left_out, &part, sizeof(part));
	if (__builtin_add_overflow(plan->size, export_size(plan, &part),
				   &plan->size))
		return -E2BIG;
	return array_append(&plan->parts, &part, sizeof(part));
}

int export_plan_init(struct export_plan *plan,
		     const struct checkpoint *checkpoint,
		     const struct export_options *options)
{
	const struct catalog *catalog = checkpoint->catalog;
	uint64_t i;
	int error = 0;

	*plan = (struct export_plan){
		.catalog = catalog, .checkpoint = checkpoint,
		.options = options,
	};
	for (i = 0; i < catalog->tensor_count && !error; i++) {
		if (!is_wanted(plan, catalog_entry(catalog, i)))
			continue;
		plan->matched++;
		error = add_part(plan, i);
	}
	return error;
}

void export_plan_finish(struct export_plan *plan)
{
	uint64_t i;

	for (i = 0; i < export_file_count(plan); i++)
		virtual_file_put(file_at(plan, i)->content);
	array_finish(&plan->files);
	array_finish(&plan->parts);
	array_finish(&plan->left_out);
}

/* ---- dealing out --------------------------------------------------------- */

static int compare_parts(const void *a, const void *b, void *context)
{
	const struct export_plan *plan = context;
	size_t x_size, y_size;
	const char *x = export_key(plan, a, &x_size);
	const char *y = export_key(plan, b, &y_size);
	int order = memcmp(x, y, x_size < y_size ? x_size : y_size);

	return order ? order : x_size < y_size ? -1 : x_size > y_size;
}

/* One after the other, a new file whenever one would become too large. */
static int deal_by_size(struct export_plan *plan)
{
	struct export_file file = { .first = 0 };
	uint64_t count = export_part_count(&plan->parts), i, used = 0;
	int error = 0;

	if (count > 1)
		qsort_r(plan->parts.data, count,
			sizeof(struct virtual_file_part), compare_parts, plan);
	for (i = 0; i < count && !error; i++) {
		uint64_t size = export_size(plan,
					    export_part(&plan->parts, i));

		if (file.count > 0 &&
		    (used > plan->options->file_size_max ||
		     size > plan->options->file_size_max - used)) {
			error = array_append(&plan->files, &file, sizeof(file));
			file = (struct export_file){ .first = i };
			used = 0;
		}
		file.count++;
		used += size;
	}
	return error ? error : array_append(&plan->files, &file, sizeof(file));
}

static int deal_one_each(struct export_plan *plan)
{
	struct export_file file = { .count = 1 };
	int error = 0;

	for (; file.first < export_part_count(&plan->parts) && !error;
	     file.first++)
		error = array_append(&plan->files, &file, sizeof(file));
	return error;
}

/* The header of what is left out says so. */
static int make_image(struct export_plan *plan, struct export_file *file,
		      bool first)
{
	struct array parts = { .data = NULL };
	int error = 0;

	if (file->count > 0)
		error = array_append(
			&parts, export_part(&plan->parts, file->first),
			file->count * sizeof(struct virtual_file_part));
	if (!error && first && plan->left_out.size > 0)
		error = array_append(&parts, plan->left_out.data,
				     plan->left_out.size);
	if (!error)
		error = virtual_file_safetensors(plan->catalog,
						 (const void *)parts.data,
						 export_part_count(&parts),
						 &file->content);
	array_finish(&parts);
	return error;
}

int export_plan_deal(struct export_plan *plan)
{
	struct export_file all = {
		.count = export_part_count(&plan->parts),
	};
	uint64_t i;
	int error;

	if (plan->options->form == EXPORT_NPY)
		return deal_one_each(plan);
	error = plan->options->form == EXPORT_HF ? deal_by_size(plan) :
		array_append(&plan->files, &all, sizeof(all));
	for (i = 0; i < export_file_count(plan) && !error; i++)
		error = make_image(plan, file_at(plan, i), i == 0);
	return error;
}

static void base_name(const char *path, char ret_name[NAME_MAX + 1])
{
	const char *slash = strrchr(path, '/');

	snprintf(ret_name, NAME_MAX + 1, "%.*s", NAME_MAX,
		 slash ? slash + 1 : path);
}

void export_file_name(const struct export_plan *plan, uint64_t index,
		      char ret_name[NAME_MAX + 1])
{
	uint64_t count = export_file_count(plan);
	size_t size;
	const char *key;

	if (plan->options->form == EXPORT_NPY) {
		key = export_key(plan, export_part(&plan->parts, index),
				 &size);
		strcpy(ret_name + name_encode(key, size, ret_name), ".npy");
	} else if (plan->options->form == EXPORT_SAFETENSORS) {
		base_name(plan->options->path, ret_name);
	} else if (count == 1) {
		strcpy(ret_name, "model.safetensors");
	} else {
		snprintf(ret_name, NAME_MAX + 1,
			 "model-%05" PRIu64 "-of-%05" PRIu64 ".safetensors",
			 index + 1, count);
	}
}

int export_plan_open(void *context, uint64_t index,
		     struct virtual_file **ret_content,
		     char ret_name[NAME_MAX + 1])
{
	struct export_plan *plan = context;
	struct export_file *file = file_at(plan, index);
	const struct virtual_file_part *part;
	struct virtual_file_origin origin = { .catalog = plan->catalog };

	export_file_name(plan, index, ret_name);
	if (file->content) {
		*ret_content = virtual_file_get(file->content);
		return 0;
	}
	part = export_part(&plan->parts, file->first);
	origin.entry = part->entry;
	origin.dtype = part->dtype;
	catalog_shape(plan->catalog, catalog_entry(plan->catalog, part->entry),
		      &origin.selection);
	return virtual_file_npy(&origin, ret_content);
}

static int index_file(const struct export_plan *plan, uint64_t index,
		      struct array *out)
{
	const struct export_file *file = file_at(plan, index);
	char name[NAME_MAX + 1];
	uint64_t i;
	int error = 0;

	export_file_name(plan, index, name);
	for (i = 0; i < file->count && !error; i++) {
		const char *key;
		size_t size;

		key = export_key(plan, export_part(&plan->parts,
						   file->first + i), &size);
		error = tool_print(out, "%s\n    ",
				   index + i > 0 ? "," : "");
		if (!error)
			error = json_text_string(out, key, size);
		if (!error)
			error = tool_print(out, ": \"%s\"", name);
	}
	return error;
}

int export_index(const struct export_plan *plan, struct array *out)
{
	uint64_t i;
	int error = tool_print(out,
			       "{\n  \"metadata\": {\n    \"total_size\": %"
			       PRIu64 "\n  },\n  \"weight_map\": {",
			       plan->size);

	for (i = 0; i < export_file_count(plan) && !error; i++)
		error = index_file(plan, i, out);
	return error ? error : tool_print(out, "\n  }\n}\n");
}
