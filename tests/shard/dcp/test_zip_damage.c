/* SPDX-License-Identifier: Apache-2.0 */
/* One archive, one field of it wrong: each is refused, and at its place. */
#include "support/test.h"
#include "support/archive_out.h"
#include "support/dice.h"
#include "support/refusal.h"

#include "shard/base/limits.h"
#include "shard/dcp/zip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char elements[100] = "elements";

struct sample {
	struct archive archive;
	struct archive_record pickle, data;
};

static int setup(void **state)
{
	struct sample *sample = calloc(1, sizeof(*sample));

	assert_non_null(sample);
	sample->pickle = archive_add(&sample->archive, "archive/data.pkl",
				     "\x80\2N.", 4);
	sample->data = archive_add(&sample->archive, "archive/data/0",
				   elements, sizeof(elements));
	archive_end(&sample->archive);
	*state = sample;
	return 0;
}

static int teardown(void **state)
{
	struct sample *sample = *state;

	archive_free(&sample->archive);
	free(sample);
	return 0;
}

/* Everything that item.c does with an archive. */
static int read_all(const void *data, size_t size, struct fault *fault)
{
	void *copy = malloc(size + 1);
	struct zip_record record;
	struct input input;
	struct zip zip;
	int error;

	assert_non_null(copy);
	memcpy(copy, data, size);
	input = input_memory(copy, size);
	memset(fault, 0, sizeof(*fault));
	error = zip_open(&zip, &input,
			     LIMIT_OBJECT_DIRECTORY_SIZE, fault);
	if (error)
		goto free_copy;
	error = zip_find(&zip, "data.pkl", 8, &record, fault);
	if (!error)
		error = zip_locate(&zip, &record, fault);
	if (!error)
		error = zip_find(&zip, "data/0", 6, &record, fault);
	if (!error)
		error = zip_locate(&zip, &record, fault);
	if (!error)
		assert_true(record.offset + record.size <= size);
	zip_close(&zip);
free_copy:
	free(copy);
	return error;
}

/* Set the @width bytes at @at to @value, read, and set them back. */
static void check(struct sample *sample, uint64_t at, unsigned width,
		  uint64_t value, struct fault expected)
{
	unsigned char *p = (unsigned char *)sample->archive.out.data + at;
	unsigned char old[8];
	struct fault fault;
	unsigned i;

	memcpy(old, p, width);
	for (i = 0; i < width; i++)
		p[i] = (unsigned char)(value >> 8 * i);
	assert_int_equal(read_all(sample->archive.out.data,
				  sample->archive.out.size, &fault),
			 expected.error);
	if (expected.reason)
		refusal_check("damage", &fault, expected.error,
			      expected.offset, expected.reason);
	memcpy(p, old, width);
}
#define DAMAGE(offset, reason) ((struct fault){ -EIO, reason, offset, "" })

static void sample_is_sound(void **state)
{
	struct sample *sample = *state;
	struct fault fault;

	assert_int_equal(read_all(sample->archive.out.data,
				  sample->archive.out.size, &fault), 0);
}

static void end_record(void **state)
{
	struct sample *s = *state;
	const struct archive *a = &s->archive;

	check(s, a->end, 1, 'Q', DAMAGE(a->out.size, "no end record"));
	check(s, a->end + 3, 1, 7, DAMAGE(a->out.size, "no end record"));
	check(s, a->end + 20, 2, 1, DAMAGE(a->out.size, "no end record"));
}

