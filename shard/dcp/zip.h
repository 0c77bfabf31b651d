/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stored item as torch.save wrote it: an uncompressed ZIP64 archive.
 * Source: APPNOTE.TXT 6.3.10; caffe2/serialize/inline_container.cc. All
 * offsets are relative to the start of the item.
 */
#ifndef SHARD_DCP_ZIP_H
#define SHARD_DCP_ZIP_H

#include "shard/base/fault.h"
#include "shard/base/io.h"

struct zip {
	const struct input *input;	/* borrowed from the caller */
	unsigned char *directory;	/* owned */
	uint64_t directory_offset, directory_size, record_count;
	uint64_t end64, end;		/* offsets of the ZIP64 end record, 0
					 * for none, and of the end record */
	const char *prefix;		/* inside of directory: "archive/" */
	size_t prefix_size;
};

struct zip_record {
	uint64_t header;	/* offset of the local header */
	uint64_t offset;	/* of the payload; set by zip_locate */
	uint64_t size;		/* of the payload, bytes */
	uint64_t entry;		/* offset of its entry in the directory */
	uint32_t crc;
	uint16_t flags, method;
	const char *name;	/* borrowed from the zip */
	uint16_t name_size;
};

/* Sizes without names, extras and comments, bytes. */
enum {
	ZIP_LOCAL_SIZE = 30,
	ZIP_ENTRY_SIZE = 46,
	ZIP_END64_SIZE = 56,
	ZIP_LOCATOR_SIZE = 20,
	ZIP_END_SIZE = 22,
};

enum zip_flag { ZIP_DESCRIPTOR = 8 };

/*
 * Read the directory of the archive that @input holds. 0, or -EIO for damage
 * with @fault filled (offsets relative to the item), -E2BIG when the directory
 * has more than @directory_max bytes, -ENOMEM, or what reading gave. @input
 * must outlive the zip.
 */
int zip_open(struct zip *zip, const struct input *input,
	     uint64_t directory_max, struct fault *fault);
void zip_close(struct zip *zip);

/* The record PREFIX/@name. -ENOENT without a fault when there is none. */
int zip_find(const struct zip *zip, const char *name, size_t name_size,
	     struct zip_record *ret_record, struct fault *fault);

/*
 * All records, in the order of the directory: the one at @position (0 at
 * first), a number of bytes, which is moved on. -ENOENT without a fault behind
 * the last.
 */
int zip_next(const struct zip *zip, uint64_t *position,
	     struct zip_record *ret_record, struct fault *fault);

/* Does @name follow the folder in the name of @record? */
bool zip_is_called(const struct zip *zip, const struct zip_record *record,
		   const char *name, size_t name_size);

/* Find the payload of @record by its local header, and check what stands
 * around it: a wrong length there would silently shift the data. */
int zip_locate(const struct zip *zip, struct zip_record *record,
	       struct fault *fault);

#endif
