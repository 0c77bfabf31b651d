/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What PyTorch writes for a record, and the next one right behind it:
 *
 *	local header	sizes and checksum 0; the rest as in the directory
 *	name
 *	extra		ZIP64 sizes (16 bytes) from 4 GiB on, the second of
 *			which may still be 0, and the header's own offset
 *			(8 bytes) if that is so far; then padding,
 *			"FB", its length, and so many "Z" that the payload
 *			starts at a multiple of the alignment
 *	payload
 *	descriptor	unless the payload is empty: checksum and sizes, which
 *			have 8 bytes each where there are ZIP64 fields
 *
 * The alignment is 64, or the number in the record .storage_alignment.
 *
 * Whether PyTorch wrote an archive is a question that one flipped bit must not
 * answer: it did when there is one of the records that only it writes, or when
 * at least half of the entries have the version 0.0, which no other tool gives
 * itself.
 */
#include "shard/dcp/zip_check.h"

#include "shard/base/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	ZIP64_VERSION = 45,
	DEFAULT_ALIGNMENT = 64,
	EXTRA_MAX = 32,		/* of what stands before the padding */
};

struct zip_checker {
	const struct zip *zip;		/* borrowed */
	const struct zip_sink *sink;	/* borrowed */
	struct zip_record *records;	/* owned; in the order of headers */
	uint64_t count;
	bool is_torch;
	uint64_t alignment;		/* bytes; 0: not known */
	uint64_t end;			/* of the last record, bytes */
};

static void found(const struct zip_checker *c, enum zip_flaw flaw,
		  uint64_t offset, const char *reason)
{
	struct fault fault = { .error = 0 };

	fault_set(&fault, -EIO, offset, reason);
	c->sink->found(c->sink->context, flaw, &fault);
}

static void found_in(const struct zip_checker *c,
		     const struct zip_record *record, uint64_t offset,
		     const char *reason)
{
	struct fault fault = { .error = 0 };

	fault_set_detail(&fault, -EIO, offset, reason,
			 (struct fault_detail){ record->name,
						record->name_size });
	c->sink->found(c->sink->context, ZIP_FLAW_HEADER, &fault);
}

static bool is_inside(const struct zip_checker *c, uint64_t offset,
		      uint64_t size)
{
	uint64_t all = c->zip->input->size;

	return offset <= all && size <= all - offset;
}

/* Bytes of the archive, which are known to be inside of it. */
static int get(const struct zip_checker *c, void *buffer, size_t size,
	       uint64_t offset)
{
	return c->zip->input->read(c->zip->input, buffer, size, offset);
}

/* ---- the directory ------------------------------------------------------- */

static const unsigned char *entry_bytes(const struct zip_checker *c,
					const struct zip_record *record)
{
	return c->zip->directory +
	       (record->entry - c->zip->directory_offset);
}

/* The same in all entries of one writer: its versions, the disk, and the
 * attributes of files. */
static bool same_writer(const unsigned char *a, const unsigned char *b)
{
	return memcmp(a + 4, b + 4, 4) == 0 && memcmp(a + 34, b + 34, 8) == 0;
}

static bool is_wide(uint64_t number)
{
	return number >= UINT32_MAX;
}

static void check_entries(const struct zip_checker *c)
{
	bool differs = false;
	uint64_t i;

	for (i = 0; i < c->count; i++) {
		const struct zip_record *record = &c->records[i];
		const unsigned char *p = entry_bytes(c, record);
		unsigned wide = 2 * is_wide(record->size) +
				is_wide(record->header);

		if (!differs && !same_writer(p, c->zip->directory)) {
			differs = true;
			found(c, ZIP_FLAW_STRUCTURE, record->entry,
			      "entry of the central directory differs from the first in what is the same in all");
		}
		if (bytes_u16le(p + 30) != (wide ? 4 + 8 * wide : 0) ||
		    bytes_u16le(p + 32) != 0)
			found(c, ZIP_FLAW_STRUCTURE, record->entry,
			      "entry of the central directory with more than belongs there");
	}
}

static int compare_records(const void *a, const void *b)
{
	const struct zip_record *x = a, *y = b;

	return x->header < y->header ? -1 : x->header > y->header;
}

static void sort_records(struct zip_checker *c)
{
	uint64_t i;

	for (i = 1; i < c->count; i++)
		if (c->records[i].header < c->records[i - 1].header)
			break;
	if (i < c->count)
		qsort(c->records, c->count, sizeof(*c->records),
		      compare_records);
}

