/* SPDX-License-Identifier: Apache-2.0 */
#include "support/archive_out.h"

#include <string.h>

enum { ALIGNMENT = 64, FLAG_DESCRIPTOR = 8, FLAG_UTF8 = 0x800 };

/* What flags say: an empty record has no descriptor. */
static unsigned record_flags(const struct archive *archive, size_t size)
{
	return FLAG_UTF8 |
	       (size > 0 && !archive->plain ? FLAG_DESCRIPTOR : 0);
}

/* "FB", a length and as many bytes as make the payload aligned. */
static void put_padding(struct array *out, uint64_t payload)
{
	unsigned i, size = (unsigned)(-(payload + 4) % ALIGNMENT);

	PUT(out, "FB");
	put_u16(out, size);
	for (i = 0; i < size; i++)
		put_u8(out, 'Z');
}

static void put_local(struct archive *archive, const char *name, size_t size)
{
	struct array *out = &archive->out;
	uint64_t payload = out->size + 30 + strlen(name);

	PUT(out, "PK\3\4");
	put_u16(out, 0);
	put_u16(out, record_flags(archive, size));
	put_u32(out, 0); /* method, time */
	put_u16(out, 0); /* date */
	put_u32(out, 0); /* crc and both sizes: in the descriptor */
	put_u64(out, 0);
	put_u16(out, (unsigned)strlen(name));
	put_u16(out, (unsigned)(4 + (-(payload + 4) % ALIGNMENT)));
	put_bytes(out, name, strlen(name));
	put_padding(out, payload);
}

/* The checksum of zip, a bit at a time. */
static uint32_t make_crc(const struct archive *archive, const void *data,
			 size_t size)
{
	const unsigned char *p = data;
	uint32_t crc = UINT32_MAX;
	size_t i;

	for (i = 0; i < 8 * size; i++) {
		if (i % 8 == 0)
			crc ^= p[i / 8];
		crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xedb88320) : 0);
	}
	return archive->checked ? ~crc : 0;
}

static void put_entry(struct archive *archive, const char *name, size_t size,
		      uint64_t header, uint32_t crc)
{
	struct array *out = &archive->directory;
	bool wide = archive->wide;

	PUT(out, "PK\1\2");
	put_u32(out, 0); /* versions */
	put_u16(out, record_flags(archive, size));
	put_u16(out, 0); /* method */
	put_u32(out, 0); /* time, date */
	put_u32(out, crc);
	put_u32(out, wide ? UINT32_MAX : size);
	put_u32(out, wide ? UINT32_MAX : size);
	put_u16(out, (unsigned)strlen(name));
	put_u16(out, wide ? 28 : 0);
	put_u16(out, 0); /* comment */
	put_u64(out, 0); /* disk, attributes */
	put_u32(out, wide ? UINT32_MAX : header);
	put_bytes(out, name, strlen(name));
	if (!wide)
		return;
	put_u16(out, 1);
	put_u16(out, 24);
	put_u64(out, size);
	put_u64(out, size);
	put_u64(out, header);
}

struct archive_record archive_add(struct archive *archive, const char *name,
				  const void *data, size_t size)
{
	struct archive_record record = {
		.header = archive->out.size,
		.entry = archive->directory.size,
	};
	uint32_t crc = make_crc(archive, data, size);

	put_local(archive, name, size);
	record.payload = archive->out.size;
	put_bytes(&archive->out, data, size);
	if (record_flags(archive, size) & FLAG_DESCRIPTOR) {
		PUT(&archive->out, "PK\7\10");
		put_u32(&archive->out, crc);
		put_u32(&archive->out, size);
		put_u32(&archive->out, size);
	}
	put_entry(archive, name, size, record.header, crc);
	archive->count++;
	return record;
}

static void put_end64(struct archive *archive)
{
	struct array *out = &archive->out;

	archive->end64 = out->size;
	PUT(out, "PK\6\6");
	put_u64(out, 44);
	put_u32(out, 0x2d031e); /* versions */
	put_u64(out, 0); /* disks */
	put_u64(out, archive->count);
	put_u64(out, archive->count);
	put_u64(out, archive->directory.size);
	put_u64(out, archive->directory_offset);
	archive->locator = out->size;
	PUT(out, "PK\6\7");
	put_u32(out, 0);
	put_u64(out, archive->end64);
	put_u32(out, 1);
}

void archive_end(struct archive *archive)
{
	const char *comment = archive->comment ? archive->comment : "";
	struct array *out = &archive->out;

	archive->directory_offset = out->size;
	put_bytes(out, archive->directory.data, archive->directory.size);
	if (!archive->narrow)
		put_end64(archive);
	archive->end = out->size;
	PUT(out, "PK\5\6");
	put_u32(out, 0); /* disks */
	put_u16(out, archive->count);
	put_u16(out, archive->count);
	put_u32(out, archive->directory.size);
	put_u32(out, archive->directory_offset);
	put_u16(out, (unsigned)strlen(comment));
	put_bytes(out, comment, strlen(comment));
}

void archive_free(struct archive *archive)
{
	array_finish(&archive->out);
	array_finish(&archive->directory);
}
