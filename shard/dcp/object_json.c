/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk keeps its own stack, of containers that are being filled, and
 * counts what it makes: parts of a pickle may be shared, so that a small one
 * can stand for a huge text.
 */
#include "shard/dcp/object_json.h"

#include "shard/base/dtype.h"
#include "shard/base/limits.h"
#include "shard/base/name.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct object_level {
	struct json_object *container;	/* owned by its parent */
	bool dict;
	bool tuple;
	struct pickle_items items;
	const struct pickle_value *elements;	/* of a tuple */
	uint64_t index, count;
};

/* About what json-c needs for a value, the text included. */
enum {
	COST_SCALAR = 64,
	COST_ARRAY = 160,
	COST_DICT = 800,
	COST_BYTE = 4,
	COST_CONTROL = 24,
};

struct object_walk {
	const struct pickle *pickle;
	struct json_object *root;	/* owned */
	uint64_t budget;		/* bytes of memory that may be used */
	unsigned depth;
	struct object_level level[LIMIT_OBJECT_DEPTH];
};

/* As Python's repr: the shortest digits that give the number back, with an
 * exponent below 1e-4 and from 1e16 on. */
static void print_float(double number, char text[40])
{
	int precision = -1, exponent;

	if (isnan(number)) {
		strcpy(text, "NaN");
		return;
	}
	if (isinf(number)) {
		strcpy(text, number < 0 ? "-Infinity" : "Infinity");
		return;
	}
	do
		snprintf(text, 40, "%.*e", ++precision, number);
	while (precision < 16 && strtod(text, NULL) != number);
	exponent = atoi(strchr(text, 'e') + 1);
	if (exponent < -4 || exponent >= 16)
		return;
	/* One digit stood before the point; at least one follows it. */
	precision -= exponent;
	snprintf(text, 40, "%.*f", precision < 1 ? 1 : precision, number);
}

static int spend(struct object_walk *walk, uint64_t amount)
{
	if (amount > walk->budget)
		return -EOPNOTSUPP;
	walk->budget -= amount;
	return 0;
}

/* Pay for a string, which must be UTF-8. JSON spells a control byte with six
 * characters. */
static int spend_string(struct object_walk *walk, const char *text,
			uint64_t size)
{
	uint64_t i = 0;

	while (i < size) {
		unsigned length = name_utf8_size(text + i, size - i);
		bool control = (unsigned char)text[i] < ' ';

		if (!length || spend(walk, length * (control ? COST_CONTROL :
							       COST_BYTE)))
			return -EOPNOTSUPP;
		i += length;
	}
	return 0;
}

/* "torch.float32" for a global of that name. */
static bool print_dtype(const struct pickle *p, struct pickle_value value,
			char text[40])
{
	struct pickle_symbol symbol;

	if (!pickle_symbol(p, value, &symbol) || symbol.module_size != 5 ||
	    memcmp(symbol.module, "torch", 5) != 0 ||
	    dtype_from_torch(symbol.name, symbol.name_size) == DTYPE_UNKNOWN)
		return false;
	snprintf(text, 40, "torch.%.*s", (int)symbol.name_size, symbol.name);
	return true;
}

/* A value without parts. 0 with NULL for None. */
static int make_scalar(struct object_walk *walk, struct pickle_value value,
		       struct json_object **ret)
{
	const struct pickle *p = walk->pickle;
	const char *string;
	uint64_t size;
	int64_t integer;
	double number;
	char text[40];
	bool boolean;

	*ret = NULL;
	if (pickle_kind(p, value) == PICKLE_NONE)
		return 0;
	if (pickle_bool(value, &boolean)) {
		*ret = json_object_new_boolean(boolean);
	} else if (pickle_int(p, value, &integer)) {
		*ret = json_object_new_int64(integer);
	} else if (pickle_float(p, value, &number)) {
		print_float(number, text);
		*ret = json_object_new_double_s(number, text);
	} else if (pickle_string(p, value, &string, &size)) {
		if (spend_string(walk, string, size))
			return -EOPNOTSUPP;
		*ret = json_object_new_string_len(string, (int)size);
	} else if (print_dtype(p, value, text)) {
		*ret = json_object_new_string(text);
	} else {
		return -EOPNOTSUPP;
	}
	return *ret ? 0 : -ENOMEM;
}

/* Is @value a container? Then @ret_level walks its parts. */
static bool open_container(const struct pickle *p, struct pickle_value value,
			   struct object_level *ret_level)
{
	struct object_level level = { .tuple = false };
	uint64_t count;

