/* SPDX-License-Identifier: Apache-2.0 */
/* Streams as libzstd's compressor makes them, whole and not whole. */
#include "support/test.h"
#include "support/dice.h"
#include "support/refusal.h"
#include "support/zstd_out.h"

#include "shard/base/limits.h"
#include "shard/codec/decode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

static struct dice dice;

static const char chain[] =
	"stream.zstd/1\nstream.zstd/1\nstream.zstd/1\nstream.zstd/1\n"
	"stream.zstd/1\nstream.zstd/1\nstream.zstd/1\nstream.zstd/1\n";
enum { NAME_SIZE = 14 };

/* Keeps what comes, and fails when it is more than may come. */
struct sink {
	struct decode_output output;	/* first: passed as this */
	struct array data;
	uint64_t limit;
	int error;			/* of the next write */
};

static int write_sink(struct decode_output *output, const void *data,
		      size_t size)
{
	struct sink *sink = (struct sink *)output;

	assert_true(size > 0);
	put_bytes(&sink->data, data, size);
	assert_true(sink->data.size <= sink->limit);
	return sink->error;
}

struct run {
	unsigned depth;
	uint64_t limit;
	struct fault fault;
	struct sink sink;
};

static int run_input(struct run *run, const struct input *input)
{
	memset(&run->fault, 0, sizeof(run->fault));
	array_finish(&run->sink.data);
	run->sink.output.write = write_sink;
	run->sink.limit = run->limit;
	run->sink.output.limit = run->limit;
	return decode(input, chain, run->depth * NAME_SIZE, &run->sink.output,
		      &run->fault);
}

static int run_data(struct run *run, const void *data, size_t size)
{
	/* Exactly as large, for the sanitizer. */
	void *copy = malloc(size ? size : 1);
	struct input input;
	int error;

	assert_non_null(copy);
	memcpy(copy, data, size);
	input = input_memory(copy, size);
	error = run_input(run, &input);
	free(copy);
	return error;
}

/* Some of it compresses, some does not. */
static unsigned char *make_data(size_t size)
{
	unsigned char *data = malloc(size + 1);
	size_t i;

	assert_non_null(data);
	for (i = 0; i < size; i++)
		data[i] = i / 5000 % 2 ? (unsigned char)(i / 700) :
			  (unsigned char)dice_any(&dice);
	return data;
}

static void check_trip(const void *data, size_t size, unsigned depth,
		       unsigned forms)
{
	struct array coded = zstd_out_nested(data, size, depth, forms);
	struct run run = { .depth = depth,
			   .limit = size + size / 100 + 10000 };
	int error = run_data(&run, coded.data, coded.size);

	if (error)
		fail_msg("%zu bytes, depth %u, forms %u: %d, %s %s", size,
			 depth, forms, error, run.fault.reason,
			 run.fault.detail);
	assert_int_equal(run.sink.data.size, size);
	assert_memory_equal(run.sink.data.data ? run.sink.data.data : "",
			    data, size);
	array_finish(&run.sink.data);
	array_finish(&coded);
}

static void there_and_back(void **state)
{
	static const size_t sizes[] = {
		0, 1, 3, 4, 5, 100, 65536, 131071, 131072, 131073, 231071,
		262144, 1000000, 3 * 131072 + 1,
	};
	unsigned i, depth, forms;

	(void)state;
	for (i = 0; i < COUNT_OF(sizes); i++) {
		unsigned char *data = make_data(sizes[i]);

		for (depth = 1; depth <= 3; depth++)
			for (forms = 0; forms < 8; forms++)
				check_trip(data, sizes[i], depth, forms);
		check_trip(data, sizes[i], LIMIT_TRANSFORM_DEPTH,
			   ZSTD_OUT_PLAIN);
		free(data);
	}
}

