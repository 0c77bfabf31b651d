/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stored item as torch.save wrote it: an uncompressed ZIP64 archive.
 * Source: APPNOTE.TXT 6.3.10; caffe2/serialize/inline_container.cc. All
 * offsets are relative to the start of the item.
 */
#ifndef SHARD_ZIP_H
#define SHARD_ZIP_H

#include "shard/fault.h"
#include "shard/io.h"

struct zip {
	const struct input *input;	/* borrowed from the caller */
	unsigned char *directory;	/* owned */
	uint64_t directory_offset, directory_size, record_count;
	const char *prefix;		/* inside of directory: "archive/" */
	size_t prefix_size;
};

struct zip_record {
	uint64_t header;	/* offset of the local header */
	uint64_t offset;	/* of the payload; set by zip_locate */
	uint64_t size;		/* of the payload, bytes */
	uint32_t crc;
	uint16_t flags, method;
	const char *name;	/* borrowed from the zip */
	uint16_t name_size;
};

/*
 * Read the directory of the archive that @input holds. 0, or -EIO for damage
 * with @fault filled (offsets relative to the item), -E2BIG when the directory
 * has more than @directory_max bytes, -ENOMEM, or what reading gave. @input must outlive the zip.
 */
int zip_open(struct zip *zip, const struct input *input,
	     uint64_t directory_max, struct fault *fault);
void zip_close(struct zip *zip);

/* The record PREFIX/@name. -ENOENT without a fault when there is none. */
int zip_find(const struct zip *zip, const char *name, size_t name_size,
	     struct zip_record *ret_record, struct fault *fault);

/* Find the payload of @record by its local header, and check what stands
 * around it: a wrong length there would silently shift the data. */
int zip_locate(const struct zip *zip, struct zip_record *record,
	       struct fault *fault);

#endif
