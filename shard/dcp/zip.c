/* SPDX-License-Identifier: Apache-2.0 */
/*
 *	local header | name | extra | payload | data descriptor   (a record)
 *	...
 *	central directory: one entry a record
 *	ZIP64 end of central directory (56 bytes)
 *	its locator (20 bytes)
 *	end of central directory (22 bytes), comment
 *
 * The payload starts behind the name and extra of the local header, whose
 * extra is padding and has another length than the directory says.
 */
#include "shard/dcp/zip.h"

#include "shard/base/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { COMMENT_MAX = 65535 };

static int damaged(struct fault *fault, uint64_t offset, const char *reason)
{
	fault_set(fault, -EIO, offset, reason);
	return -EIO;
}

static int read_at(const struct input *input, void *buffer, size_t size,
		   uint64_t offset, struct fault *fault)
{
	int error;

	if (offset > input->size || size > input->size - offset)
		return damaged(fault, offset, "record beyond the stored item");
	error = input->read(input, buffer, size, offset);
	if (error)
		fault_set(fault, error, offset, "reading failed");
	return error;
}

static bool is_signature(const unsigned char *p, unsigned a, unsigned b)
{
	return p[0] == 'P' && p[1] == 'K' && p[2] == a && p[3] == b;
}

/* The end record stands at the very end, or in front of a comment. */
static int find_end(const struct input *input, unsigned char *end,
		    uint64_t *ret_offset, struct fault *fault)
{
	uint64_t span, start, i;
	unsigned char *tail;
	int error;

	if (input->size < ZIP_END_SIZE)
		return damaged(fault, 0, "stored item too short for an archive");
	*ret_offset = input->size - ZIP_END_SIZE;
	error = read_at(input, end, ZIP_END_SIZE, *ret_offset, fault);
	if (error)
		return error;
	if (is_signature(end, 5, 6) && bytes_u16le(end + 20) == 0)
		return 0;
	span = COMMENT_MAX + ZIP_END_SIZE;
	if (span > input->size)
		span = input->size;
	start = input->size - span;
	tail = malloc(span);
	if (!tail)
		return fault_set(fault, -ENOMEM, 0, "out of memory");
	error = read_at(input, tail, span, start, fault);
	if (error)
		goto free_tail;
	error = -ENOENT;
	for (i = span - ZIP_END_SIZE + 1; i > 0 && error; i--)
		if (is_signature(tail + i - 1, 5, 6) &&
		    bytes_u16le(tail + i - 1 + 20) ==
		    span - ZIP_END_SIZE - (i - 1))
			error = 0;
	if (error)
		error = damaged(fault, input->size,
				"no end record: not an archive of torch.save, or cut short");
	else
		memcpy(end, tail + i, ZIP_END_SIZE);
	*ret_offset = start + i;
free_tail:
	free(tail);
	return error;
}

/* Count, size and offset of the directory, from the ZIP64 record if there is
 * one: torch always writes it. */
static int read_end(struct zip *zip, uint64_t directory_max,
		    struct fault *fault)
{
	unsigned char end[ZIP_END_SIZE], locator[ZIP_LOCATOR_SIZE];
	unsigned char end64[ZIP_END64_SIZE];
	uint64_t end_offset, limit;
	int error = find_end(zip->input, end, &end_offset, fault);

	if (error)
		return error;
	zip->record_count = bytes_u16le(end + 10);
	zip->directory_size = bytes_u32le(end + 12);
	zip->directory_offset = bytes_u32le(end + 16);
	zip->end = end_offset;
	limit = end_offset;
	if (end_offset < ZIP_LOCATOR_SIZE)
		goto check;
	error = read_at(zip->input, locator, ZIP_LOCATOR_SIZE,
			end_offset - ZIP_LOCATOR_SIZE, fault);
	if (error)
		return error;
	if (!is_signature(locator, 6, 7))
		goto check;
	limit = bytes_u64le(locator + 8);
	if (limit > end_offset - ZIP_LOCATOR_SIZE)
		return damaged(fault, end_offset - ZIP_LOCATOR_SIZE,
			       "ZIP64 end record out of place");
	error = read_at(zip->input, end64, ZIP_END64_SIZE, limit, fault);
	if (error)
		return error;
	if (!is_signature(end64, 6, 6))
		return damaged(fault, limit, "no ZIP64 end record");
	zip->end64 = limit;
	zip->record_count = bytes_u64le(end64 + 32);
	zip->directory_size = bytes_u64le(end64 + 40);
	zip->directory_offset = bytes_u64le(end64 + 48);
check:
	if (zip->directory_offset > limit ||
	    zip->directory_size > limit - zip->directory_offset ||
	    zip->record_count > zip->directory_size / ZIP_ENTRY_SIZE)
		return damaged(fault, end_offset,
			       "central directory out of place");
	if (zip->directory_size > directory_max)
		return fault_set(fault, -E2BIG, end_offset,
				 "central directory too large");
	return 0;
}

/* The numbers that did not fit into 32 bits, in this order. */
static bool read_zip64(const unsigned char *extra, uint64_t size,
		       uint64_t *numbers[], unsigned count)
{
	unsigned i;

	while (size >= 4) {
		uint64_t field = bytes_u16le(extra + 2);

		if (field > size - 4)
			return false;
		if (bytes_u16le(extra) == 1) {
			if (field < 8 * count)
				return false;
			for (i = 0; i < count; i++)
				*numbers[i] = bytes_u64le(extra + 4 + 8 * i);
			return true;
		}
		extra += 4 + field;
		size -= 4 + field;
	}
	return false;
}