/* Frames that end anywhere in the blocks of the input. */
static void many_small_frames(void **state)
{
	struct array coded = { .data = NULL }, data = { .data = NULL };
	struct run run = { .depth = 1, .limit = 1 << 22 };
	unsigned i;

	(void)state;
	for (i = 0; i < 9000; i++) {
		char text[200];
		size_t size = dice_below(&dice, sizeof(text));

		memset(text, (int)i, size);
		put_bytes(&data, text, size);
		zstd_out(&coded, text, size, ZSTD_OUT_CHECKED);
		zstd_out_skippable(&coded, (uint32_t)dice_below(&dice, 100));
	}
	assert_true(coded.size > 3 * 131072);
	assert_int_equal(run_data(&run, coded.data, coded.size), 0);
	assert_int_equal(run.sink.data.size, data.size);
	assert_memory_equal(run.sink.data.data, data.data, data.size);
	array_finish(&run.sink.data);
	array_finish(&coded);
	array_finish(&data);
}

/* A prefix is damage, unless it ends between two frames. */
static void truncated(void **state)
{
	struct array coded = { .data = NULL };
	struct run run = { .depth = 1, .limit = 10000 };
	size_t middle, end;

	(void)state;
	zstd_out(&coded, "first", 5, ZSTD_OUT_CHECKED);
	middle = coded.size;
	zstd_out(&coded, "second", 6, ZSTD_OUT_PLAIN);
	for (end = 0; end <= coded.size; end++) {
		int error = run_data(&run, coded.data, end);

		if (end == 0 || end == middle || end == coded.size) {
			assert_int_equal(error, 0);
			assert_int_equal(run.sink.data.size, end == 0 ? 0 :
					 end == middle ? 5 : 11);
			continue;
		}
		assert_int_equal(error, -EIO);
		refusal_check("truncated", &run.fault, -EIO, end,
			      "ends inside a zstd frame");
	}
	array_finish(&run.sink.data);
	array_finish(&coded);
}

static void truncated_inside(void **state)
{
	struct array inner = { .data = NULL }, coded = { .data = NULL };
	struct run run = { .depth = 2, .limit = 10000 };

	(void)state;
	zstd_out(&inner, "first", 5, ZSTD_OUT_CHECKED);
	zstd_out(&coded, inner.data, inner.size - 1, ZSTD_OUT_CHECKED);
	assert_int_equal(run_data(&run, coded.data, coded.size), -EIO);
	refusal_check("inside", &run.fault, -EIO, coded.size,
		      "ends inside a zstd frame");
	array_finish(&run.sink.data);
	array_finish(&inner);
	array_finish(&coded);
}

static void put_garbage(struct array *out, uint32_t magic)
{
	put_u32(out, magic);
	put_u64(out, 0x0123456789);
}

static void what_is_no_frame(void **state)
{
	static const uint32_t magics[] = {
		0, 0x04034b50, 0xfd2fb529, 0x184d2a4f, 0x184d2a60,
		/* Formats 0.1 to 0.7 and LZ4, which may be in libzstd. */
		0xfd2fb51e, 0xfd2fb522, 0xfd2fb523, 0xfd2fb524, 0xfd2fb525,
		0xfd2fb526, 0xfd2fb527, 0x184d2204,
	};
	struct run run = { .depth = 1, .limit = 10000 };
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(magics); i++) {
		struct array coded = { .data = NULL };
		size_t end;

		put_garbage(&coded, magics[i]);
		assert_int_equal(run_data(&run, coded.data, coded.size),
				 -EIO);
		refusal_check("alone", &run.fault, -EIO, 0, "not a zstd frame");
		array_finish(&coded);
		zstd_out(&coded, "good", 4, ZSTD_OUT_FRAMES);
		end = coded.size;
		put_garbage(&coded, magics[i]);
		assert_int_equal(run_data(&run, coded.data, coded.size),
				 -EIO);
		refusal_check("behind", &run.fault, -EIO, end,
			      "not a zstd frame");
		array_finish(&coded);
	}
	array_finish(&run.sink.data);
}

/* Every single bit: an error, or what was there, but for frames without a
 * checksum, which may give other bytes. */
