/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"
#include "support/dice.h"
#include "support/put.h"
#include "support/refusal.h"
#include "support/safetensors_out.h"

#include "shard/safetensors/safetensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct dice dice;
static struct array file;
static struct safetensors read;
static struct fault fault;

static int setup(void **state)
{
	(void)state;
	file = (struct array){ .data = NULL };
	memset(&read, 0, sizeof(read));
	memset(&fault, 0, sizeof(fault));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	safetensors_finish(&read);
	array_finish(&file);
	return 0;
}

/* Read the first @size bytes of the file, in memory as long as that. */
static int read_part(size_t size, bool exact)
{
	void *copy = malloc(size ? size : 1);
	struct input input;
	int error;

	assert_non_null(copy);
	memcpy(copy, file.data, size);
	input = input_memory(copy, size);
	safetensors_finish(&read);
	memset(&fault, 0, sizeof(fault));
	error = safetensors_read(&input, exact, &read, &fault);
	if (error) {
		memset(&read, 0, sizeof(read));
		assert_int_equal(fault.error, error);
		assert_non_null(fault.reason);
		assert_true(fault.offset <= size);
	}
	free(copy);
	return error;
}

static int read_header(const char *header, uint64_t data_size)
{
	file.size = 0;
	safetensors_out(&file, header, strlen(header), data_size);
	return read_part(file.size, true);
}

/* ---- what is read -------------------------------------------------------- */

enum { MODELS = 40 };

struct model {
	char name[64];		/* as it is written, escapes and all */
	char plain[64];
	enum dtype dtype;
	unsigned ndim;
	uint64_t size[8];
	uint64_t begin, end;
};

static void random_model(struct model *model, unsigned index, uint64_t begin)
{
	const struct dtype_info *info;
	uint64_t bits;
	unsigned i;

	snprintf(model->name, sizeof(model->name), "%s%u",
		 dice_chance(&dice, 20) ? "q\\\"\\u00e9." : "layers.", index);
	snprintf(model->plain, sizeof(model->plain), "%s%u",
		 *model->name == 'q' ? "q\"\xc3\xa9." : "layers.", index);
	do {
		do {
			model->dtype = 1 + dice_below(&dice, DTYPE_COUNT - 1);
			info = dtype_info(model->dtype);
		} while (!info->order);
		model->ndim = (unsigned)dice_below(&dice, 8);
		bits = info->bits;
		for (i = 0; i < model->ndim; i++) {
			model->size[i] = dice_below(&dice, 5);
			bits *= model->size[i];
		}
	} while (bits % 8 != 0);
	model->begin = begin;
	model->end = begin + bits / 8;
}

static void put_model(struct array *out, const struct model *model)
{
	char text[400];
	unsigned i;
	int n = snprintf(text, sizeof(text), "\"%s\": {", model->name);

	/* Members in any order, and one that means nothing. */
	if (dice_chance(&dice, 50))
		n += sprintf(text + n, "\"data_offsets\":[%llu , %llu],",
			     (unsigned long long)model->begin,
			     (unsigned long long)model->end);
	n += sprintf(text + n, "\"shape\":[");
	for (i = 0; i < model->ndim; i++)
		n += sprintf(text + n, "%s%u", i ? "," : "",
			     (unsigned)model->size[i]);
	n += sprintf(text + n, "]");
	if (dice_chance(&dice, 10))
		n += sprintf(text + n, ",\"extra\":{\"dtype\":[null]}");
	n += sprintf(text + n, ",\"dtype\":\"%s\"",
		     dtype_info(model->dtype)->name);
	if (!strstr(text, "data_offsets"))
		n += sprintf(text + n, ",\"data_offsets\":[%llu,%llu]",
			     (unsigned long long)model->begin,
			     (unsigned long long)model->end);
	put_bytes(out, text, (size_t)n);
	PUT(out, "}");
}

static void check_model(const struct model *model)
{
	int64_t index = safetensors_find(&read, model->plain,
					 strlen(model->plain));
	const struct safetensors_tensor *tensor;

	assert_true(index >= 0);
	tensor = safetensors_tensor(&read, (uint64_t)index);
	assert_int_equal(tensor->dtype, model->dtype);
	assert_int_equal(tensor->ndim, model->ndim);
	if (model->ndim > 0)
		assert_memory_equal(safetensors_dims(&read, tensor),
				    model->size,
				    model->ndim * sizeof(uint64_t));
	assert_true(tensor->begin == model->begin);
	assert_true(tensor->end == model->end);
	assert_int_equal(tensor->name_size, strlen(model->plain));
	assert_memory_equal(safetensors_name(&read, tensor), model->plain,
			    tensor->name_size);
	/* It is the place of what follows the name. */
	assert_int_equal(file.data[tensor->source - 1], ':');
	assert_int_equal(file.data[tensor->source - 2], '"');
}

