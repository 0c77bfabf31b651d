/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The payloads of requests: numbers of the machine's own kind one behind the
 * other, then text. What is read is checked for form: it is all there, paths end
 * where they should and lead nowhere else.
 */
#ifndef COMM_WIRE_H
#define COMM_WIRE_H

#include "comm/message.h"
#include "shard/base/limits.h"

#include <stdbool.h>

/* A payload that is written; empty when its size is 0. */
struct wire {
	size_t size;
	unsigned char data[MESSAGE_PAYLOAD_MAX];
};

/* Each appends. 0, or -ENAMETOOLONG: no more fits. */
int wire_put(struct wire *wire, const void *data, size_t size);
int wire_put_text(struct wire *wire, const char *text);
/* All of a payload that is a head and a path. */
int wire_put_all(struct wire *wire, const void *head, size_t size,
		 const char *path);

/* What is left of one that is read; borrowed. */
struct wire_reader {
	const unsigned char *data;
	size_t left;
};

/* Each takes from the start. False: it is not there. */
bool wire_get(struct wire_reader *reader, void *to, size_t size);
bool wire_get_text(struct wire_reader *reader, char *to, size_t room);
/* Relative, and every part of it a name; "" is the store. */
bool wire_get_path(struct wire_reader *reader, char to[LIMIT_PATH_SIZE + 1]);
/* What wire_put_all has put, and nothing more. */
bool wire_get_all(struct wire_reader *reader, void *head, size_t size,
		  char path[LIMIT_PATH_SIZE + 1]);

#endif