static void flipped_bits(void **state)
{
	unsigned char *data = make_data(3000);
	unsigned depth, forms, caught = 0, same = 0;
	size_t bit;

	(void)state;
	for (depth = 1; depth <= 2; depth++)
		for (forms = 0; forms < 2; forms++) {
			struct array coded = zstd_out_nested(data, 3000, depth,
							     forms);
			struct run run = { .depth = depth, .limit = 20000 };

			for (bit = 0; bit < 8 * coded.size; bit++) {
				int error;

				coded.data[bit / 8] ^= (char)(1 << bit % 8);
				error = run_data(&run, coded.data, coded.size);
				coded.data[bit / 8] ^= (char)(1 << bit % 8);
				if (error) {
					caught++;
					assert_int_equal(run.fault.error,
							 error);
					assert_true(error == -EIO ||
						    error == -EOPNOTSUPP ||
						    error == -E2BIG);
					assert_true(run.fault.offset <=
						    coded.size);
				} else if (forms) {
					same++;
					assert_int_equal(run.sink.data.size,
							 3000);
					assert_memory_equal(run.sink.data.data,
							    data, 3000);
				}
			}
			array_finish(&run.sink.data);
			array_finish(&coded);
		}
	print_message("%u caught, %u without effect\n", caught, same);
	assert_true(caught > 20000);
	free(data);
}

static void random_damage(void **state)
{
	unsigned char *data = make_data(20000);
	struct array coded = zstd_out_nested(data, 20000, 2, ZSTD_OUT_FRAMES);
	struct run run = { .depth = 2, .limit = 100000 };
	char *copy = malloc(coded.size);
	unsigned i, j;

	(void)state;
	assert_non_null(copy);
	for (i = 0; i < 3000; i++) {
		memcpy(copy, coded.data, coded.size);
		for (j = 0; j < 3; j++)
			copy[dice_below(&dice, coded.size)] =
				(char)dice_any(&dice);
		if (run_data(&run, copy, coded.size))
			assert_true(run.fault.error && run.fault.reason);
	}
	array_finish(&run.sink.data);
	array_finish(&coded);
	free(copy);
	free(data);
}

static void as_much_as_may_be(void **state)
{
	unsigned char *data = make_data(300000);
	struct array coded = zstd_out_nested(data, 300000, 1, 0);
	struct run run = { .depth = 1, .limit = 300000 };

	(void)state;
	assert_int_equal(run_data(&run, coded.data, coded.size), 0);
	run.limit--;
	assert_int_equal(run_data(&run, coded.data, coded.size), -E2BIG);
	assert_non_null(strstr(run.fault.reason, "too large"));
	array_finish(&run.sink.data);
	array_finish(&coded);
	free(data);
}

/* Twice what there is. */
static void put_again(struct array *out)
{
	size_t size = out->size;

	assert_non_null(array_add(out, size));
	memcpy(out->data + size, out->data, size);
}

/* 64 GiB of zeros, in 2 MiB; then in 200 bytes. The sink says that no more
 * than the limit came. */
static void bombs(void **state)
{
	struct array coded = { .data = NULL }, outer = { .data = NULL };
	struct run run = { .depth = 1, .limit = 1000000 };
	unsigned i;

	(void)state;
	zstd_out_zeros(&coded, UINT64_C(1) << 26);
	for (i = 0; i < 10; i++)
		put_again(&coded);
	assert_true(coded.size < 1 << 22);
	assert_int_equal(run_data(&run, coded.data, coded.size), -E2BIG);
	assert_true(run.fault.offset < 4096);
	zstd_out(&outer, coded.data, coded.size, ZSTD_OUT_PLAIN);
	run.depth = 2;
	assert_int_equal(run_data(&run, outer.data, outer.size), -E2BIG);
	array_finish(&run.sink.data);
	array_finish(&outer);
	array_finish(&coded);
}

/* Nothing comes out, but what stands in between is endless. */
static void bomb_of_frames_that_are_skipped(void **state)
{
	struct array inner = { .data = NULL }, coded = { .data = NULL };
	struct run run = { .depth = 2, .limit = 1000000 };
	unsigned i;

	(void)state;
	zstd_out_skippable(&inner, 900000);
	zstd_out(&coded, inner.data, inner.size, ZSTD_OUT_PLAIN);
	assert_int_equal(run_data(&run, coded.data, coded.size), 0);
	assert_int_equal(run.sink.data.size, 0);
	for (i = 0; i < 10; i++)
		put_again(&coded);
	assert_int_equal(run_data(&run, coded.data, coded.size), -E2BIG);
	array_finish(&run.sink.data);
	array_finish(&inner);
	array_finish(&coded);
}

