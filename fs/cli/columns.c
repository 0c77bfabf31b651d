/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/columns.h"

#include "shard/base/json_text.h"
#include "shard/base/name.h"
#include "shard/catalog/catalog_json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int columns_type(const struct catalog *catalog,
		 const struct catalog_entry *entry, struct array *out)
{
	if (entry->flags & CATALOG_OBJECT)
		return tool_print(out, "object");
	if (entry->type_name_size)
		return tool_print_text(catalog_text(catalog, entry->type_name),
				       entry->type_name_size, out);
	return tool_print(out, "%s", dtype_info(entry->dtype)->name);
}

int columns_shape(const struct catalog *catalog,
		  const struct catalog_entry *entry, struct array *out)
{
	struct box shape;

	if (entry->flags & CATALOG_OBJECT)
		return tool_print(out, "-");
	catalog_written_shape(catalog, entry, &shape);
	return catalog_json_shape(&shape, out);
}

/* ---- JSON ---------------------------------------------------------------- */

static int print_torch_type(const struct catalog *catalog,
			    const struct catalog_entry *entry,
			    struct array *out)
{
	const char *name = dtype_info(entry->dtype)->torch;

	if (entry->type_name_size)
		return json_text_string(out,
					catalog_text(catalog, entry->type_name),
					entry->type_name_size);
	return json_text_string(out, name, strlen(name));
}

int columns_json_type(const struct catalog *catalog,
		      const struct catalog_entry *entry, const char *suffix,
		      struct array *out)
{
	bool object = entry->flags & CATALOG_OBJECT;
	int error = tool_print(out, "\"dtype%s\":\"%s\"", suffix, object ?
			       "object" : dtype_info(entry->dtype)->name);

	if (!error && !object)
		error = tool_print(out, ",\"torch_dtype%s\":", suffix);
	if (!error && !object)
		error = print_torch_type(catalog, entry, out);
	if (!error && !object)
		error = tool_print(out, ",\"shape%s\":", suffix);
	if (!error && !object)
		error = columns_shape(catalog, entry, out);
	return error ? error : tool_print(out, ",\"nbytes%s\":%" PRIu64,
					  suffix, entry->size);
}

int columns_json(const struct catalog *catalog,
		 const struct catalog_entry *entry, struct array *out)
{
	const char *name = catalog_text(catalog, entry->name);
	char encoded[NAME_ENCODED_MAX];
	size_t size = name_encode(name, entry->name_size, encoded);
	int error = tool_print(out, "\"name\":");

	if (!error)
		error = json_text_string(out, name, entry->name_size);
	if (!error)
		error = tool_print(out, ",");
	if (!error)
		error = columns_json_type(catalog, entry, "", out);
	if (!error)
		error = tool_print(out, ",\"file\":");
	return error ? error : json_text_string(out, encoded, size);
}

int columns_json_double(double number, struct array *out)
{
	char text[32];
	int digits;

	if (!isfinite(number))
		return tool_print(out, "null");
	for (digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, number);
		if (strtod(text, NULL) == number)
			break;
	}
	return tool_print(out, "%s", text);
}

/* ---- columns ------------------------------------------------------------- */

size_t columns_width(const struct array *text)
{
	size_t i, count = 0;

	/* What would begin a character is not a continuation of one. */
	for (i = 0; i < text->size; i++)
		count += (text->data[i] & 0xc0) != 0x80;
	return count;
}

int columns_cell(const struct array *cell, size_t width, bool right,
		 struct array *out)
{
	size_t used = columns_width(cell);
	int blanks = used < width ? (int)(width - used) : 0;
	int error = right ? tool_print(out, "%*s", blanks, "") : 0;

	if (!error)
		error = array_append(out, cell->data, cell->size);
	return error || right ? error : tool_print(out, "%*s", blanks, "");
}
