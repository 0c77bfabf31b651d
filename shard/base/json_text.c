/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/json_text.h"

#include "shard/base/name.h"

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>

enum { JSON_FLAGS = JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE };

struct json_object *json_text_name(const char *name, size_t size)
{
	struct array text = { .data = NULL };
	struct json_object *string = NULL;
	size_t i = 0;
	int error = 0;

	while (i < size && !error) {
		unsigned length = name_utf8_size(name + i, size - i);

		error = length ? array_append(&text, name + i, length) :
				 array_append(&text, "\xef\xbf\xbd", 3);
		i += length ? length : 1;
	}
	if (!error && text.size <= INT_MAX)
		string = json_object_new_string_len(text.data ? text.data : "",
						    (int)text.size);
	array_finish(&text);
	return string;
}

int json_text_append(struct array *out, struct json_object *object,
		     bool failed)
{
	const char *text = NULL;
	size_t size = 0;
	int error;

	/* json-c cuts the text short in silence when memory runs out. */
	errno = 0;
	if (object && !failed)
		text = json_object_to_json_string_length(object, JSON_FLAGS,
							 &size);
	error = text && errno != ENOMEM ? array_append(out, text, size) :
					  -ENOMEM;
	json_object_put(object);
	return error;
}

int json_text_string(struct array *out, const char *name, size_t size)
{
	return json_text_append(out, json_text_name(name, size), false);
}

bool json_text_is_exact(const char *name, size_t size)
{
	size_t i = 0;
	unsigned length;

	while (i < size) {
		length = name_utf8_size(name + i, size - i);
		if (length == 0)
			return false;
		i += length;
	}
	return true;
}
