/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a stored item what was written? Its archive is checked as a whole, its
 * checksums are computed again, and its tensor is compared with the metadata.
 * Knows nothing of files and catalogs; see verify.h for those.
 */
#ifndef SHARD_VERIFY_VERIFY_ITEM_H
#define SHARD_VERIFY_VERIFY_ITEM_H

#include "shard/base/box.h"
#include "shard/base/dtype.h"
#include "shard/base/fault.h"
#include "shard/base/io.h"
#include "shard/base/limits.h"
#include "shard/dcp/zip_check.h"

#include <stdbool.h>

enum verify_kind {
	VERIFY_CRC,		/* bytes do not match their checksum */
	VERIFY_STRUCTURE,	/* of the archive, or of the pickle in it */
	VERIFY_HEADER,		/* local header against the directory */
	VERIFY_SIZE,		/* of a storage, or an item beyond its file */
	VERIFY_SHAPE,		/* of the stored tensor against the metadata */
	VERIFY_DTYPE,		/* likewise the type */
	VERIFY_MISSING,		/* there is no such file */
	VERIFY_OVERLAP,		/* two have the same bytes or elements */
	VERIFY_HOLE,		/* elements that no shard has */
	VERIFY_UNREAD,		/* in a form that is not read: not checked */
	VERIFY_IO,		/* reading failed */
	VERIFY_METADATA,	/* the metadata itself is refused */
};

/* "crc", "structure", ... */
const char *verify_kind_name(enum verify_kind kind);

struct verify_finding {
	enum verify_kind kind;
	struct fault fault;	/* offset from the start of the item */
};

struct verify_findings {
	struct verify_finding list[LIMIT_ITEM_FINDINGS];
	unsigned count;
	uint64_t dropped;	/* beyond */
};

/* Memory for one item at a time, a part of which is in it. */
struct verify_buffer;

/* NULL: no memory. */
struct verify_buffer *verify_buffer_create(void);
/* NULL is fine. */
void verify_buffer_destroy(struct verify_buffer *buffer);

/*
 * An item may be verified in parts of the same size, by different threads:
 * checksums of what a part has of the record that began before it, and of the
 * one that goes on behind it.
 */
struct verify_part {
	uint32_t first, last;
};

struct verify_item {
	struct verify_buffer *buffer;	/* borrowed */
	struct verify_findings *findings; /* borrowed */
	struct zip zip;
	struct zip_index index;
	bool quick;
	bool is_open;		/* it is an archive, with all below */
	bool is_recorded;	/* it has checksums */
	bool is_whole;		/* the payload of every record was found */
};

/*
 * Look at the archive in @input, which is read through @buffer. Damage, and
 * reads that failed, are @findings, which get more by the functions below; 0
 * then, too. The caller closes it in any case. @quick: the elements of tensors
 * are not read, now or by the functions below. -ENOMEM.
 */
int verify_item_open(struct verify_item *item, const struct input *input,
		     bool quick, struct verify_buffer *buffer,
		     struct verify_findings *findings);
void verify_item_close(struct verify_item *item);

struct verify_range {
	uint64_t begin, end;	/* bytes of the item */
};

/*
 * Compute the checksums of records in @range. Those that lie there as a whole
 * are compared, of others *@ret_part is set. False when it is no archive, or
 * could not be read.
 */
bool verify_item_hash(struct verify_item *item, struct verify_range range,
		      struct verify_part *ret_part);
/* Compare the checksums of records in several parts of @part_size bytes, given
 * all of them. */
void verify_item_join(struct verify_item *item, uint64_t part_size,
		      const struct verify_part *parts);

/* Is it a tensor of type @dtype and the sizes of @box? 0 or -ENOMEM. */
int verify_item_tensor(struct verify_item *item, enum dtype dtype,
		       const struct box *box);

#endif
