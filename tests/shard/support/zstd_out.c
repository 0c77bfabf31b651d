/* SPDX-License-Identifier: Apache-2.0 */
#include "support/zstd_out.h"

#include "support/test.h"

#include <zstd.h>

static void set(ZSTD_CCtx *context, ZSTD_cParameter parameter, int value)
{
	assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(context, parameter,
							 value)));
}

/* All that the end of a frame needs. */
static void flush(ZSTD_CCtx *context, struct array *out, ZSTD_inBuffer *in,
		  ZSTD_EndDirective end)
{
	static char buffer[1 << 16];
	size_t left;

	do {
		ZSTD_outBuffer room = { buffer, sizeof(buffer), 0 };

		left = ZSTD_compressStream2(context, &room, in, end);
		assert_false(ZSTD_isError(left));
		put_bytes(out, buffer, room.pos);
	} while (end == ZSTD_e_continue ? in->pos < in->size : left > 0);
}

static void put_frame(struct array *out, const void *data, size_t size,
		      unsigned forms)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();
	ZSTD_inBuffer in = { data, 0, 0 };

	assert_non_null(context);
	set(context, ZSTD_c_checksumFlag, forms & ZSTD_OUT_CHECKED);
	set(context, ZSTD_c_contentSizeFlag, 0);
	while (forms & ZSTD_OUT_BLOCKS && in.size < size) {
		in.size += in.size % 3 == 0 ? 100000 : 131071;
		if (in.size > size)
			in.size = size;
		flush(context, out, &in, ZSTD_e_flush);
	}
	in.size = size;
	flush(context, out, &in, ZSTD_e_end);
	ZSTD_freeCCtx(context);
}

void zstd_out_skippable(struct array *out, uint32_t size)
{
	put_u32(out, 0x184d2a50 + size % 16);
	put_u32(out, size);
	while (size-- > 0)
		put_u8(out, 0x28);
}

void zstd_out(struct array *out, const void *data, size_t size, unsigned forms)
{
	const char *p = data;
	size_t done = 0;

	if (!(forms & ZSTD_OUT_FRAMES)) {
		put_frame(out, data, size, forms);
		return;
	}
	zstd_out_skippable(out, 0);
	while (done < size) {
		size_t part = (size - done + 2) / 3;

		put_frame(out, p + done, part, forms);
		put_frame(out, "", 0, forms);
		zstd_out_skippable(out, (uint32_t)(part % 1000));
		done += part;
	}
}

struct array zstd_out_nested(const void *data, size_t size, unsigned depth,
			     unsigned forms)
{
	struct array coded = { .data = NULL };

	put_bytes(&coded, data, size);
	while (depth-- > 0) {
		struct array outer = { .data = NULL };

		zstd_out(&outer, coded.data, coded.size, forms);
		array_finish(&coded);
		coded = outer;
	}
	return coded;
}

void zstd_out_zeros(struct array *out, uint64_t size)
{
	static const char zeros[1 << 20];
	ZSTD_CCtx *context = ZSTD_createCCtx();
	ZSTD_inBuffer in = { zeros, 0, 0 };

	assert_non_null(context);
	for (; size > 0; size -= in.size) {
		in.size = size < sizeof(zeros) ? size : sizeof(zeros);
		in.pos = 0;
		flush(context, out, &in, ZSTD_e_continue);
	}
	in.size = in.pos = 0;
	flush(context, out, &in, ZSTD_e_end);
	ZSTD_freeCCtx(context);
}