static void zip64_end_record(void **state)
{
	struct sample *s = *state;
	const struct archive *a = &s->archive;

	check(s, a->locator + 8, 8, a->locator + 1,
	      DAMAGE(a->locator, "out of place"));
	check(s, a->locator + 8, 8, UINT64_MAX,
	      DAMAGE(a->locator, "out of place"));
	check(s, a->locator + 8, 8, a->end64 - 1,
	      DAMAGE(a->end64 - 1, "no ZIP64 end record"));
	check(s, a->end64, 1, 'Q', DAMAGE(a->end64, "no ZIP64 end record"));
	check(s, a->end64 + 32, 8, 3, DAMAGE(a->end, "out of place"));
	check(s, a->end64 + 32, 8, UINT64_MAX, DAMAGE(a->end, "out of place"));
	check(s, a->end64 + 32, 8, 0,
	      DAMAGE(a->directory_offset, "empty archive"));
	check(s, a->end64 + 40, 8, a->directory.size + 1,
	      DAMAGE(a->end, "out of place"));
	check(s, a->end64 + 40, 8, UINT64_MAX, DAMAGE(a->end, "out of place"));
	check(s, a->end64 + 48, 8, a->directory_offset + 1,
	      DAMAGE(a->end, "out of place"));
	check(s, a->end64 + 48, 8, UINT64_MAX, DAMAGE(a->end, "out of place"));
	check(s, a->end64 + 48, 8, a->directory_offset - 1,
	      DAMAGE(a->directory_offset - 1, "bad entry"));
}

static void directory(void **state)
{
	struct sample *s = *state;
	uint64_t first = s->archive.directory_offset;
	uint64_t second = first + s->data.entry;

	check(s, first, 1, 'Q', DAMAGE(first, "bad entry"));
	check(s, second + 2, 2, 0, DAMAGE(second, "bad entry"));
	check(s, first + 28, 2, UINT16_MAX, DAMAGE(first, "bad entry"));
	check(s, second + 30, 2, 1, DAMAGE(second, "bad entry"));
	check(s, second + 32, 2, 1, DAMAGE(second, "bad entry"));
	check(s, first + 20, 4, 5, DAMAGE(first, "two sizes"));
	check(s, second + 24, 4, 0, DAMAGE(second, "two sizes"));
	check(s, second + 24, 4, UINT32_MAX, DAMAGE(second, "no 64-bit"));
	check(s, second + 20, 4, UINT32_MAX, DAMAGE(second, "no 64-bit"));
	check(s, second + 42, 4, UINT32_MAX, DAMAGE(second, "no 64-bit"));
	/* The prefix, or a name of another record. */
	check(s, first + 46 + 7, 1, '-', DAMAGE(first, "without a folder"));
	check(s, second + 46, 1, 'b', (struct fault){ .error = -ENOENT });
}

static void record_elsewhere(void **state)
{
	struct sample *s = *state;
	uint64_t entry = s->archive.directory_offset + s->data.entry;
	uint64_t size = s->archive.out.size;

	check(s, entry + 42, 4, s->data.header + 1,
	      DAMAGE(s->data.header + 1, "local header contradicts"));
	check(s, entry + 42, 4, s->pickle.header,
	      DAMAGE(s->pickle.header, "local header contradicts"));
	check(s, entry + 42, 4, size - 1,
	      DAMAGE(size - 1, "beyond the stored item"));
	check(s, entry + 42, 4, UINT32_MAX - 1,
	      DAMAGE(UINT32_MAX - 1, "beyond the stored item"));
}

static void compressed_record(void **state)
{
	struct sample *s = *state;
	uint64_t entry = s->archive.directory_offset + s->data.entry;

	check(s, entry + 10, 2, 8,
	      (struct fault){ -EOPNOTSUPP, "compressed", s->data.header, "" });
}

static void local_header(void **state)
{
	struct sample *s = *state;
	uint64_t header = s->data.header;
	uint64_t end = s->data.payload + sizeof(elements);
	unsigned extra = (unsigned char)s->archive.out.data[header + 28];

	check(s, header, 1, 'Q', DAMAGE(header, "local header contradicts"));
	check(s, header + 26, 2, 13,
	      DAMAGE(header, "local header contradicts"));
	check(s, header + 30, 1, 'b',
	      DAMAGE(header, "local header contradicts"));
	/* A wrong length of the padding would shift the elements. */
	check(s, header + 28, 2, extra + 1,
	      DAMAGE(end + 1, "no data descriptor"));
	check(s, header + 28, 2, extra - 1,
	      DAMAGE(end - 1, "no data descriptor"));
	check(s, header + 28, 2, extra + 64,
	      DAMAGE(header, "reaches into the central directory"));
	check(s, header + 28, 2, UINT16_MAX,
	      DAMAGE(header, "reaches into the central directory"));
}

