/* SPDX-License-Identifier: Apache-2.0 */
/* DCP checkpoints whose stored items are safetensors. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/metadata_out.h"
#include "support/opening.h"
#include "support/reading.h"
#include "support/safetensors_out.h"
#include "support/sample.h"

#include "shard/safetensors/blob.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct checkpoint_options options = { .cache = NULL };

static struct test_folder folder;
static struct checkpoint *checkpoint;
static struct reply *reply;

static int setup(void **state)
{
	(void)state;
	folder_make(&folder);
	reply = reply_create();
	return reply ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	reply_destroy(reply);
	opening_close(checkpoint);
	checkpoint = NULL;
	folder_remove(&folder);
	return 0;
}

enum { BASE = 100, BIG = 8192 };

#define AT(name, offsets) \
	"\\\"" name "\\\":{\\\"saved_offsets\\\":" offsets "}"
#define T(name, dtype, shape, offsets) \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape \
	",\"data_offsets\":" offsets "}"

/* "a" is 8192 bytes, "b" as much in a matrix, "s" a scalar, and "w" one half
 * of what the metadata says. */
static const char good[] =
	"{\"__metadata__\":{\"DCP_SHARDING_INFO\":\"{" AT("a", "[0]") ","
	AT("b", "[0,0]") "," AT("s", "[]") "," AT("w", "[4]") ","
	AT("f", "[0]") "}\"},"
	T("a", "U8", "[8192]", "[0,8192]") ","
	T("b", "F32", "[32,64]", "[8192,16384]") ","
	T("f", "F4", "[6]", "[16384,16387]") ","
	T("s", "I16", "[]", "[16387,16389]") ","
	T("w", "U8", "[4]", "[16389,16393]") "}";
enum { GOOD_SIZE = 16393 };

/* __0_0.distcp: other bytes, a blob, and other bytes. */
static void write_data(const char *header, uint64_t size)
{
	struct array out = { .data = NULL };
	unsigned i;

	for (i = 0; i < BASE; i++)
		put_u8(&out, 0x80);
	safetensors_out(&out, header, strlen(header), size);
	PUT(&out, "behind it");
	folder_write(&folder, "__0_0.distcp", out.data, out.size);
	array_finish(&out);
}

static void whole(struct metadata *metadata, const char *name,
		  const char *dtype, struct box shape, uint64_t size)
{
	metadata_whole(metadata, name, dtype, &shape, (struct metadata_place){
		       "__0_0.distcp", BASE, size });
}

static void write_metadata(void)
{
	struct metadata metadata = { .protocol = 4 };
	struct box shape = BOX1(0, 8), low = BOX1(0, 4), high = BOX1(4, 4);
	const struct metadata_place place = { "__0_0.distcp", BASE, 4 };
	struct array out = { .data = NULL };

	whole(&metadata, "a", "uint8", BOX1(0, BIG), BIG);
	whole(&metadata, "b", "float32", BOX2(0, 0, 32, 64), BIG);
	whole(&metadata, "f", "float4_e2m1fn_x2", BOX1(0, 3), 3);
	whole(&metadata, "s", "int16", (struct box){ .ndim = 0 }, 2);
	metadata_begin(&metadata, "w", "uint8", 1, shape.size);
	metadata_chunk(&metadata, &low);
	metadata_chunk(&metadata, &high);
	metadata_end(&metadata);
	metadata_item(&metadata, "w", &low, place);
	metadata_item(&metadata, "w", &high, place);
	/* Not there, or not like this. */
	whole(&metadata, "none", "uint8", BOX1(0, 5), 5);
	metadata_finish(&metadata, &out);
	folder_write(&folder, ".metadata", out.data, out.size);
	array_finish(&out);
}

static void open_now(void)
{
	static struct checkpoint_report report;

	assert_int_equal(opening_checkpoint(folder.fd, &options, &checkpoint,
					 &report), 0);
}

static void check_bytes(uint64_t begin, uint64_t size)
{
	uint64_t done = begin;
	uint64_t i;

	for (i = 0; i < reply->size; i++)
		assert_int_equal(reply->data[i], safetensors_byte(done++));
	assert_true(done == begin + size);
	reply_release(reply);
}

static void check_tensor(const char *name, uint64_t begin, uint64_t size)
{
	assert_int_equal(sample_read(checkpoint, name, reply), 0);
	check_bytes(begin, size);
}

/* Bytes [@begin, @begin + 4) of "w". */
static int read_half(uint64_t begin)
{
	int64_t index = catalog_find_tensor(checkpoint->catalog, "w", 1);
	struct box box = BOX1(begin, 4);
	struct transfer transfer = {
		.source = checkpoint_source(checkpoint),
		.catalog = checkpoint->catalog, .selection = &box,
		.entry = catalog_entry(checkpoint->catalog, (uint64_t)index),
		.size = 4,
	};

	return reading(&transfer, reply);
}

static void every_tensor(void **state)
{
	(void)state;
	write_metadata();
	write_data(good, GOOD_SIZE);
	open_now();
	check_tensor("a", 0, BIG);
	check_tensor("b", BIG, BIG);
	check_tensor("f", 2 * BIG, 3);
	check_tensor("s", 2 * BIG + 3, 2);
	assert_int_equal(read_half(4), 0);
	check_bytes(2 * BIG + 5, 4);
}

