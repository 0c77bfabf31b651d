/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/tool.h"

#include "shard/base/name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int terminate(struct array *out)
{
	if (array_append(out, "", 1))
		return -ENOMEM;
	out->size--;
	return 0;
}

int tool_print(struct array *out, const char *format, ...)
{
	char small[256], *text = small;
	va_list args;
	int size;

	va_start(args, format);
	size = vsnprintf(small, sizeof(small), format, args);
	va_end(args);
	if (size >= (int)sizeof(small)) {
		text = array_add(out, (size_t)size + 1);
		if (!text)
			return -ENOMEM;
		va_start(args, format);
		vsnprintf(text, (size_t)size + 1, format, args);
		va_end(args);
		out->size--;
		return 0;
	}
	if (size < 0 || array_append(out, small, (size_t)size + 1))
		return -ENOMEM;
	out->size--;
	return 0;
}

/*
 * Characters that a terminal takes for commands, or that would show other
 * text than is there: controls, also those of two bytes (U+0080 to U+009F),
 * and marks that turn the direction or end a line.
 */
static bool is_printable(const char *p, unsigned size)
{
	const unsigned char *s = (const unsigned char *)p;
	uint32_t code = 0;

	if (size == 1)
		return s[0] >= 0x20 && s[0] < 0x7f;
	if (size == 2)
		return s[0] != 0xc2 || s[1] >= 0xa0;
	if (size == 3)
		code = (s[0] & 0xfu) << 12 | (s[1] & 0x3fu) << 6 |
		       (s[2] & 0x3fu);
	return !((code >= 0x200e && code <= 0x200f) ||
		 (code >= 0x2028 && code <= 0x202e) ||
		 (code >= 0x2066 && code <= 0x2069) || code == 0xfeff);
}

int tool_print_text(const char *text, size_t size, struct array *out)
{
	size_t i = 0;
	int error = 0;

	while (i < size && !error) {
		unsigned length = name_utf8_size(text + i, size - i);

		if (length && is_printable(text + i, length))
			error = array_append(out, text + i, length);
		else
			error = array_append(out, "?", 1);
		i += length ? length : 1;
	}
	return error ? error : terminate(out);
}

int tool_print_name(const struct catalog *catalog,
		    const struct catalog_entry *entry, struct array *out)
{
	return tool_print_text(catalog_text(catalog, entry->name),
			       entry->name_size, out);
}

int tool_print_box(const struct box *box, const struct box *shape,
		   struct array *out)
{
	unsigned axis;
	int error = array_append(out, "[", 1);

	for (axis = 0; axis < box->ndim && !error; axis++) {
		const char *comma = axis > 0 ? "," : "";

		if (box->offset[axis] == 0 &&
		    box->size[axis] == shape->size[axis])
			error = tool_print(out, "%s:", comma);
		else
			error = tool_print(out, "%s%" PRIu64 ":%" PRIu64,
					   comma, box->offset[axis],
					   box->offset[axis] +
					   box->size[axis]);
	}
	return error ? error : tool_print(out, "]");
}