static void put_metadata(struct array *out, bool sharded)
{
	PUT(out, "\"__metadata__\":{\"format\":\"pt\"");
	if (sharded)
		PUT(out, ",\"DCP_SHARDING_INFO\":\"{\\\"a\\\": 1}\"");
	PUT(out, "}");
}

static void shuffle(unsigned *order, unsigned count)
{
	unsigned i, j, other;

	for (i = 0; i < count; i++)
		order[i] = i;
	for (i = count; i > 1; i--) {
		j = (unsigned)dice_below(&dice, i);
		other = order[j];
		order[j] = order[i - 1];
		order[i - 1] = other;
	}
}

static void one_random_file(void)
{
	struct model models[MODELS];
	unsigned count = (unsigned)dice_below(&dice, MODELS), i;
	unsigned order[MODELS], where = dice_chance(&dice, 70) ?
		(unsigned)dice_below(&dice, count + 1) : MODELS;
	bool sharded = dice_chance(&dice, 50);
	struct array header = { .data = NULL };
	uint64_t end = 0;

	for (i = 0; i < count; i++) {
		random_model(&models[i], i, end);
		end = models[i].end;
	}
	shuffle(order, count);
	PUT(&header, "{");
	for (i = 0; i <= count; i++) {
		bool more = i < count || where == i;

		put_bytes(&header, ",", i > 0 && more);
		if (where == i) {
			put_metadata(&header, sharded);
			put_bytes(&header, ",", i < count);
		}
		if (i < count)
			put_model(&header, &models[order[i]]);
	}
	PUT(&header, "}");
	for (i = (unsigned)dice_below(&dice, 9); i > 0; i--)
		PUT(&header, " ");
	file.size = 0;
	safetensors_out(&file, header.data, header.size, end);
	if (read_part(file.size, true))
		fail_msg("%s at %d: %s", fault.reason, (int)fault.offset,
			 file.data + 8);
	assert_true(read.data_offset == 8 + header.size);
	assert_true(read.data_size == end);
	assert_int_equal(read.tensor_count, count);
	for (i = 0; i < count; i++)
		check_model(&models[i]);
	for (i = 1; i < count; i++)
		assert_true(safetensors_tensor(&read, i)->begin ==
			    safetensors_tensor(&read, i - 1)->end);
	assert_int_equal(read.is_sharded, sharded && where != MODELS);
	assert_int_equal(read.sharding.size, read.is_sharded ? 8 : 0);
	if (read.is_sharded)
		assert_memory_equal(read.sharding.data, "{\"a\": 1}", 8);
	assert_true(safetensors_find(&read, "layers.", 7) == -1);
	assert_true(safetensors_find(&read, "", 0) == -1);
	array_finish(&header);
}

static void random_files(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < 1000; i++)
		one_random_file();
}

static void nothing_in_it(void **state)
{
	(void)state;
	assert_int_equal(read_header("{}", 0), 0);
	assert_int_equal(read.tensor_count, 0);
	assert_true(read.data_offset == 10 && read.data_size == 0);
	assert_true(safetensors_find(&read, "", 0) == -1);
	assert_int_equal(read_header("{ \"__metadata__\": { } }   ", 0), 0);
	assert_false(read.is_sharded);
}

/* As torch's own reader takes it. */
static void empty_sharding_is_none(void **state)
{
	(void)state;
	assert_int_equal(read_header("{\"__metadata__\":{\"DCP_SHARDING_INFO\":"
				     "\"\"}}", 0), 0);
	assert_false(read.is_sharded);
}

static void empty_name(void **state)
{
	(void)state;
	assert_int_equal(read_header("{\"\":{\"dtype\":\"U8\",\"shape\":[],"
				     "\"data_offsets\":[0,1]}}", 1), 0);
	assert_true(safetensors_find(&read, "", 0) == 0);
	assert_true(safetensors_find(&read, "a", 1) == -1);
}

