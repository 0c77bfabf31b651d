/* SPDX-License-Identifier: Apache-2.0 */
/* JSON as text, by json-c. */
#ifndef SHARD_BASE_JSON_TEXT_H
#define SHARD_BASE_JSON_TEXT_H

#include "shard/base/array.h"

#include <stdbool.h>

struct json_object;

/* A string of @size bytes; what is not UTF-8 becomes U+FFFD. NULL: no
 * memory. */
struct json_object *json_text_name(const char *name, size_t size);

/* Append the text of @object, which is given away: -ENOMEM when it is NULL,
 * or when making it has @failed. */
int json_text_append(struct array *out, struct json_object *object,
		     bool failed);

/* Append a string with its quotes. 0 or -ENOMEM. */
int json_text_string(struct array *out, const char *name, size_t size);

/* Is all of it UTF-8, so that the string says the same? */
bool json_text_is_exact(const char *name, size_t size);

#endif
