/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/safetensors/json_walk.h"

#include "shard/base/limits.h"
#include "shard/base/name.h"

#include <assert.h>
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

enum { DEPTH_MAX = 32 };

static int bad(const struct json_walk *walk, const char *reason)
{
	return fault_set(walk->fault, -EBADMSG, walk->position, reason);
}

/* json-c takes for UTF-8 what is none, and for a character of a string any
 * control byte, of which a NUL would end it. */
static int check_text(struct json_walk *walk)
{
	const unsigned char *text = (const unsigned char *)walk->text;
	unsigned length;

	while (walk->position < walk->size) {
		unsigned char c = text[walk->position];

		length = c < 0x80 ? 1 :
			 name_utf8_size(walk->text + walk->position,
					walk->size - walk->position);
		if (length == 0)
			return bad(walk, "not UTF-8");
		if (c < ' ' && c != '\n' && c != '\t' && c != '\r')
			return bad(walk, "control character in JSON");
		walk->position += length;
	}
	walk->position = 0;
	return 0;
}

int json_walk_init(struct json_walk *walk, const char *text, size_t size,
		   struct fault *fault)
{
	int error;

	*walk = (struct json_walk){ .text = text, .size = size, .first = true,
				    .fault = fault };
	assert(size <= INT32_MAX);
	error = check_text(walk);
	if (error)
		return error;
	walk->tokener = json_tokener_new_ex(DEPTH_MAX);
	if (!walk->tokener)
		return fault_set(fault, -ENOMEM, 0, "out of memory");
	json_tokener_set_flags(walk->tokener,
			       JSON_TOKENER_STRICT |
			       JSON_TOKENER_ALLOW_TRAILING_CHARS);
	return 0;
}

void json_walk_finish(struct json_walk *walk)
{
	json_object_put(walk->key);
	if (walk->tokener)
		json_tokener_free(walk->tokener);
	walk->key = NULL;
	walk->tokener = NULL;
}

/* The next byte that is no blank; NUL at the end. */
static char peek(struct json_walk *walk)
{
	const char *text = walk->text;
	size_t at = walk->position;

	while (at < walk->size && (text[at] == ' ' || text[at] == '\n' ||
				   text[at] == '\t' || text[at] == '\r'))
		at++;
	walk->position = at;
	return at < walk->size ? text[at] : '\0';
}

/*
 * A value, with what json-c says of it. What is no string costs 40 times its
 * text in memory, so there is a limit to that. When json-c runs out of memory
 * it leaves parts out and says nothing, but the C library does.
 */
static int parse(struct json_walk *walk, struct json_object **ret_value)
{
	bool string = peek(walk) == '"';
	size_t left = walk->size - walk->position;
	bool cut = !string && left > LIMIT_JSON_VALUE_SIZE;
	struct json_object *value;
	enum json_tokener_error error;
	bool no_memory;

	errno = 0;
	value = json_tokener_parse_ex(walk->tokener,
				      walk->text + walk->position,
				      (int)(cut ? LIMIT_JSON_VALUE_SIZE :
						  left));
	no_memory = errno == ENOMEM;
	error = json_tokener_get_error(walk->tokener);
	if (!no_memory && error == json_tokener_success) {
		walk->position += json_tokener_get_parse_end(walk->tokener);
		*ret_value = value;
		return 0;
	}
	json_object_put(value);
	if (no_memory)
		return fault_set(walk->fault, -ENOMEM, 0, "out of memory");
	if (error == json_tokener_continue && cut)
		return fault_set(walk->fault, -E2BIG, walk->position,
				 "value in JSON too large");
	walk->position += json_tokener_get_parse_end(walk->tokener);
	if (error == json_tokener_continue)
		return bad(walk, "JSON ends too early");
	return bad(walk, json_tokener_error_desc(error));
}

int json_walk_enter(struct json_walk *walk)
{
	if (peek(walk) != '{')
		return bad(walk, "no JSON object");
	if (walk->depth == DEPTH_MAX)
		return bad(walk, "JSON too deep");
	walk->position++;
	walk->depth++;
	walk->first = true;
	return 0;
}

static int parse_key(struct json_walk *walk)
{
	int error;

	if (peek(walk) != '"')
		return bad(walk, "no key in a JSON object");
	error = parse(walk, &walk->key);
	if (error)
		return error;
	if (peek(walk) != ':')
		return bad(walk, "no colon behind a key");
	walk->position++;
	return 0;
}

int json_walk_next(struct json_walk *walk, const char **ret_key,
		   size_t *ret_size)
{
	char c = peek(walk);
	int error;

	assert(walk->depth > 0);
	json_object_put(walk->key);
	walk->key = NULL;
	if (c == '}') {
		walk->position++;
		walk->depth--;
		walk->first = false;
		return 0;
	}
	if (!walk->first) {
		if (c != ',')
			return bad(walk, "neither a comma nor the end of an object");
		walk->position++;
	}
	walk->first = false;
	error = parse_key(walk);
	if (error)
		return error;
	*ret_key = json_object_get_string(walk->key);
	*ret_size = (size_t)json_object_get_string_len(walk->key);
	return 1;
}

int json_walk_value(struct json_walk *walk, struct json_object **ret_value)
{
	return parse(walk, ret_value);
}

int json_walk_end(struct json_walk *walk)
{
	return peek(walk) ? bad(walk, "bytes behind the JSON") : 0;
}
