/* SPDX-License-Identifier: Apache-2.0 */
/* What writers with the stream extension zstd make of a stored item. */
#ifndef SUPPORT_ZSTD_OUT_H
#define SUPPORT_ZSTD_OUT_H

#include "support/put.h"

enum zstd_out_form {
	ZSTD_OUT_PLAIN = 0,	/* as torch: one frame, without a checksum and
				 * without the size */
	ZSTD_OUT_CHECKED = 1,	/* with a checksum */
	ZSTD_OUT_FRAMES = 2,	/* several, empty and skippable ones too */
	ZSTD_OUT_BLOCKS = 4,	/* blocks of different sizes */
};

/* Append @size bytes at @data, compressed; @forms as above. */
void zstd_out(struct array *out, const void *data, size_t size,
	      unsigned forms);

/* Compress @data again and again, @depth times in all; the caller frees what
 * comes back. */
struct array zstd_out_nested(const void *data, size_t size, unsigned depth,
			     unsigned forms);

/* A frame of @size zero bytes: 1 byte for 4000 of them. */
void zstd_out_zeros(struct array *out, uint64_t size);
/* A skippable frame of @size bytes. */
void zstd_out_skippable(struct array *out, uint32_t size);

#endif