/* Inside of another file the end is somewhere else. */
static void more_behind_it(void **state)
{
	(void)state;
	assert_int_equal(read_header("{\"a\":{\"dtype\":\"I16\",\"shape\":[2],"
				     "\"data_offsets\":[0,4]}}", 10),
			 -EBADMSG);
	refusal_check("longer", &fault, -EBADMSG, file.size - 6,
		      "bytes behind");
	assert_int_equal(read_part(file.size, false), 0);
	assert_int_equal(read_part(file.size - 6, true), 0);
	assert_int_equal(read_part(file.size - 7, false), -EBADMSG);
	refusal_check("shorter", &fault, -EBADMSG, file.size - 7,
		      "ends before");
}

/* ---- what is refused ----------------------------------------------------- */

#define T(name, dtype, shape, offsets) \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape \
	",\"data_offsets\":" offsets "}"

static const struct {
	const char *header;
	uint64_t data_size;
	int error;
	const char *reason, *detail;
} refusals[] = {
	{ "{" T("a", "F33", "[1]", "[0,4]") "}", 4, -EBADMSG,
	  "unknown type", "F33" },
	{ "{" T("a", "f32", "[1]", "[0,4]") "}", 4, -EBADMSG,
	  "unknown type", "f32" },
	{ "{" T("a", "C128", "[1]", "[0,16]") "}", 16, -EBADMSG,
	  "unknown type", "C128" },
	{ "{" T("a", "F32", "[1]", "[0,5]") "}", 5, -EBADMSG, "differ", "a" },
	{ "{" T("a", "F32", "[1]", "[0,3]") "}", 3, -EBADMSG, "differ", "a" },
	{ "{" T("a", "F32", "[]", "[0,0]") "}", 0, -EBADMSG, "differ", "a" },
	{ "{" T("a", "F32", "[0]", "[0,4]") "}", 4, -EBADMSG, "differ", "a" },
	{ "{" T("a", "F4", "[3]", "[0,2]") "}", 2, -EBADMSG,
	  "inside of a byte", "a" },
	{ "{" T("a", "F6_E2M3", "[]", "[0,1]") "}", 1, -EBADMSG,
	  "inside of a byte", "a" },
	{ "{" T("a", "F6_E3M2", "[2,3]", "[0,5]") "}", 5, -EBADMSG,
	  "inside of a byte", "a" },
	{ "{" T("a", "U8", "[1]", "[1,2]") "}", 2, -EBADMSG,
	  "no tensor has the bytes", "a" },
	{ "{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[1]", "[3,4]")
	  "}", 4, -EBADMSG, "no tensor has the bytes", "b" },
	{ "{" T("b", "U8", "[2]", "[1,3]") "," T("a", "U8", "[2]", "[0,2]")
	  "}", 3, -EBADMSG, "overlaps", "b" },
	{ "{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[2]", "[0,2]")
	  "}", 2, -EBADMSG, "overlaps", "b" },
	{ "{" T("a", "U8", "[2]", "[2,0]") "}", 0, -EBADMSG,
	  "bad data_offsets", "a" },
	{ "{" T("a", "U8", "[2]", "[0]") "}", 2, -EBADMSG,
	  "bad data_offsets", "a" },
	{ "{" T("a", "U8", "[2]", "[0,2,4]") "}", 2, -EBADMSG,
	  "bad data_offsets", "a" },
	{ "{" T("a", "U8", "[2]", "2") "}", 2, -EBADMSG,
	  "bad data_offsets", "a" },
	{ "{" T("a", "U8", "[2]", "[0,\\\"2\\\"]") "}", 2, -EBADMSG,
	  "", "" },
	{ "{" T("a", "U8", "[2]", "[0,2.0]") "}", 2, -EBADMSG,
	  "bad data_offsets", "a" },
	{ "{" T("a", "U8", "[2]", "[-1,1]") "}", 2, -EBADMSG,
	  "bad data_offsets", "a" },
	{ "{" T("a", "U8", "[-2]", "[0,2]") "}", 2, -EBADMSG,
	  "bad size", "a" },
	{ "{" T("a", "U8", "[2e0]", "[0,2]") "}", 2, -EBADMSG,
	  "bad size", "a" },
	{ "{" T("a", "U8", "[null]", "[0,2]") "}", 2, -EBADMSG,
	  "bad size", "a" },
	{ "{" T("a", "U8", "2", "[0,2]") "}", 2, -EBADMSG,
	  "shape is no list", "a" },
	{ "{" T("a", "U8", "null", "[0,2]") "}", 2, -EBADMSG,
	  "shape is no list", "a" },
	{ "{" T("a", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0, -E2BIG,
	  "too large", "a" },
	{ "{" T("a", "U8", "[0,4294967296,4294967296]", "[0,0]") "}", 0,
	  -E2BIG, "too large", "a" },
	{ "{" T("a", "F64", "[2305843009213693952]", "[0,0]") "}", 0, -E2BIG,
	  "too large", "a" },
	{ "{" T("a", "U8", "[99999999999999999999]", "[0,2]") "}", 2, -E2BIG,
	  "too large", "a" },
	{ "{" T("a", "U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
		"1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1, -E2BIG, "32 axes", "a" },
	{ "{" T("a", "U8", "[1]", "[0,1]") "," T("a", "U8", "[1]", "[1,2]")
	  "}", 2, -EBADMSG, "one name", "a" },
	{ "{" T("a", "U8", "[1]", "[0,1]") "," T("\\u0061", "U8", "[1]",
						   "[1,2]")
	  "}", 2, -EBADMSG, "one name", "a" },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, -EBADMSG,
	  "without dtype", "a" },
	{ "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, -EBADMSG,
	  "without dtype", "a" },
	{ "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, -EBADMSG,
	  "without dtype", "a" },
	{ "{\"a\":{}}", 0, -EBADMSG, "without dtype", "a" },
	{ "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],"
	  "\"data_offsets\":[0,1]}}", 1, -EBADMSG, "twice", "a" },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"shape\":[1],"
	  "\"data_offsets\":[0,1]}}", 1, -EBADMSG, "twice", "a" },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],"
	  "\"data_offsets\":[0,1]}}", 1, -EBADMSG, "twice", "a" },
	{ "{\"a\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
	  -EBADMSG, "type is no string", "a" },
	{ "{\"a\":[1]}", 0, -EBADMSG, "no JSON object", "" },
	{ "{\"a\":null}", 0, -EBADMSG, "no JSON object", "" },
	{ "{\"__metadata__\":{\"a\":1}}", 0, -EBADMSG, "more than text", "" },
	{ "{\"__metadata__\":{\"a\":null}}", 0, -EBADMSG, "more than text",
	  "" },
	{ "{\"__metadata__\":\"a\"}", 0, -EBADMSG, "no JSON object", "" },
	{ "{\"__metadata__\":{},\"__metadata__\":{}}", 0, -EBADMSG,
	  "__metadata__ given twice", "" },
	{ "{\"__metadata__\":{\"DCP_SHARDING_INFO\":\"{}\","
	  "\"DCP_SHARDING_INFO\":\"{}\"}}", 0, -EBADMSG,
	  "DCP_SHARDING_INFO given twice", "" },
	{ " {}", 0, -EBADMSG, "does not begin with {", "" },
	{ "[]", 0, -EBADMSG, "does not begin with {", "" },
	{ "{}x", 0, -EBADMSG, "bytes behind the JSON", "" },
	{ "{} {}", 0, -EBADMSG, "bytes behind the JSON", "" },
	{ "{", 0, -EBADMSG, "no key", "" },
	{ "{\"a\xff\":1}", 0, -EBADMSG, "UTF-8", "" },
};

