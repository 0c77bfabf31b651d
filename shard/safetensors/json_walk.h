/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON objects, one member at a time, for those too large to be held as a
 * tree. Every value is parsed by json-c; only the walk from member to member
 * is ours. Strict: no comments, no trailing commas, UTF-8 only.
 */
#ifndef SHARD_SAFETENSORS_JSON_WALK_H
#define SHARD_SAFETENSORS_JSON_WALK_H

#include "shard/base/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;
struct json_tokener;

struct json_walk {
	const char *text;		/* borrowed */
	size_t size, position;		/* bytes */
	struct json_tokener *tokener;	/* owned */
	struct json_object *key;	/* owned; of the member at hand */
	unsigned depth;			/* of objects that were entered */
	bool first;			/* no member of this object was seen */
	struct fault *fault;		/* borrowed, may be NULL */
};

/*
 * Walk @size bytes at @text. All functions return -EBADMSG with the fault
 * filled (offset in @text) for what is not JSON, or -ENOMEM.
 */
int json_walk_init(struct json_walk *walk, const char *text, size_t size,
		   struct fault *fault);
void json_walk_finish(struct json_walk *walk);

/* The value at hand is an object: go inside. -EBADMSG when it is none. */
int json_walk_enter(struct json_walk *walk);
/* 1 with the next key, borrowed until the next call, not terminated; 0 when
 * the object has ended: then the walk is back in the one around it. */
int json_walk_next(struct json_walk *walk, const char **ret_key,
		   size_t *ret_size);
/* The value of the member at hand; the caller puts it (NULL is null). At most
 * 32 levels deep. */
int json_walk_value(struct json_walk *walk, struct json_object **ret_value);
/* Nothing but blanks may follow the outermost object. */
int json_walk_end(struct json_walk *walk);

#endif
