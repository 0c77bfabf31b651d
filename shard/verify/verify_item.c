/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/verify/verify_item.h"

#include "shard/dcp/torch_archive.h"
#include "shard/verify/crc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * An item that fits is read as a whole, unless its elements are not wanted. Of
 * others the start and the end, where all stands but the payloads, are kept
 * beside. Half of a core's second level cache or less: what is computed over
 * was just copied there.
 */
enum {
	DATA_SIZE = 512 * 1024,
	EDGE_SIZE = 4096,
	QUICK_SIZE = 4 * EDGE_SIZE,
};

struct verify_buffer {
	struct input input;		/* first: passed as this */
	const struct input *below;	/* borrowed from the caller */
	int error;			/* of the first read that failed */
	uint64_t error_offset;
	bool is_all;			/* data is the whole item */
	uint64_t tail_offset;
	unsigned char head[EDGE_SIZE], tail[EDGE_SIZE];
	unsigned char data[DATA_SIZE];
};

const char *verify_kind_name(enum verify_kind kind)
{
	static const char *const names[] = {
		[VERIFY_CRC] = "crc",
		[VERIFY_STRUCTURE] = "structure",
		[VERIFY_HEADER] = "header",
		[VERIFY_SIZE] = "size",
		[VERIFY_SHAPE] = "shape",
		[VERIFY_DTYPE] = "dtype",
		[VERIFY_MISSING] = "missing",
		[VERIFY_OVERLAP] = "overlap",
		[VERIFY_HOLE] = "hole",
		[VERIFY_UNREAD] = "unread",
		[VERIFY_IO] = "io",
		[VERIFY_METADATA] = "metadata",
	};

	return names[kind];
}

/* ---- findings ------------------------------------------------------------ */

static void add(struct verify_findings *findings, enum verify_kind kind,
		const struct fault *fault)
{
	if (findings->count == LIMIT_ITEM_FINDINGS) {
		findings->dropped++;
		return;
	}
	findings->list[findings->count++] =
		(struct verify_finding){ .kind = kind, .fault = *fault };
}

/* A read that failed is said once, and is why all else fails. */
static bool is_unreadable(const struct verify_item *item)
{
	return item->buffer->error != 0;
}

static void add_unreadable(struct verify_item *item)
{
	const char *text = strerror(-item->buffer->error);
	struct fault fault;

	fault_set_detail(&fault, item->buffer->error,
			 item->buffer->error_offset, "reading failed",
			 (struct fault_detail){ text, strlen(text) });
	add(item->findings, VERIFY_IO, &fault);
}

static void found_flaw(void *context, enum zip_flaw flaw,
		       const struct fault *fault)
{
	static const enum verify_kind kinds[] = {
		[ZIP_FLAW_HEADER] = VERIFY_HEADER,
		[ZIP_FLAW_STRUCTURE] = VERIFY_STRUCTURE,
		[ZIP_FLAW_UNREAD] = VERIFY_UNREAD,
	};
	struct verify_item *item = context;

	if (!is_unreadable(item))
		add(item->findings, kinds[flaw], fault);
}

/* ---- reading ------------------------------------------------------------- */

struct verify_buffer *verify_buffer_create(void)
{
	return malloc(sizeof(struct verify_buffer));
}

void verify_buffer_destroy(struct verify_buffer *buffer)
{
	free(buffer);
}

static int read_below(struct verify_buffer *buffer, void *to, size_t size,
		      uint64_t offset)
{
	int error = buffer->below->read(buffer->below, to, size, offset);

	if (error && !buffer->error) {
		buffer->error = error;
		buffer->error_offset = offset;
	}
	return error;
}

