/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream extensions: what comes out is never more than may, memory does not
 * depend on it, and it is what libzstd's other interface says of one frame.
 *
 * Input: the depth of the chain, two bytes of the limit in KiB, a byte that
 * says which read and which write fails, then the stream.
 */
#include "tests/fuzz/guarded_input.h"

#include "shard/base/limits.h"
#include "shard/codec/decode.h"

#include <zstd.h>

enum { HEAD_SIZE = 4, NAME_SIZE = 14 };

static const char chain[] =
	"stream.zstd/1\nstream.zstd/1\nstream.zstd/1\nstream.zstd/1\n"
	"stream.zstd/1\nstream.zstd/1\nstream.zstd/1\nstream.zstd/1\n";

/* Adds up what comes; keeps the first of it. */
struct sum {
	struct decode_output output;	/* first: passed as this */
	uint64_t size, limit;
	unsigned left;			/* writes until one fails */
	unsigned char start[4096];
};

enum { WRITE_ERROR = -EXDEV };

static int add(struct decode_output *output, const void *data, size_t size)
{
	struct sum *sum = (struct sum *)output;

	CHECK(size > 0);
	if (sum->size < sizeof(sum->start)) {
		size_t room = sizeof(sum->start) - sum->size;

		memcpy(sum->start + sum->size, data,
		       size < room ? size : room);
	}
	sum->size += size;
	CHECK(sum->size <= sum->limit);
	return sum->left-- == 0 ? WRITE_ERROR : 0;
}

static int run(const uint8_t *data, size_t size, unsigned depth,
	       struct sum *sum, unsigned reads)
{
	struct guarded_input guarded = guarded_input(data, size, &reads);
	struct fault fault = { .error = 0 };
	int error;

	sum->output.limit = sum->limit;
	error = decode(&guarded.input, chain, depth * NAME_SIZE, &sum->output,
		       &fault);
	if (error == GUARDED_ERROR || error == WRITE_ERROR)
		return error;
	CHECK(error == 0 || error == -EIO || error == -E2BIG ||
	      error == -EOPNOTSUPP);
	CHECK(fault.error == error && (!error || fault.reason));
	CHECK(fault.offset <= size);
	return error;
}

/* Input that is one frame, whole, decompressed at one go. */
static void check_frame(const uint8_t *data, size_t size,
			const struct sum *sum, int error)
{
	static unsigned char whole[1 << 16];
	size_t frame = ZSTD_findFrameCompressedSize(data, size), found;

	if (size < 4 || memcmp(data, "\x28\xb5\x2f\xfd", 4) != 0 ||
	    ZSTD_isError(frame) || frame != size)
		return;
	found = ZSTD_decompress(whole, sizeof(whole), data, size);
	if (ZSTD_isError(found) || found > sum->limit)
		return;
	CHECK(error == 0 || error == -EOPNOTSUPP);
	if (error)
		return;
	CHECK(sum->size == found);
	CHECK(memcmp(sum->start, whole, found < sizeof(sum->start) ? found :
		     sizeof(sum->start)) == 0);
}

static void check_names(const uint8_t *data, size_t size)
{
	struct fault fault = { .error = 0 };
	int error = decode_check((const char *)data, size, &fault);

	CHECK(error == 0 || error == -EOPNOTSUPP);
	CHECK(fault.error == error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sum sum = { .output = { .write = add }, .left = UINT32_MAX };
	unsigned depth;
	int error;

	if (size < HEAD_SIZE)
		return 0;
	depth = 1 + data[0] % LIMIT_TRANSFORM_DEPTH;
	sum.limit = (data[1] | (uint64_t)(data[2] & 15) << 8) * KIB;
	check_names(data + HEAD_SIZE, size - HEAD_SIZE);
	error = run(data + HEAD_SIZE, size - HEAD_SIZE, depth, &sum,
		    UINT32_MAX);
	if (depth == 1)
		check_frame(data + HEAD_SIZE, size - HEAD_SIZE, &sum, error);
	/* The same with a read, and with a write, that fails. */
	sum.size = 0;
	run(data + HEAD_SIZE, size - HEAD_SIZE, depth, &sum, data[3] % 4);
	sum.size = 0;
	sum.left = data[3] / 4 % 4;
	run(data + HEAD_SIZE, size - HEAD_SIZE, depth, &sum, UINT32_MAX);
	return 0;
}
