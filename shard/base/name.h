/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fully qualified names as file names.
 *
 * Percent-encoded, so that no two names meet: `%`, `/`, `[`, control bytes,
 * bytes that are not UTF-8 (surrogates are not), a lone `.` or `..`, and the
 * empty name, which is `%`. A result over LIMIT_ENCODED_SIZE bytes is cut
 * there, never inside an escape or a character, and ends in `%~` and the 32
 * hex digits of the name's XXH3-128.
 */
#ifndef SHARD_BASE_NAME_H
#define SHARD_BASE_NAME_H

#include "shard/base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the longest encoded name, its end included. */
#define NAME_ENCODED_MAX (LIMIT_ENCODED_SIZE + 2 + 32 + 1)

/* Encode @size bytes at @name; returns the size without the closing NUL. */
size_t name_encode(const char *name, size_t size,
		   char ret_encoded[NAME_ENCODED_MAX]);

/* Bytes of the UTF-8 character at @p, of which @size are left; 0: none. */
unsigned name_utf8_size(const char *p, size_t size);

#endif