static int read_directory(struct zip_checker *c)
{
	uint64_t position = 0, plain = 0, i;
	struct zip_record record;
	struct fault fault;
	int error;

	/* So many fit into the directory, that much zip_open has checked. */
	c->records = malloc(c->zip->record_count * sizeof(record));
	if (!c->records)
		return -ENOMEM;
	for (i = 0; i < c->zip->record_count; i++) {
		error = zip_next(c->zip, &position, &record, &fault);
		if (error) {
			found(c, ZIP_FLAW_STRUCTURE, error == -ENOENT ?
			      c->zip->directory_offset : fault.offset,
			      error == -ENOENT ?
			      "fewer entries in the central directory than the end record counts" :
			      fault.reason);
			break;
		}
		c->records[c->count++] = record;
		plain += bytes_u32le(entry_bytes(c, &record) + 4) == 0;
		c->is_torch = c->is_torch ||
			zip_is_called(c->zip, &record, ".format_version", 15) ||
			zip_is_called(c->zip, &record, ".storage_alignment",
				      18);
	}
	if (i == c->zip->record_count && position != c->zip->directory_size)
		found(c, ZIP_FLAW_STRUCTURE,
		      c->zip->directory_offset + position,
		      "more in the central directory than its entries");
	c->is_torch = c->is_torch || 2 * plain >= c->count;
	if (c->is_torch)
		check_entries(c);
	sort_records(c);
	return 0;
}

/* ---- records ------------------------------------------------------------- */

/* What is not 0 stands in the local header already. */
static bool is_zero_or(uint32_t local, uint64_t number)
{
	return local == 0 || local == number || local == UINT32_MAX;
}

static void check_local(const struct zip_checker *c,
			const struct zip_record *record, const unsigned char *p)
{
	const unsigned char *entry = entry_bytes(c, record);

	/* Flags, method. */
	if (memcmp(p + 6, entry + 8, 4) != 0)
		found_in(c, record, record->header,
			 "local header and central directory differ");
	else if (c->is_torch && (bytes_u16le(p + 4) != bytes_u16le(entry + 6) ||
				 memcmp(p + 10, entry + 12, 4) != 0))
		found_in(c, record, record->header,
			 "local header and central directory differ in version or time");
	else if (c->is_torch && (bytes_u32le(p + 14) != 0 ||
				 bytes_u64le(p + 18) != 0))
		found_in(c, record, record->header,
			 "local header with a checksum or sizes, which belong behind the record");
	else if (!(record->flags & ZIP_DESCRIPTOR) ?
		 bytes_u32le(p + 14) != record->crc :
		 !is_zero_or(bytes_u32le(p + 14), record->crc))
		found_in(c, record, record->header,
			 "local header and central directory differ in the checksum");
	else if (!is_zero_or(bytes_u32le(p + 18), record->size) ||
		 !is_zero_or(bytes_u32le(p + 22), record->size))
		found_in(c, record, record->header,
			 "local header and central directory differ in size");
}

/* The extra field in front of the padding, and its size. */
static unsigned make_extra(const struct zip_record *record,
			   unsigned char extra[EXTRA_MAX])
{
	uint64_t numbers[3];
	unsigned count = 0, i, k;

	if (is_wide(record->size)) {
		numbers[count++] = record->size;
		numbers[count++] = record->size;
	}
	if (is_wide(record->header))
		numbers[count++] = record->header;
	if (count == 0)
		return 0;
	memcpy(extra, "\1\0\0\0", 4);
	extra[2] = (unsigned char)(8 * count);
	for (i = 0; i < count; i++)
		for (k = 0; k < 8; k++)
			extra[4 + 8 * i + k] =
				(unsigned char)(numbers[i] >> 8 * k);
	return 4 + 8 * count;
}

/* All of them are "Z": the first is, and each is like the one before. */
static bool is_padding(const unsigned char *p, size_t size)
{
	return size == 0 || (p[0] == 'Z' && memcmp(p, p + 1, size - 1) == 0);
}

/* Is @record's payload where getRecordOffsetNoRead says that it is, with the
 * padding in front that makes it so? */