static void frames_of_a_kind_that_is_not_read(void **state)
{
	/* A window of 2^28 bytes; a dictionary. */
	static const unsigned char window[] = {
		0x28, 0xb5, 0x2f, 0xfd, 0x00, (28 - 10) << 3, 1, 0, 0,
	};
	static const unsigned char widest[] = {
		0x28, 0xb5, 0x2f, 0xfd, 0x00, (27 - 10) << 3, 1, 0, 0,
	};
	static const unsigned char dictionary[] = {
		0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x00, 0x77, 1, 0, 0,
	};
	struct run run = { .depth = 1, .limit = 1000 };

	(void)state;
	assert_int_equal(run_data(&run, window, sizeof(window)), -EOPNOTSUPP);
	assert_non_null(strstr(run.fault.reason, "a kind that is not read"));
	assert_int_equal(run_data(&run, widest, sizeof(widest)), 0);
	assert_int_equal(run_data(&run, dictionary, sizeof(dictionary)),
			 -EOPNOTSUPP);
	assert_non_null(strstr(run.fault.reason, "a kind that is not read"));
	array_finish(&run.sink.data);
}

static int fail_read(const struct input *input, void *buffer, size_t size,
		     uint64_t offset)
{
	if (offset > 0)
		return -ENOTCONN;
	memcpy(buffer, (const char *)input->data + offset, size);
	return 0;
}

/* Errors of others are passed on, and are nobody's fault. */
static void errors_of_both_ends(void **state)
{
	unsigned char *data = make_data(500000);
	struct array coded = zstd_out_nested(data, 500000, 1, 0);
	struct run run = { .depth = 1, .limit = 500000 };
	struct input input = input_memory(coded.data, coded.size);

	(void)state;
	input.read = fail_read;
	assert_int_equal(run_input(&run, &input), -ENOTCONN);
	assert_int_equal(run.fault.error, 0);
	run.sink.error = -EDOM;
	assert_int_equal(run_data(&run, coded.data, coded.size), -EDOM);
	assert_int_equal(run.fault.error, 0);
	assert_true(run.sink.data.size <= 131072);
	array_finish(&run.sink.data);
	array_finish(&coded);
	free(data);
}

static void check_names(const char *names, const char *unknown)
{
	struct fault fault = { .error = 0, .reason = "" };
	int error = decode_check(names, strlen(names), &fault);

	assert_int_equal(error, unknown ? -EOPNOTSUPP : 0);
	assert_int_equal(fault.error, error);
	if (!unknown)
		return;
	assert_string_equal(fault.detail, unknown);
	assert_non_null(strstr(fault.reason, "unknown stream extension"));
}

static void names_of_extensions(void **state)
{
	(void)state;
	check_names("stream.zstd/1\n", NULL);
	check_names("stream.zstd/1.7\nstream.zstd/1\n", NULL);
	check_names("stream.zstd/1\nstream.inc/1\n", "stream.inc/1");
	check_names("stream.inc/1\nstream.rot13/1\n", "stream.inc/1");
	check_names("stream.zstd/2\n", "stream.zstd/2");
	check_names("stream.zstd/10\n", "stream.zstd/10");
	check_names("stream.zstd\n", "stream.zstd");
	check_names("stream.zstd@mine/1\n", "stream.zstd@mine/1");
	check_names("stream.zst\n", "stream.zst");
	check_names("Stream.zstd/1\n", "Stream.zstd/1");
	check_names("stream.zstd/1\n\n", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(many_small_frames),
		cmocka_unit_test(truncated),
		cmocka_unit_test(truncated_inside),
		cmocka_unit_test(what_is_no_frame),
		cmocka_unit_test(flipped_bits),
		cmocka_unit_test(random_damage),
		cmocka_unit_test(as_much_as_may_be),
		cmocka_unit_test(bombs),
		cmocka_unit_test(bomb_of_frames_that_are_skipped),
		cmocka_unit_test(frames_of_a_kind_that_is_not_read),
		cmocka_unit_test(errors_of_both_ends),
		cmocka_unit_test(names_of_extensions),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
