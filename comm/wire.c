/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/wire.h"

#include <errno.h>
#include <string.h>

int wire_put(struct wire *wire, const void *data, size_t size)
{
	if (size > sizeof(wire->data) - wire->size)
		return -ENAMETOOLONG;
	memcpy(wire->data + wire->size, data, size);
	wire->size += size;
	return 0;
}

int wire_put_text(struct wire *wire, const char *text)
{
	return wire_put(wire, text, strlen(text) + 1);
}

int wire_put_all(struct wire *wire, const void *head, size_t size,
		 const char *path)
{
	int error;

	wire->size = 0;
	error = wire_put(wire, head, size);
	return error ? error : wire_put_text(wire, path);
}

bool wire_get(struct wire_reader *reader, void *to, size_t size)
{
	if (size > reader->left)
		return false;
	memcpy(to, reader->data, size);
	reader->data += size;
	reader->left -= size;
	return true;
}

bool wire_get_text(struct wire_reader *reader, char *to, size_t room)
{
	const unsigned char *end = memchr(reader->data, '\0', reader->left);
	size_t size = end ? (size_t)(end - reader->data) + 1 : 0;

	return size > 0 && size <= room && wire_get(reader, to, size);
}

static bool is_path(const char *path)
{
	while (*path) {
		size_t size = strcspn(path, "/");

		if (size == 0 || size > 255 || (size == 1 && path[0] == '.') ||
		    (size == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		path += size;
		if (*path == '/' && !*++path)
			return false;
	}
	return true;
}

bool wire_get_path(struct wire_reader *reader, char to[LIMIT_PATH_SIZE + 1])
{
	return wire_get_text(reader, to, LIMIT_PATH_SIZE + 1) && is_path(to);
}

bool wire_get_all(struct wire_reader *reader, void *head, size_t size,
		  char path[LIMIT_PATH_SIZE + 1])
{
	return wire_get(reader, head, size) && wire_get_path(reader, path) &&
	       reader->left == 0;
}
