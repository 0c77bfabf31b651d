/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/internal.h"

#include "shard/base/name.h"

#include <string.h>

/* The character at @p, and its bytes. What is not UTF-8 is none of the
 * characters: above all of them. */
static uint32_t decode(const char *p, size_t size, size_t *ret_size)
{
	static const unsigned char masks[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
	unsigned length = name_utf8_size(p, size), i;
	uint32_t code;

	*ret_size = length ? length : 1;
	if (!length)
		return 0x110000 + (unsigned char)*p;
	code = (unsigned char)p[0] & masks[length];
	for (i = 1; i < length; i++)
		code = code << 6 | ((unsigned char)p[i] & 0x3f);
	return code;
}

/* One character of a bracket, or of the text, behind a backslash or not. */
static uint32_t take(const char **glob)
{
	uint32_t code;
	size_t size;

	if (**glob == '\\' && (*glob)[1])
		(*glob)++;
	code = decode(*glob, strnlen(*glob, 4), &size);
	*glob += size;
	return code;
}

/* Behind the bracket at @glob, whose closing one is there; NULL: it is not,
 * and the bracket is an ordinary character. */
static const char *match_bracket(const char *glob, uint32_t code,
				 bool *ret_match)
{
	bool invert = glob[1] == '!' || glob[1] == '^', match = false;
	const char *first = glob + 1 + invert, *p = first;
	uint32_t low, high;

	while (*p && (*p != ']' || p == first)) {
		low = high = take(&p);
		if (*p == '-' && p[1] && p[1] != ']') {
			p++;
			high = take(&p);
		}
		match = match || (low <= code && code <= high);
	}
	if (!*p)
		return NULL;
	*ret_match = match != invert;
	return p + 1;
}

/* Behind the element of @glob that @code matches; NULL: it does not. */
static const char *match_one(const char *glob, uint32_t code)
{
	const char *next = NULL;
	bool match;

	if (*glob == '?')
		return glob + 1;
	if (*glob == '[')
		next = match_bracket(glob, code, &match);
	if (next)
		return match ? next : NULL;
	return *glob && take(&glob) == code ? glob : NULL;
}

/*
 * A star first matches nothing, and one character more each time that what
 * follows it does not match. Only the last star need be tried again: what an
 * earlier one would match in addition, the last one can match as well.
 */
bool glob_match(const char *glob, const char *name, size_t size)
{
	const char *end = name + size, *star = NULL, *retry = NULL, *next;
	size_t length = 0;
	uint32_t code;

	while (name < end) {
		if (*glob == '*') {
			star = ++glob;
			retry = name;
			continue;
		}
		code = decode(name, (size_t)(end - name), &length);
		next = match_one(glob, code);
		if (next) {
			glob = next;
			name += length;
		} else if (star) {
			decode(retry, (size_t)(end - retry), &length);
			retry += length;
			name = retry;
			glob = star;
		} else {
			return false;
		}
	}
	while (*glob == '*')
		glob++;
	return *glob == '\0';
}