static void refused_headers(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(refusals); i++) {
		const char *header = refusals[i].header;
		int error = read_header(header, refusals[i].data_size);

		if (error != refusals[i].error ||
		    !strstr(fault.reason, refusals[i].reason) ||
		    strcmp(fault.detail, refusals[i].detail) != 0)
			fail_msg("%s: %d, %s: %s", header, error,
				 error ? fault.reason : "taken", fault.detail);
		/* In the header, and behind what it complains of. */
		assert_true(fault.offset >= 8 &&
			    fault.offset <= 8 + strlen(header));
	}
}

static void places_of_faults(void **state)
{
	static const char header[] =
		"{" T("a", "U8", "[1]", "[0,1]") ","
		T("bb", "U8", "[1]", "[2,3]") "}";

	(void)state;
	assert_int_equal(read_header(header, 3), -EBADMSG);
	refusal_check("hole", &fault, -EBADMSG,
		      8 + (uint64_t)(strstr(header, "bb\":") - header) + 4,
		      "no tensor has");
	assert_int_equal(read_header("{\"a\":{\"dtype\":\"F33\"}}", 0),
			 -EBADMSG);
	refusal_check("type", &fault, -EBADMSG, 8 + 19, "unknown type");
}

static void sizes_of_headers(void **state)
{
	static const struct {
		uint64_t size;
		int error;
		uint64_t offset;
		const char *reason;
	} rows[] = {
		{ 0, -EBADMSG, 8, "does not begin" },
		{ 3, -EBADMSG, 0, "beyond the end" },
		{ 100000000, -EBADMSG, 0, "beyond the end" },
		{ 100000001, -E2BIG, 0, "larger than" },
		{ UINT64_MAX, -E2BIG, 0, "larger than" },
		{ UINT64_MAX - 7, -E2BIG, 0, "larger than" },
	};
	size_t size;
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(rows); i++) {
		file.size = 0;
		put_u64(&file, rows[i].size);
		PUT(&file, "{}");
		assert_int_equal(read_part(file.size, true), rows[i].error);
		refusal_check("size", &fault, rows[i].error, rows[i].offset,
			      rows[i].reason);
	}
	for (size = 0; size < 9; size++) {
		assert_int_equal(read_part(size, true), -EBADMSG);
		refusal_check("short", &fault, -EBADMSG, size, "too short");
	}
}

