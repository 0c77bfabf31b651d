/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects as JSON: the text is parsed again by the JSON library and compared
 * with the pickle, value by value.
 */
#include "tests/fuzz/fuzz.h"

#include "shard/base/limits.h"
#include "shard/dcp/object_json.h"

#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <string.h>

static void compare(const struct pickle *p, struct pickle_value value,
		    struct json_object *json);

static void compare_scalar(const struct pickle *p, struct pickle_value value,
			   struct json_object *json)
{
	const char *text;
	uint64_t size;
	int64_t integer;
	double number;
	bool boolean;

	if (pickle_bool(value, &boolean)) {
		CHECK(json_object_is_type(json, json_type_boolean));
		CHECK(json_object_get_boolean(json) == boolean);
	} else if (pickle_int(p, value, &integer)) {
		CHECK(json_object_is_type(json, json_type_int));
		CHECK(json_object_get_int64(json) == integer);
	} else if (pickle_float(p, value, &number)) {
		double read = json_object_get_double(json);

		CHECK(json_object_is_type(json, json_type_double));
		CHECK(isnan(number) ? isnan(read) :
		      memcmp(&number, &read, sizeof(read)) == 0);
	} else if (pickle_string(p, value, &text, &size)) {
		CHECK(json_object_is_type(json, json_type_string));
		CHECK((uint64_t)json_object_get_string_len(json) == size);
		CHECK(memcmp(json_object_get_string(json), text, size) == 0);
	} else if (pickle_kind(p, value) == PICKLE_SYMBOL) {
		CHECK(strncmp(json_object_get_string(json), "torch.", 6) == 0);
	} else {
		CHECK(pickle_kind(p, value) == PICKLE_NONE && !json);
	}
}

static void compare_items(const struct pickle *p, struct pickle_value value,
			  struct json_object *json)
{
	bool list = pickle_kind(p, value) == PICKLE_LIST;
	struct pickle_items items = pickle_items(p, value);
	struct pickle_value key, part;
	struct json_object *found;
	size_t count = 0;

	CHECK(json_object_is_type(json, list ? json_type_array :
					       json_type_object));
	for (; pickle_items_next(&items, &key, &part); count++) {
		const char *text;
		uint64_t size;
		char name[512];

		if (list) {
			compare(p, part, json_object_array_get_idx(json,
								   count));
			continue;
		}
		if (!pickle_string(p, key, &text, &size) ||
		    size >= sizeof(name))
			continue;
		memcpy(name, text, size);
		name[size] = '\0';
		CHECK(json_object_object_get_ex(json, name, &found));
		compare(p, part, found);
	}
	CHECK(count == (list ? json_object_array_length(json) :
			       (size_t)json_object_object_length(json)));
}

/* The depth of @json is bounded, and so is this recursion. */
static void compare(const struct pickle *p, struct pickle_value value,
		    struct json_object *json)
{
	enum pickle_kind kind = pickle_kind(p, value);
	const struct pickle_value *parts;
	uint64_t count, i;

	if (kind == PICKLE_CALL &&
	    pickle_symbol_is(p, pickle_callable(p, value), "Size")) {
		CHECK(pickle_tuple(p, pickle_args(p, value), &parts, &count));
		value = parts[0];
		kind = pickle_kind(p, value);
	}
	if (kind == PICKLE_TUPLE) {
		pickle_tuple(p, value, &parts, &count);
		CHECK(json_object_is_type(json, json_type_array));
		CHECK(json_object_array_length(json) == count);
		for (i = 0; i < count; i++)
			compare(p, parts[i],
				json_object_array_get_idx(json, i));
	} else if (kind == PICKLE_LIST || kind == PICKLE_DICT ||
		   kind == PICKLE_CALL) {
		compare_items(p, value, json);
	} else {
		compare_scalar(p, value, json);
	}
}

static void check_text(const struct pickle *pickle, const struct array *text)
{
	struct json_tokener *tokener =
		json_tokener_new_ex(LIMIT_OBJECT_DEPTH + 2);
	struct json_object *json;

	CHECK(tokener && text->size > 1);
	CHECK(text->data[text->size - 1] == '\n');
	json_tokener_set_flags(tokener, JSON_TOKENER_VALIDATE_UTF8);
	json = json_tokener_parse_ex(tokener, text->data, (int)text->size);
	CHECK(json_tokener_get_error(tokener) == json_tokener_success);
	compare(pickle, pickle->root, json);
	json_object_put(json);
	json_tokener_free(tokener);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct array text = { .data = NULL };
	struct pickle pickle;
	int error;

	if (pickle_init(&pickle, data, size, NULL))
		return 0;
	error = object_json(&pickle, &text);
	CHECK(error == 0 || error == -EOPNOTSUPP);
	if (!error)
		check_text(&pickle, &text);
	array_finish(&text);
	pickle_finish(&pickle);
	return 0;
}