static void sizes_and_descriptor(void **state)
{
	struct sample *s = *state;
	uint64_t entry = s->archive.directory_offset + s->data.entry;
	uint64_t end = s->data.payload + sizeof(elements);

	check(s, entry + 20, 8, (uint64_t)99 << 32 | 99,
	      DAMAGE(end - 1, "no data descriptor"));
	check(s, entry + 20, 8, (uint64_t)200 << 32 | 200,
	      DAMAGE(s->data.header, "reaches into"));
	check(s, end, 1, 'Q', DAMAGE(end, "no data descriptor"));
	check(s, end + 2, 1, 8, DAMAGE(end, "no data descriptor"));
}

static void zip64_extra(void **state)
{
	struct archive archive = { .wide = true };
	struct archive_record record;
	struct fault fault;
	unsigned char *extra;

	(void)state;
	archive_add(&archive, "archive/data.pkl", "x", 1);
	record = archive_add(&archive, "archive/data/0", elements, 100);
	archive_end(&archive);
	extra = (unsigned char *)archive.out.data + archive.directory_offset +
		record.entry + 46 + 14;
	assert_int_equal(read_all(archive.out.data, archive.out.size, &fault),
			 0);
	extra[0] = 2; /* another field */
	assert_int_equal(read_all(archive.out.data, archive.out.size, &fault),
			 -EIO);
	extra[0] = 1;
	extra[2] = 16; /* two numbers of three */
	assert_int_equal(read_all(archive.out.data, archive.out.size, &fault),
			 -EIO);
	extra[2] = 25; /* beyond the entry */
	assert_int_equal(read_all(archive.out.data, archive.out.size, &fault),
			 -EIO);
	extra[2] = 24;
	memset(extra + 4, 0xff, 16); /* both sizes */
	assert_int_equal(read_all(archive.out.data, archive.out.size, &fault),
			 -EIO);
	archive_free(&archive);
}

static void limits(void **state)
{
	struct sample *s = *state;
	size_t size = LIMIT_OBJECT_DIRECTORY_SIZE + 1024;
	unsigned char *data = calloc(1, size + 98);
	struct fault fault;

	assert_non_null(data);
	/* A directory that is there, and larger than any should be. */
	memcpy(data + size, s->archive.out.data + s->archive.end64, 98);
	memset(data + size + 32, 0, 24);
	data[size + 32] = 1;
	data[size + 40] = 1;
	data[size + 43] = 1; /* 16 MiB + 1 */
	memset(data + size + 56 + 8, 0, 8);
	memcpy(data + size + 56 + 8, &size, sizeof(size));
	assert_int_equal(read_all(data, size + 98, &fault), -E2BIG);
	refusal_check("size", &fault, -E2BIG, size + 76, "too large");
	free(data);
}

static void every_cut_is_refused(void **state)
{
	struct sample *s = *state;
	struct fault fault;
	size_t size;

	for (size = 0; size < s->archive.out.size; size++) {
		int error = read_all(s->archive.out.data, size, &fault);

		assert_true(error == -EIO || error == -E2BIG);
	}
}

/* Any damage: an error or not, but never a read out of bounds. */
static void random_damage(void **state)
{
	struct sample *s = *state;
	struct dice dice = dice_make();
	size_t size = s->archive.out.size;
	char *data = malloc(size);
	struct fault fault;
	unsigned i, j;

	assert_non_null(data);
	for (i = 0; i < 20000; i++) {
		memcpy(data, s->archive.out.data, size);
		for (j = 0; j < 3; j++)
			data[dice_below(&dice, size)] = (char)dice_any(&dice);
		if (read_all(data, size, &fault) && fault.reason)
			assert_true(fault.offset <= UINT32_MAX ||
				    fault.error == -EIO);
	}
	free(data);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(sample_is_sound),
		TEST(end_record),
		TEST(zip64_end_record),
		TEST(directory),
		TEST(record_elsewhere),
		TEST(compressed_record),
		TEST(local_header),
		TEST(sizes_and_descriptor),
		TEST(zip64_extra),
		TEST(limits),
		TEST(every_cut_is_refused),
		TEST(random_damage),
	};

	return cmocka_run_group_tests_name("zip_damage", tests, NULL, NULL);
}