static void most_axes(void **state)
{
	(void)state;
	assert_int_equal(read_header("{" T("a", "U8",
		"[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
		"1,2]", "[0,2]") "}", 2), 0);
	assert_int_equal(safetensors_tensor(&read, 0)->ndim, LIMIT_NDIM);
}

static void longest_name(void **state)
{
	unsigned over;

	(void)state;
	for (over = 0; over < 2; over++) {
		struct array header = { .data = NULL };
		size_t i;

		PUT(&header, "{\"");
		for (i = 0; i < LIMIT_NAME_SIZE + over; i++)
			PUT(&header, "n");
		PUT(&header, "\":{\"dtype\":\"U8\",\"shape\":[],"
			     "\"data_offsets\":[0,1]}}");
		file.size = 0;
		safetensors_out(&file, header.data, header.size, 1);
		assert_int_equal(read_part(file.size, true),
				 over ? -E2BIG : 0);
		array_finish(&header);
	}
	assert_non_null(strstr(fault.reason, "name too long"));
}

/* A file that is still being written is never taken for one that is done. */
static void every_truncation(void **state)
{
	size_t size;

	(void)state;
	assert_int_equal(read_header("{\"__metadata__\":{\"a\":\"b\"},"
				     T("a", "U8", "[3]", "[0,3]") ","
				     T("b", "U8", "[0]", "[3,3]") "}  ", 3),
			 0);
	for (size = 0; size < file.size; size++)
		assert_int_equal(read_part(size, true), -EBADMSG);
}

/* Whatever byte is changed, what is taken is sound. */
static void every_changed_byte(void **state)
{
	static const char bytes[] = "{}[]\",:\\ 019aF\x80\xff";
	static const char header[] =
		"{" T("a", "U8", "[3]", "[0,3]") "," T("b", "F4", "[2,2]",
						       "[3,5]") "}";
	size_t i, j;

	(void)state;
	for (i = 0; i < sizeof(header) - 1; i++) {
		for (j = 0; j < sizeof(bytes) - 1; j++) {
			char changed[sizeof(header)];

			memcpy(changed, header, sizeof(header));
			changed[i] = bytes[j];
			file.size = 0;
			safetensors_out(&file, changed, sizeof(header) - 1, 5);
			if (read_part(file.size, true) == 0)
				safetensors_check(&read, file.size);
		}
	}
}

/* ---- reading fails ------------------------------------------------------- */

static unsigned reads_left;

static int failing_read(const struct input *input, void *buffer, size_t size,
			uint64_t offset)
{
	if (reads_left-- == 0)
		return -EIO;
	memcpy(buffer, (const char *)input->data + offset, size);
	return 0;
}

static void failed_reads(void **state)
{
	struct input input;
	unsigned i;
	int error = -EIO;

	(void)state;
	assert_int_equal(read_header("{" T("a", "U8", "[3]", "[0,3]") "}", 3),
			 0);
	input = input_memory(file.data, file.size);
	input.read = failing_read;
	safetensors_finish(&read);
	for (i = 0; error; i++) {
		reads_left = i;
		error = safetensors_read(&input, true, &read, &fault);
		if (error)
			refusal_check("read", &fault, -EIO, i ? 8 : 0,
				      "reading failed");
	}
	assert_int_equal(i, 3);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(random_files),
		TEST(nothing_in_it),
		TEST(empty_sharding_is_none),
		TEST(empty_name),
		TEST(more_behind_it),
		TEST(refused_headers),
		TEST(places_of_faults),
		TEST(sizes_of_headers),
		TEST(most_axes),
		TEST(longest_name),
		TEST(every_truncation),
		TEST(every_changed_byte),
		TEST(failed_reads),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