static int check_extra(const struct zip_checker *c,
		       const struct zip_record *record)
{
	uint64_t at = record->header + ZIP_LOCAL_SIZE + record->name_size;
	uint64_t size = record->offset - at, start, padding, part;
	unsigned char expected[EXTRA_MAX + 4], actual[512];
	unsigned head = make_extra(record, expected);
	int error;

	start = at + head + 4;
	padding = c->alignment ? (start + c->alignment - 1) / c->alignment *
				 c->alignment - start : 0;
	if (c->alignment && head + 4 + padding != size) {
		found_in(c, record, record->header,
			 "payload is not where its alignment puts it");
		return 0;
	}
	if (size < head + 4)
		return 0;
	padding = size - head - 4;
	memcpy(expected + head, "FB", 2);
	expected[head + 2] = (unsigned char)padding;
	expected[head + 3] = (unsigned char)(padding >> 8);
	error = get(c, actual, head + 4, at);
	if (error)
		return error;
	if (is_wide(record->size) && bytes_u64le(actual + 12) == 0)
		memset(expected + 12, 0, 8);
	if (memcmp(actual, expected, head + 4) != 0) {
		found_in(c, record, at, "bad extra field of a local header");
		return 0;
	}
	for (at = start; at < record->offset; at += part) {
		part = record->offset - at;
		if (part > sizeof(actual))
			part = sizeof(actual);
		error = get(c, actual, part, at);
		if (error)
			return error;
		if (!is_padding(actual, part)) {
			found_in(c, record, at,
				 "bad padding in front of a record");
			return 0;
		}
	}
	return 0;
}

static bool is_descriptor(const struct zip_record *record,
			  const unsigned char *p, bool wide)
{
	if (bytes_u32le(p + 4) != record->crc)
		return false;
	return wide ? bytes_u64le(p + 8) == record->size &&
		      bytes_u64le(p + 16) == record->size :
		      bytes_u32le(p + 8) == (uint32_t)record->size &&
		      bytes_u32le(p + 12) == (uint32_t)record->size;
}

/* The descriptor behind the payload, whose signature zip_locate has seen;
 * @end is moved behind it. */
static int check_descriptor(const struct zip_checker *c,
			    const struct zip_record *record, uint64_t *end)
{
	bool wide = is_wide(record->size) || is_wide(record->header);
	unsigned char p[24] = { 0 };
	uint64_t at = record->offset + record->size;
	int error;

	*end = at;
	if (!(record->flags & ZIP_DESCRIPTOR)) {
		if (c->is_torch && record->size > 0)
			found_in(c, record, record->entry,
				 "record without a data descriptor");
		return 0;
	}
	if (!is_inside(c, at, 24)) {
		found_in(c, record, at, "no data descriptor behind the record");
		return 0;
	}
	error = get(c, p, 24, at);
	if (error)
		return error;
	if (!c->is_torch && !is_descriptor(record, p, wide))
		wide = !wide;
	if (!is_descriptor(record, p, wide))
		found_in(c, record, at,
			 "data descriptor and central directory differ");
	*end = at + (wide ? 24 : 16);
	return 0;
}

/* @ret_good: its payload can be read, and no other record has its bytes. */
static int check_record(struct zip_checker *c, struct zip_record *record,
			bool *ret_good)
{
	unsigned char local[ZIP_LOCAL_SIZE];
	struct fault fault = { .error = 0 };
	uint64_t end;
	int error = zip_locate(c->zip, record, &fault);

	*ret_good = false;
	if (error == -EIO || error == -EOPNOTSUPP || error == -E2BIG) {
		fault_set_detail(&fault, error, fault.offset, fault.reason,
				 (struct fault_detail){ record->name,
							record->name_size });
		c->sink->found(c->sink->context, error == -EIO ?
			       ZIP_FLAW_HEADER : ZIP_FLAW_UNREAD, &fault);
		return 0;
	}
	if (!error)
		error = get(c, local, sizeof(local), record->header);
	if (error)
		return error;
	check_local(c, record, local);
	if (c->is_torch)
		error = check_extra(c, record);
	if (!error)
		error = check_descriptor(c, record, &end);
	if (error)
		return error;
	if (record->header < c->end) {
		found_in(c, record, record->header,
			 "record inside of another one");
		return 0;
	}
	if (c->is_torch && record->header > c->end)
		found_in(c, record, c->end,
			 "bytes in front of the record that belong to nothing");
	c->end = end;
	*ret_good = true;
	return 0;
}

/* The number in the record .storage_alignment; 0: there is something else. */
static int read_alignment(struct zip_checker *c)
{
	struct zip_record record;
	struct fault fault;
	char text[8];
	uint64_t i;
	int error;

	c->alignment = DEFAULT_ALIGNMENT;
	error = zip_find(c->zip, ".storage_alignment", 18, &record, &fault);
	if (!error)
		error = zip_locate(c->zip, &record, &fault);
	/* Damage is found record by record. */
	if (error)
		return 0;
	c->alignment = 0;
	if (record.size > sizeof(text))
		return 0;
	error = get(c, text, record.size, record.offset);
	for (i = 0; i < record.size && !error; i++) {
		if (text[i] < '0' || text[i] > '9') {
			c->alignment = 0;
			return 0;
		}
		c->alignment = 10 * c->alignment + (uint64_t)(text[i] - '0');
	}
	return error;
}