static int read_buffer(const struct input *input, void *to, size_t size,
		       uint64_t offset)
{
	struct verify_buffer *buffer = (struct verify_buffer *)input;

	if (buffer->is_all)
		memcpy(to, buffer->data + offset, size);
	else if (offset + size <= EDGE_SIZE)
		memcpy(to, buffer->head + offset, size);
	else if (offset >= buffer->tail_offset)
		memcpy(to, buffer->tail + (offset - buffer->tail_offset),
		       size);
	else
		return read_below(buffer, to, size, offset);
	return 0;
}

static int fill_buffer(struct verify_buffer *buffer, const struct input *below,
		       bool quick)
{
	int error;

	buffer->input = (struct input){ .read = read_buffer,
					.size = below->size, .fd = -1 };
	buffer->below = below;
	buffer->error = 0;
	buffer->is_all = below->size <= (quick ? QUICK_SIZE : DATA_SIZE);
	if (buffer->is_all)
		return read_below(buffer, buffer->data, below->size, 0);
	buffer->tail_offset = below->size - EDGE_SIZE;
	error = read_below(buffer, buffer->head, EDGE_SIZE, 0);
	return error ? error : read_below(buffer, buffer->tail, EDGE_SIZE,
					  buffer->tail_offset);
}

/* ---- the archive --------------------------------------------------------- */

static int open_archive(struct verify_item *item)
{
	const struct zip_sink sink = { .found = found_flaw, .context = item };
	struct fault fault = { .error = 0 };
	int error = zip_open(&item->zip, &item->buffer->input,
			     LIMIT_OBJECT_DIRECTORY_SIZE, &fault);

	if (error && error != -ENOMEM && !is_unreadable(item))
		add(item->findings, error == -E2BIG ? VERIFY_UNREAD :
		    VERIFY_STRUCTURE, &fault);
	if (error)
		return error;
	error = zip_check(&item->zip, &sink, &item->index);
	if (error) {
		zip_close(&item->zip);
		return error;
	}
	item->is_open = true;
	item->is_recorded = item->index.has_checksums;
	item->is_whole = item->index.count == item->zip.record_count;
	return 0;
}

int verify_item_open(struct verify_item *item, const struct input *input,
		     bool quick, struct verify_buffer *buffer,
		     struct verify_findings *findings)
{
	int error = fill_buffer(buffer, input, quick);

	*item = (struct verify_item){ .buffer = buffer, .findings = findings,
				      .quick = quick };
	if (!error)
		error = open_archive(item);
	if (is_unreadable(item))
		add_unreadable(item);
	return error == -ENOMEM && !is_unreadable(item) ? error : 0;
}

void verify_item_close(struct verify_item *item)
{
	if (!item->is_open)
		return;
	zip_index_finish(&item->index);
	zip_close(&item->zip);
	item->is_open = false;
}

/* ---- checksums ----------------------------------------------------------- */

static int hash_bytes(struct verify_buffer *buffer, uint64_t offset,
		      uint64_t size, uint32_t *ret_crc)
{
	uint32_t crc = 0;
	size_t part;
	int error;

	if (buffer->is_all) {
		*ret_crc = crc_add(0, buffer->data + offset, size);
		return 0;
	}
	for (; size > 0; size -= part, offset += part) {
		part = size < DATA_SIZE ? (size_t)size : DATA_SIZE;
		error = read_buffer(&buffer->input, buffer->data, part, offset);
		if (error)
			return error;
		crc = crc_add(crc, buffer->data, part);
	}
	*ret_crc = crc;
	return 0;
}

static void compare(struct verify_item *item, const struct zip_record *record,
		    uint32_t crc)
{
	struct fault fault;

	if (crc == record->crc)
		return;
	fault_set_detail(&fault, -EIO, record->offset,
			 "record does not match its checksum",
			 (struct fault_detail){ record->name,
						record->name_size });
	add(item->findings, VERIFY_CRC, &fault);
}

/* PREFIX/data/N, the elements of a tensor. */
static bool is_payload(const struct zip *zip, const struct zip_record *record)
{
	return record->name_size > zip->prefix_size + 5 &&
	       memcmp(record->name + zip->prefix_size, "data/", 5) == 0;
}

