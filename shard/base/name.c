/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/name.h"

#include "shard/base/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

unsigned name_utf8_size(const char *p, size_t size)
{
	const unsigned char *s = (const unsigned char *)p;
	unsigned length, i;
	uint32_t code;

	if (size == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	length = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (size < length)
		return 0;
	code = s[0] & (0x7fu >> length);
	for (i = 1; i < length; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	if ((length == 3 && code < 0x800) || (length == 4 && code < 0x10000) ||
	    (code >= 0xd800 && code < 0xe000) || code > 0x10ffff)
		return 0;
	return length;
}

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c != 0x7f && c != '%' && c != '/' && c != '[';
}

static bool is_dots(const char *name, size_t size)
{
	return size > 0 && size <= 2 && name[0] == '.' && name[size - 1] == '.';
}

static void add_hash(const char *name, size_t size, char *end)
{
	uint64_t hash[2];

	hash_128(name, size, hash);
	sprintf(end, "%%~%016" PRIx64 "%016" PRIx64, hash[1], hash[0]);
}

size_t name_encode(const char *name, size_t size,
		   char ret_encoded[NAME_ENCODED_MAX])
{
	bool dots = is_dots(name, size);
	size_t in = 0, out = 0;

	while (in < size) {
		unsigned length = name_utf8_size(name + in, size - in);
		bool plain = length > 1 ||
			     (length == 1 && !dots &&
			      is_plain((unsigned char)name[in]));
		size_t need = plain ? length : 3;

		if (out + need > LIMIT_ENCODED_SIZE) {
			add_hash(name, size, ret_encoded + out);
			return out + 2 + 32;
		}
		if (plain) {
			memcpy(ret_encoded + out, name + in, length);
			in += length;
		} else {
			sprintf(ret_encoded + out, "%%%02X",
				(unsigned char)name[in]);
			in++;
		}
		out += need;
	}
	if (size == 0)
		ret_encoded[out++] = '%';
	ret_encoded[out] = '\0';
	return out;
}