static int check_records(struct zip_checker *c)
{
	uint64_t i, count = 0;
	bool good;
	int error = read_alignment(c);

	for (i = 0; i < c->count && !error; i++) {
		error = check_record(c, &c->records[i], &good);
		if (good)
			c->records[count++] = c->records[i];
	}
	c->count = count;
	if (!error && c->is_torch && c->end != c->zip->directory_offset)
		found(c, ZIP_FLAW_STRUCTURE, c->end,
		      "bytes in front of the central directory that belong to nothing");
	return error;
}

/* ---- the end ------------------------------------------------------------- */

/* Too large a number for the end record is all ones there. */
static bool is_same(uint64_t number, uint64_t wide_number, uint64_t ones,
		    bool has_wide)
{
	return number == wide_number || (has_wide && number == ones);
}

static int check_end(const struct zip_checker *c)
{
	const struct zip *zip = c->zip;
	bool wide = zip->end64 != 0;
	unsigned char p[ZIP_END_SIZE];
	int error = get(c, p, sizeof(p), zip->end);

	if (error)
		return error;
	if (bytes_u32le(p + 4) != 0 ||
	    bytes_u16le(p + 8) != bytes_u16le(p + 10) ||
	    !is_same(bytes_u16le(p + 10), zip->record_count, UINT16_MAX,
		     wide) ||
	    !is_same(bytes_u32le(p + 12), zip->directory_size, UINT32_MAX,
		     wide) ||
	    !is_same(bytes_u32le(p + 16), zip->directory_offset, UINT32_MAX,
		     wide))
		found(c, ZIP_FLAW_STRUCTURE, zip->end,
		      "end records differ, or are for several disks");
	if (c->is_torch && zip->end + ZIP_END_SIZE != zip->input->size)
		found(c, ZIP_FLAW_STRUCTURE, zip->end + ZIP_END_SIZE,
		      "bytes behind the end record");
	return 0;
}

static int check_end64(const struct zip_checker *c)
{
	const struct zip *zip = c->zip;
	uint64_t locator = zip->end - ZIP_LOCATOR_SIZE;
	unsigned char p[ZIP_END64_SIZE], l[ZIP_LOCATOR_SIZE];
	int error = get(c, p, sizeof(p), zip->end64);

	if (!error)
		error = get(c, l, sizeof(l), locator);
	if (error)
		return error;
	if (bytes_u64le(p + 4) != locator - zip->end64 - 12 ||
	    bytes_u64le(p + 16) != 0 ||
	    bytes_u64le(p + 24) != bytes_u64le(p + 32) ||
	    bytes_u32le(l + 4) != 0)
		found(c, ZIP_FLAW_STRUCTURE, zip->end64,
		      "ZIP64 end record contradicts itself, or is for several disks");
	if (!c->is_torch)
		return 0;
	if (bytes_u16le(p + 14) != ZIP64_VERSION || bytes_u32le(l + 16) != 1)
		found(c, ZIP_FLAW_STRUCTURE, zip->end64,
		      "ZIP64 end record of another version or for several disks");
	if (zip->directory_offset + zip->directory_size != zip->end64 ||
	    zip->end64 + ZIP_END64_SIZE != locator)
		found(c, ZIP_FLAW_STRUCTURE, zip->end64,
		      "bytes around the ZIP64 end record that belong to nothing");
	return 0;
}

static int check_ends(const struct zip_checker *c)
{
	int error = check_end(c);

	if (error)
		return error;
	if (c->zip->end64)
		return check_end64(c);
	if (c->is_torch)
		found(c, ZIP_FLAW_STRUCTURE, c->zip->end,
		      "no ZIP64 end record in front of the end record");
	return 0;
}

int zip_check(const struct zip *zip, const struct zip_sink *sink,
	      struct zip_index *ret_index)
{
	struct zip_checker check = { .zip = zip, .sink = sink };
	struct zip_index index = { .records = NULL };
	uint64_t i;
	int error = read_directory(&check);

	if (!error)
		error = check_records(&check);
	if (!error)
		error = check_ends(&check);
	if (error) {
		free(check.records);
		return error;
	}
	index.records = check.records;
	index.count = check.count;
	for (i = 0; i < index.count; i++)
		if (index.records[i].size > 0 && index.records[i].crc != 0)
			index.has_checksums = true;
	*ret_index = index;
	return 0;
}

void zip_index_finish(struct zip_index *index)
{
	free(index->records);
	index->records = NULL;
}