/* The entry at @position of the directory, which is moved behind it. */
static int read_entry(const struct zip *zip, uint64_t *position,
		      struct zip_record *record, struct fault *fault)
{
	uint64_t left = zip->directory_size - *position, size, stored;
	uint64_t where = zip->directory_offset + *position;
	const unsigned char *p = zip->directory + *position;
	uint64_t *wide[3];
	unsigned wide_count = 0;

	if (left < ZIP_ENTRY_SIZE || !is_signature(p, 1, 2))
		return damaged(fault, where, "bad entry of the central directory");
	size = ZIP_ENTRY_SIZE + (uint64_t)bytes_u16le(p + 28) +
	       bytes_u16le(p + 30) + bytes_u16le(p + 32);
	if (size > left)
		return damaged(fault, where, "bad entry of the central directory");
	*record = (struct zip_record){
		.entry = where,
		.header = bytes_u32le(p + 42), .size = bytes_u32le(p + 24),
		.crc = bytes_u32le(p + 16), .flags = bytes_u16le(p + 8),
		.method = bytes_u16le(p + 10),
		.name = (const char *)p + ZIP_ENTRY_SIZE,
		.name_size = bytes_u16le(p + 28),
	};
	stored = bytes_u32le(p + 20);
	if (record->size == UINT32_MAX)
		wide[wide_count++] = &record->size;
	if (stored == UINT32_MAX)
		wide[wide_count++] = &stored;
	if (record->header == UINT32_MAX)
		wide[wide_count++] = &record->header;
	if (wide_count && !read_zip64(p + ZIP_ENTRY_SIZE + record->name_size,
				      bytes_u16le(p + 30), wide, wide_count))
		return damaged(fault, where, "no 64-bit sizes in the central directory");
	if (record->method == 0 && stored != record->size)
		return damaged(fault, where, "two sizes for one record");
	*position += size;
	return 0;
}

/* "archive/", or whatever the first record's name starts with. */
static int read_prefix(struct zip *zip, struct fault *fault)
{
	struct zip_record record;
	uint64_t position = 0;
	const char *slash;
	int error = read_entry(zip, &position, &record, fault);

	if (error)
		return error;
	slash = memchr(record.name, '/', record.name_size);
	if (!slash)
		return damaged(fault, zip->directory_offset,
			       "record without a folder: not an archive of torch.save");
	zip->prefix = record.name;
	zip->prefix_size = (size_t)(slash - record.name) + 1;
	return 0;
}

int zip_open(struct zip *zip, const struct input *input,
	     uint64_t directory_max, struct fault *fault)
{
	int error;

	*zip = (struct zip){ .input = input };
	error = read_end(zip, directory_max, fault);
	if (error)
		return error;
	if (zip->record_count == 0)
		return damaged(fault, zip->directory_offset, "empty archive");
	zip->directory = malloc(zip->directory_size);
	if (!zip->directory)
		return fault_set(fault, -ENOMEM, 0, "out of memory");
	error = read_at(input, zip->directory, zip->directory_size,
			zip->directory_offset, fault);
	if (!error)
		error = read_prefix(zip, fault);
	if (error)
		zip_close(zip);
	return error;
}

void zip_close(struct zip *zip)
{
	free(zip->directory);
	zip->directory = NULL;
}

int zip_next(const struct zip *zip, uint64_t *position,
	     struct zip_record *ret_record, struct fault *fault)
{
	if (*position == zip->directory_size)
		return -ENOENT;
	return read_entry(zip, position, ret_record, fault);
}

bool zip_is_called(const struct zip *zip, const struct zip_record *record,
		   const char *name, size_t name_size)
{
	return record->name_size == zip->prefix_size + name_size &&
	       memcmp(record->name, zip->prefix, zip->prefix_size) == 0 &&
	       memcmp(record->name + zip->prefix_size, name, name_size) == 0;
}

int zip_find(const struct zip *zip, const char *name, size_t name_size,
	     struct zip_record *ret_record, struct fault *fault)
{
	uint64_t position = 0, i;
	struct zip_record record;
	int error;

	for (i = 0; i < zip->record_count; i++) {
		error = read_entry(zip, &position, &record, fault);
		if (error)
			return error;
		if (zip_is_called(zip, &record, name, name_size)) {
			*ret_record = record;
			return 0;
		}
	}
	return -ENOENT;
}

int zip_locate(const struct zip *zip, struct zip_record *record,
	       struct fault *fault)
{
	unsigned char header[ZIP_LOCAL_SIZE + 256], descriptor[4];
	uint64_t end, name_end = ZIP_LOCAL_SIZE + (uint64_t)record->name_size;
	int error;

	if (record->method != 0)
		return fault_set(fault, -EOPNOTSUPP, record->header,
				 "compressed record");
	if (name_end > sizeof(header))
		return fault_set(fault, -E2BIG, record->header,
				 "record with a long name");
	error = read_at(zip->input, header, name_end, record->header, fault);
	if (error)
		return error;
	if (!is_signature(header, 3, 4) ||
	    bytes_u16le(header + 26) != record->name_size ||
	    memcmp(header + ZIP_LOCAL_SIZE, record->name,
		   record->name_size) != 0)
		return damaged(fault, record->header,
			       "local header contradicts the central directory");
	record->offset = record->header + name_end + bytes_u16le(header + 28);
	if (record->offset > zip->directory_offset ||
	    record->size > zip->directory_offset - record->offset)
		return damaged(fault, record->header,
			       "record reaches into the central directory");
	if (!(record->flags & ZIP_DESCRIPTOR))
		return 0;
	end = record->offset + record->size;
	error = read_at(zip->input, descriptor, 4, end, fault);
	if (error)
		return error;
	return is_signature(descriptor, 7, 8) ? 0 :
	       damaged(fault, end, "no data descriptor behind the record");
}
