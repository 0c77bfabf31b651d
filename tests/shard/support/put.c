/* SPDX-License-Identifier: Apache-2.0 */
#include "support/put.h"

#include "support/test.h"

#include <string.h>

void put_bytes(struct array *out, const void *data, size_t size)
{
	assert_int_equal(array_append(out, data, size), 0);
}

static void put_little(struct array *out, uint64_t number, unsigned size)
{
	unsigned char bytes[8];
	unsigned i;

	for (i = 0; i < size; i++)
		bytes[i] = (unsigned char)(number >> 8 * i);
	put_bytes(out, bytes, size);
}

void put_u8(struct array *out, unsigned number)
{
	put_little(out, number, 1);
}

void put_u16(struct array *out, unsigned number)
{
	put_little(out, number, 2);
}

void put_u32(struct array *out, uint64_t number)
{
	put_little(out, number, 4);
}

void put_u64(struct array *out, uint64_t number)
{
	put_little(out, number, 8);
}

void put_proto(struct array *out, unsigned protocol)
{
	put_u8(out, 0x80);
	put_u8(out, protocol);
}

void put_text_size(struct array *out, const char *text, size_t size)
{
	if (size < 256) {
		put_u8(out, 0x8c);
		put_u8(out, (unsigned)size);
	} else {
		put_u8(out, 'X');
		put_u32(out, size);
	}
	put_bytes(out, text, size);
}

void put_text(struct array *out, const char *text)
{
	put_text_size(out, text, strlen(text));
}

void put_number(struct array *out, int64_t number)
{
	if (number >= 0 && number < 256) {
		put_u8(out, 'K');
		put_u8(out, (unsigned)number);
	} else if (number >= 0 && number < 65536) {
		put_u8(out, 'M');
		put_u16(out, (unsigned)number);
	} else if (number >= INT32_MIN && number <= INT32_MAX) {
		put_u8(out, 'J');
		put_u32(out, (uint64_t)number);
	} else {
		put_u8(out, 0x8a);
		put_u8(out, 8);
		put_u64(out, (uint64_t)number);
	}
}

void put_global(struct array *out, const char *module, const char *name)
{
	put_u8(out, 'c');
	put_bytes(out, module, strlen(module));
	put_u8(out, '\n');
	put_bytes(out, name, strlen(name));
	put_u8(out, '\n');
}

void put_tuple(struct array *out, const uint64_t *numbers, unsigned count)
{
	unsigned i;

	put_u8(out, '(');
	for (i = 0; i < count; i++)
		put_number(out, (int64_t)numbers[i]);
	put_u8(out, 't');
}

void put_size(struct array *out, const uint64_t *numbers, unsigned count)
{
	put_global(out, "torch", "Size");
	put_tuple(out, numbers, count);
	PUT(out, "\x85R");
}
