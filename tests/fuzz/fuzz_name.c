/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoded names: decoding them gives the name back, which is what makes them
 * injective; a cut one holds the start of the name and the hash of all of it.
 */
#include "tests/fuzz/fuzz.h"

#include "shard/base/name.h"

#include <string.h>
#include <xxhash.h>

static int digit(char c)
{
	static const char digits[] = "0123456789ABCDEF";
	const char *found = strchr(digits, c);

	CHECK(c && found);
	return (int)(found - digits);
}

/* Undo the encoding of @size bytes; returns the size of what they stand for. */
static size_t decode(const char *text, size_t size, char *ret_name)
{
	size_t i, count = 0;

	for (i = 0; i < size; i++) {
		if (text[i] == '%') {
			CHECK(size - i >= 3);
			ret_name[count++] = (char)(digit(text[i + 1]) << 4 |
						   digit(text[i + 2]));
			i += 2;
		} else {
			ret_name[count++] = text[i];
		}
	}
	return count;
}

/* By the table of the standard (Unicode 3.9, table 3-7), row by row. */
static size_t utf8_size(const unsigned char *p, size_t size)
{
	static const unsigned char rows[][5] = {
		/* first byte, second byte, size */
		{ 0x00, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 },
		{ 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
		{ 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
		{ 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 },
		{ 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};
	size_t i, j;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const unsigned char *row = rows[i];

		if (size < row[4] || p[0] < row[0] || p[0] > row[1])
			continue;
		if (row[4] > 1 && (p[1] < row[2] || p[1] > row[3]))
			return 0;
		for (j = 2; j < row[4]; j++)
			if (p[j] < 0x80 || p[j] > 0xbf)
				return 0;
		return row[4];
	}
	return 0;
}

/* A file name that no program minds. */
static void check_file_name(const char *text, size_t size)
{
	size_t i = 0, step;

	CHECK(size > 0 && size < NAME_ENCODED_MAX && !text[size]);
	CHECK(strlen(text) == size);
	CHECK(strcmp(text, ".") != 0 && strcmp(text, "..") != 0);
	for (; i < size; i += step) {
		unsigned char c = (unsigned char)text[i];

		step = utf8_size((const unsigned char *)text + i, size - i);
		CHECK(step > 0);
		CHECK(c >= 0x20 && c != 0x7f && c != '/' && c != '[');
	}
}

static void check_hash(const char *text, const char *name, size_t size)
{
	XXH128_canonical_t digest;
	char hex[33];
	size_t i;

	XXH128_canonicalFromHash(&digest, XXH3_128bits(name, size));
	for (i = 0; i < sizeof(digest.digest); i++)
		sprintf(hex + 2 * i, "%02x", digest.digest[i]);
	CHECK(memcmp(text, hex, 32) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *name = (const char *)data;
	char encoded[NAME_ENCODED_MAX], decoded[NAME_ENCODED_MAX];
	size_t encoded_size, decoded_size, i;
	const char *cut;

	for (i = 0; i < size; i++)
		CHECK(name_utf8_size(name + i, size - i) ==
		      utf8_size(data + i, size - i));
	encoded_size = name_encode(name, size, encoded);
	check_file_name(encoded, encoded_size);
	if (size == 0) {
		CHECK(strcmp(encoded, "%") == 0);
		return 0;
	}
	cut = strstr(encoded, "%~");
	if (!cut) {
		CHECK(encoded_size <= LIMIT_ENCODED_SIZE);
		decoded_size = decode(encoded, encoded_size, decoded);
		CHECK(decoded_size == size);
		CHECK(memcmp(decoded, name, size) == 0);
		return 0;
	}
	/* Cut as late as possible: the next character or escape has at most
	 * four bytes. */
	CHECK(cut - encoded <= LIMIT_ENCODED_SIZE);
	CHECK(cut - encoded > LIMIT_ENCODED_SIZE - 4);
	CHECK(strlen(cut) == 2 + 32);
	decoded_size = decode(encoded, (size_t)(cut - encoded), decoded);
	CHECK(decoded_size < size && memcmp(decoded, name, decoded_size) == 0);
	check_hash(cut + 2, name, size);
	return 0;
}