/* The first read learns where all are. */
static void one_look_for_all(void **state)
{
	(void)state;
	write_metadata();
	write_data(good, GOOD_SIZE);
	open_now();
	reply->nowait = true;
	assert_int_equal(sample_read(checkpoint, "b", reply), -EAGAIN);
	reply->nowait = false;
	check_tensor("a", 0, BIG);
	reply->nowait = true;
	check_tensor("b", BIG, BIG);
}

static void check_fault(const char *name, uint64_t offset, const char *reason,
			const char *detail)
{
	memset(&reply->fault, 0, sizeof(reply->fault));
	assert_int_equal(sample_read(checkpoint, name, reply), -EIO);
	assert_int_not_equal(reply->fault.error, 0);
	assert_non_null(strstr(reply->fault.reason, reason));
	assert_string_equal(reply->fault.detail, detail);
	assert_true(reply->fault.offset == offset);
	assert_string_equal(reply->fault_file, "__0_0.distcp");
	/* It is said once. */
	memset(&reply->fault, 0, sizeof(reply->fault));
	assert_int_equal(sample_read(checkpoint, name, reply), -EIO);
	assert_int_equal(reply->fault.error, 0);
}

static void what_is_not_there(void **state)
{
	(void)state;
	write_metadata();
	write_data(good, GOOD_SIZE);
	open_now();
	check_fault("none", BASE, "without this part", "none");
	check_tensor("a", 0, BIG);
	/* Of two parts in one file torch keeps the last: the first one's place
	 * leads to the second. */
	assert_int_equal(read_half(0), -EIO);
	assert_string_equal(reply->fault.detail, "w");
	assert_int_equal(read_half(4), 0);
	check_bytes(2 * BIG + 5, 4);
}

static void contradictions(void **state)
{
	(void)state;
	write_metadata();
	write_data("{" T("a", "I8", "[8192]", "[0,8192]") ","
		   T("b", "F32", "[64,32]", "[8192,16384]") ","
		   T("s", "I16", "[1]", "[16384,16386]") "}", 16386);
	open_now();
	check_fault("a", BASE, "differ in type", "a");
	check_fault("b", BASE, "differ in shape", "b");
	check_fault("s", BASE, "differ in shape", "s");
	check_fault("f", BASE, "without this part", "f");
}

/* One line for all that are in it. */
static void damaged_blob(void **state)
{
	(void)state;
	write_metadata();
	write_data("{\"a\":{\"dtype\":\"U9\"}}", 20000);
	open_now();
	check_fault("b", BASE + 8 + 18, "unknown type", "U9");
	memset(&reply->fault, 0, sizeof(reply->fault));
	assert_int_equal(sample_read(checkpoint, "a", reply), -EIO);
	assert_int_equal(reply->fault.error, 0);
}

static void neither_form(void **state)
{
	struct array out = { .data = NULL };
	unsigned i;

	(void)state;
	write_metadata();
	for (i = 0; i < 20000; i++)
		put_u8(&out, 'x');
	folder_write(&folder, "__0_0.distcp", out.data, out.size);
	array_finish(&out);
	open_now();
	assert_int_equal(sample_read(checkpoint, "a", reply), -EIO);
	assert_true(reply->fault.offset >= BASE);
}

/* ---- many at once -------------------------------------------------------- */

static void *read_all(void *context)
{
	static const char *const names[] = { "a", "b", "none", "f" };
	static const int errors[] = { 0, 0, -EIO, 0 };
	struct reply *own = reply_create();
	unsigned first = *(unsigned *)context, i;
	uintptr_t wrong = !own;

	for (i = 0; own && i < COUNT_OF(names); i++) {
		unsigned which = (first + i) % COUNT_OF(names);

		wrong += sample_read(checkpoint, names[which], own) !=
			 errors[which];
	}
	reply_destroy(own);
	return (void *)wrong;
}

static void threads(void **state)
{
	enum { THREADS = 8 };
	pthread_t thread[THREADS];
	unsigned first[THREADS], i, round;
	void *wrong;

	(void)state;
	write_metadata();
	write_data(good, GOOD_SIZE);
	for (round = 0; round < 20; round++) {
		open_now();
		for (i = 0; i < THREADS; i++) {
			first[i] = i;
			assert_int_equal(pthread_create(&thread[i], NULL,
							read_all, &first[i]),
					 0);
		}
		for (i = 0; i < THREADS; i++) {
			pthread_join(thread[i], &wrong);
			assert_null(wrong);
		}
		opening_close(checkpoint);
		checkpoint = NULL;
	}
}

/* ---- without a checkpoint ------------------------------------------------ */

static void detection(void **state)
{
	static const struct {
		const char *start;
		uint64_t size;
		bool blob;
	} rows[] = {
		{ "\2\0\0\0\0\0\0\0{}", 10, true },
		{ "\2\0\0\0\0\0\0\0{", 9, true },
		{ "\2\0\0\0\0\0\0\0{", 8, false },
		{ "\2\0\0\0\0\0\0\0[]", 10, false },
		{ "PK\3\4\0\0\0\0{}", 10, false },
		{ "", 0, false },
	};
	struct input input;
	unsigned i;
	bool found;

	(void)state;
	for (i = 0; i < COUNT_OF(rows); i++) {
		input = input_memory(rows[i].start, rows[i].size);
		assert_int_equal(blob_detect(&input, &found), 0);
		assert_int_equal(found, rows[i].blob);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(every_tensor),
		TEST(one_look_for_all),
		TEST(what_is_not_there),
		TEST(contradictions),
		TEST(damaged_blob),
		TEST(neither_form),
		TEST(threads),
		cmocka_unit_test(detection),
	};

	return cmocka_run_group_tests_name("blob", tests, NULL, NULL);
}