/* What is in @range of @record. */
static int hash_record(struct verify_item *item,
		       const struct zip_record *record,
		       struct verify_range range, struct verify_part *part)
{
	uint64_t begin = record->offset, end = begin + record->size;
	uint64_t from = begin < range.begin ? range.begin : begin;
	uint64_t to = end > range.end ? range.end : end;
	uint32_t crc = 0;
	int error = 0;

	/* An empty record is in one part, too. */
	if (record->size > 0 ? from >= to : from != begin || begin >= range.end)
		return 0;
	if (from < to)
		error = hash_bytes(item->buffer, from, to - from, &crc);
	if (error)
		return error;
	if (begin < range.begin)
		part->first = crc;
	else if (end > range.end)
		part->last = crc;
	else
		compare(item, record, crc);
	return 0;
}

bool verify_item_hash(struct verify_item *item, struct verify_range range,
		      struct verify_part *ret_part)
{
	uint64_t i;
	int error = 0;

	if (!item->is_open || is_unreadable(item))
		return false;
	for (i = 0; item->is_recorded && i < item->index.count && !error; i++)
		if (!item->quick ||
		    !is_payload(&item->zip, &item->index.records[i]))
			error = hash_record(item, &item->index.records[i],
					    range, ret_part);
	if (error)
		add_unreadable(item);
	return !error;
}

void verify_item_join(struct verify_item *item, uint64_t part_size,
		      const struct verify_part *parts)
{
	uint64_t i, k, first, last, end;
	uint32_t crc;

	for (i = 0; item->is_open && i < item->index.count; i++) {
		const struct zip_record *record = &item->index.records[i];

		if (!item->is_recorded || record->size == 0)
			continue;
		end = record->offset + record->size;
		first = record->offset / part_size;
		last = (end - 1) / part_size;
		if (first == last)
			continue;
		crc = parts[first].last;
		for (k = first + 1; k <= last; k++)
			crc = crc_join(crc, parts[k].first, k < last ?
				       part_size : end - k * part_size);
		compare(item, record, crc);
	}
}

/* ---- the tensor ---------------------------------------------------------- */

/* What torch_archive_layout refuses, in the words of the torch archive. */
static enum verify_kind kind_of(const struct fault *fault)
{
	static const struct {
		const char *reason;
		enum verify_kind kind;
	} reasons[] = {
		{ "stored tensor and metadata differ in shape", VERIFY_SHAPE },
		{ "stored tensor and metadata differ in type", VERIFY_DTYPE },
		{ "storage and its record differ in size", VERIFY_SIZE },
		{ "tensor reaches beyond its storage", VERIFY_SIZE },
	};
	unsigned i;

	if (fault->error == -E2BIG)
		return VERIFY_UNREAD;
	for (i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (strcmp(fault->reason, reasons[i].reason) == 0)
			return reasons[i].kind;
	return VERIFY_STRUCTURE;
}

int verify_item_tensor(struct verify_item *item, enum dtype dtype,
		       const struct box *box)
{
	struct fault fault = { .error = 0 };
	struct layout layout;
	enum verify_kind kind;
	int error;

	if (!item->is_open || is_unreadable(item))
		return 0;
	error = torch_archive_layout(&item->buffer->input, dtype, box, &layout,
				     &fault);
	if (is_unreadable(item))
		add_unreadable(item);
	/* A tensor of a kind that cannot be served is not damaged. */
	else if (error && error != -ENOMEM && error != -EOPNOTSUPP) {
		kind = kind_of(&fault);
		/* Else it is what was found before, once more. */
		if (item->findings->count == 0 || kind == VERIFY_SHAPE ||
		    kind == VERIFY_DTYPE)
			add(item->findings, kind, &fault);
	}
	return error == -ENOMEM && !is_unreadable(item) ? error : 0;
}