	switch (pickle_kind(p, value)) {
	case PICKLE_DICT:
		level.dict = true;
		break;
	case PICKLE_LIST:
		break;
	case PICKLE_TUPLE:
		level.tuple = true;
		break;
	case PICKLE_CALL:
		if (!pickle_tuple(p, pickle_args(p, value), &level.elements,
				  &count) ||
		    pickle_kind(p, pickle_state(p, value)) != PICKLE_NONE)
			return false;
		if (pickle_symbol_is(p, pickle_callable(p, value), "Size") &&
		    count == 1 &&
		    pickle_kind(p, level.elements[0]) == PICKLE_TUPLE) {
			level.tuple = true;
			value = level.elements[0];
		} else if (pickle_symbol_is(p, pickle_callable(p, value),
					    "OrderedDict") && count == 0) {
			level.dict = true;
		} else {
			return false;
		}
		break;
	default:
		return false;
	}
	if (level.tuple)
		pickle_tuple(p, value, &level.elements, &level.count);
	else
		level.items = pickle_items(p, value);
	*ret_level = level;
	return true;
}

/* The key of a pair as Python's json spells it; the caller frees it. */
static int make_key(struct object_walk *walk, struct pickle_value key,
		    char **ret)
{
	const struct pickle *p = walk->pickle;
	const char *string;
	uint64_t size;
	int64_t integer;
	double number;
	bool boolean;
	char text[40];

	if (pickle_string(p, key, &string, &size)) {
		if (memchr(string, 0, size) || spend(walk, COST_SCALAR) ||
		    spend_string(walk, string, size))
			return -EOPNOTSUPP;
		*ret = strndup(string, size);
		return *ret ? 0 : -ENOMEM;
	}
	if (pickle_kind(p, key) == PICKLE_NONE)
		strcpy(text, "null");
	else if (pickle_bool(key, &boolean))
		strcpy(text, boolean ? "true" : "false");
	else if (pickle_int(p, key, &integer))
		snprintf(text, sizeof(text), "%" PRId64, integer);
	else if (pickle_float(p, key, &number))
		print_float(number, text);
	else
		return -EOPNOTSUPP;
	*ret = strdup(text);
	return *ret ? 0 : -ENOMEM;
}

/* Put @made, which is given away, into the container at hand. */
static int attach(struct object_walk *walk, struct pickle_value key,
		  struct json_object *made)
{
	struct object_level *level;
	char *text;
	int error;

	if (walk->depth == 0) {
		walk->root = made;
		return 0;
	}
	level = &walk->level[walk->depth - 1];
	if (!level->dict) {
		error = json_object_array_add(level->container, made) ?
			-ENOMEM : 0;
		goto put;
	}
	error = make_key(walk, key, &text);
	if (error)
		goto put;
	/* Two keys of one spelling, such as 1 and "1". */
	if (json_object_object_get_ex(level->container, text, NULL))
		error = -EOPNOTSUPP;
	else if (json_object_object_add(level->container, text, made))
		error = -ENOMEM;
	free(text);
put:
	if (error)
		json_object_put(made);
	return error;
}

static int visit(struct object_walk *walk, struct pickle_value key,
		 struct pickle_value value)
{
	struct json_object *made;
	struct object_level level;
	int error = spend(walk, COST_SCALAR);

	if (error)
		return error;
	if (!open_container(walk->pickle, value, &level)) {
		error = make_scalar(walk, value, &made);
		return error ? error : attach(walk, key, made);
	}
	if (walk->depth == LIMIT_OBJECT_DEPTH ||
	    spend(walk, level.dict ? COST_DICT : COST_ARRAY))
		return -EOPNOTSUPP;
	made = level.dict ? json_object_new_object() : json_object_new_array();
	if (!made)
		return -ENOMEM;
	error = attach(walk, key, made);
	if (error)
		return error;
	level.container = made;
	walk->level[walk->depth++] = level;
	return 0;
}

/* The next part of the container at hand. */
static bool next_part(struct object_level *level, struct pickle_value *key,
		      struct pickle_value *value)
{
	if (!level->tuple)
		return pickle_items_next(&level->items, key, value);
	if (level->index == level->count)
		return false;
	*value = level->elements[level->index++];
	return true;
}

int object_json(const struct pickle *pickle, struct array *out)
{
	struct object_walk *walk = calloc(1, sizeof(*walk));
	struct pickle_value key = pickle_none(), value;
	const char *text;
	size_t size;
	int error;

	if (!walk)
		return -ENOMEM;
	walk->pickle = pickle;
	walk->budget = LIMIT_OBJECT_FACTOR * pickle->size + LIMIT_OBJECT_SLACK;
	if (walk->budget > LIMIT_OBJECT_MEMORY)
		walk->budget = LIMIT_OBJECT_MEMORY;
	error = visit(walk, key, pickle->root);
	while (!error && walk->depth > 0) {
		if (next_part(&walk->level[walk->depth - 1], &key, &value))
			error = visit(walk, key, value);
		else
			walk->depth--;
	}
	if (!error) {
		/* json-c cuts the text short in silence when memory runs
		 * out. */
		errno = 0;
		text = json_object_to_json_string_length(walk->root,
			JSON_C_TO_STRING_PLAIN |
			JSON_C_TO_STRING_NOSLASHESCAPE, &size);
		error = !text || errno == ENOMEM ? -ENOMEM :
			array_append(out, text, size);
	}
	json_object_put(walk->root);
	free(walk);
	return error ? error : array_append(out, "\n", 1);
}
