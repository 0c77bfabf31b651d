/* SPDX-License-Identifier: Apache-2.0 */
/* An archive as a whole: one field of it wrong, and where that is found. */
#include "support/test.h"
#include "support/archive_out.h"

#include "shard/base/limits.h"
#include "shard/dcp/zip_check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { RECORDS = 4 };

static const char elements[100] = "elements";

struct sample {
	struct archive archive;
	struct archive_record records[RECORDS];
	/* What zip_check said last. */
	struct found {
		unsigned count;
		enum zip_flaw flaw;	/* the first */
		struct fault fault;
	} found;
	struct zip_index index;
	uint64_t offsets[RECORDS];
};

static void make(struct sample *s)
{
	struct archive *a = &s->archive;

	s->records[0] = archive_add(a, "archive/data.pkl", "\x80\2N.", 4);
	s->records[1] = archive_add(a, "archive/data/1", "", 0);
	s->records[2] = archive_add(a, "archive/data/0", elements,
				    sizeof(elements));
	s->records[3] = archive_add(a, "archive/version", "3\n", 2);
	archive_end(a);
}

static int setup(void **state)
{
	struct sample *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->archive.checked = true;
	make(s);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct sample *s = *state;

	archive_free(&s->archive);
	free(s);
	return 0;
}

static void note_flaw(void *context, enum zip_flaw flaw,
		      const struct fault *fault)
{
	struct found *found = context;

	if (found->count++ == 0) {
		found->flaw = flaw;
		found->fault = *fault;
	}
}

/* Check the archive as it is now. */
static void look(struct sample *s)
{
	size_t size = s->archive.out.size;
	void *copy = malloc(size);
	struct zip_sink sink = { note_flaw, &s->found };
	struct fault fault = { .reason = "" };
	struct input input;
	struct zip zip;
	uint64_t i;

	assert_non_null(copy);
	memcpy(copy, s->archive.out.data, size);
	memset(&s->found, 0, sizeof(s->found));
	input = input_memory(copy, size);
	if (zip_open(&zip, &input, LIMIT_OBJECT_DIRECTORY_SIZE, &fault))
		fail_msg("%s", fault.reason);
	assert_int_equal(zip_check(&zip, &sink, &s->index), 0);
	assert_true(s->index.count <= RECORDS);
	for (i = 0; i < s->index.count; i++)
		s->offsets[i] = s->index.records[i].offset;
	zip_index_finish(&s->index);
	zip_close(&zip);
	free(copy);
}

static void check_sound(struct sample *s)
{
	unsigned i;

	look(s);
	if (s->found.count > 0)
		fail_msg("byte %u: %s: %s", (unsigned)s->found.fault.offset,
			 s->found.fault.reason, s->found.fault.detail);
	assert_int_equal(s->index.count, RECORDS);
	for (i = 0; i < RECORDS; i++)
		assert_int_equal(s->offsets[i], s->records[i].payload);
}

static void set(struct sample *s, uint64_t at, unsigned width, uint64_t value)
{
	unsigned char *p = (unsigned char *)s->archive.out.data + at;
	unsigned i;

	assert_true(at + width <= s->archive.out.size);
	for (i = 0; i < width; i++)
		p[i] = (unsigned char)(value >> 8 * i);
}

static uint64_t get(const struct sample *s, uint64_t at, unsigned width)
{
	const unsigned char *p = (unsigned char *)s->archive.out.data + at;
	uint64_t value = 0;

	while (width-- > 0)
		value = value << 8 | p[width];
	return value;
}

struct place {
	enum zip_flaw flaw;
	uint64_t offset;
	const char *reason;
};

/* With the @width bytes at @at being @value, @expected is found, and nothing
 * any more when they are back. */
static void check(struct sample *s, uint64_t at, unsigned width,
		  uint64_t value, struct place expected)
{
	uint64_t old = get(s, at, width);

	assert_int_not_equal(old, value);
	set(s, at, width, value);
	look(s);
	if (s->found.count == 0 || s->found.flaw != expected.flaw ||
	    s->found.fault.offset != expected.offset ||
	    !strstr(s->found.fault.reason, expected.reason))
		fail_msg("byte %u: %u flaws, the first %d at %u: %s",
			 (unsigned)at, s->found.count, (int)s->found.flaw,
			 (unsigned)s->found.fault.offset,
			 s->found.count ? s->found.fault.reason : "");
	set(s, at, width, old);
	look(s);
	assert_int_equal(s->found.count, 0);
}
#define HEADER(offset, reason) \
	((struct place){ ZIP_FLAW_HEADER, offset, reason })
#define STRUCTURE(offset, reason) \
	((struct place){ ZIP_FLAW_STRUCTURE, offset, reason })

static void sound(void **state)
{
	struct sample *s = *state;

	check_sound(s);
	assert_true(s->index.has_checksums);
}

static void without_checksums(void **state)
{
	struct sample s = { .archive = { .checked = false } };

	(void)state;
	make(&s);
	check_sound(&s);
	assert_false(s.index.has_checksums);
	archive_free(&s.archive);
}

static void local_header(void **state)
{
	struct sample *s = *state;
	uint64_t at = s->records[2].header, size = sizeof(elements);

	check(s, at + 4, 2, 1, HEADER(at, "differ in version or time"));
	check(s, at + 6, 2, 0x800, HEADER(at, "differ"));
	check(s, at + 8, 2, 8, HEADER(at, "differ"));
	check(s, at + 10, 2, 1, HEADER(at, "differ in version or time"));
	check(s, at + 12, 2, 1, HEADER(at, "differ in version or time"));
	check(s, at + 14, 4, 1, HEADER(at, "belong behind the record"));
	check(s, at + 18, 4, size, HEADER(at, "belong behind the record"));
	check(s, at + 22, 4, size, HEADER(at, "belong behind the record"));
	/* The name, and what makes it longer. */
	check(s, at + 26, 2, 15, HEADER(at, "contradicts"));
	check(s, at + 30, 1, 'A', HEADER(at, "contradicts"));
	/* Elsewhere in the item there is no descriptor. */
	check(s, at + 28, 2, get(s, at + 28, 2) + 1,
	      HEADER(s->records[2].payload + 1 + size, "no data descriptor"));
}

static void padding(void **state)
{
	struct sample *s = *state;
	uint64_t at = s->records[2].header + 30 + 14;
	uint64_t size = s->records[2].payload - at - 4;

	check(s, at, 1, 'G', HEADER(at, "extra field"));
	check(s, at + 1, 1, 'C', HEADER(at, "extra field"));
	check(s, at + 2, 2, size + 1, HEADER(at, "extra field"));
	check(s, at + 4, 1, 'z', HEADER(at + 4, "padding"));
	check(s, at + 4 + size - 1, 1, 0, HEADER(at + 4, "padding"));
}

static void data_descriptor(void **state)
{
	struct sample *s = *state;
	uint64_t at = s->records[2].payload + sizeof(elements);

	check(s, at + 2, 1, 6, HEADER(at, "no data descriptor"));
	check(s, at + 4, 4, 1, HEADER(at, "data descriptor"));
	check(s, at + 8, 4, 99, HEADER(at, "data descriptor"));
	check(s, at + 12, 4, 99, HEADER(at, "data descriptor"));
}

static void directory(void **state)
{
	struct sample *s = *state;
	uint64_t first = s->archive.directory_offset;
	uint64_t at = first + s->records[2].entry;
	uint64_t header = s->records[2].header;

	check(s, at + 4, 2, 20, STRUCTURE(at, "differs from the first"));
	check(s, at + 6, 2, 20, STRUCTURE(at, "differs from the first"));
	check(s, at + 8, 2, 0x800, HEADER(header, "differ"));
	check(s, at + 8, 2, 0x809, HEADER(header, "differ"));
	check(s, at + 12, 2, 1, HEADER(header, "version or time"));
	check(s, at + 16, 4, 1,
	      HEADER(s->records[2].payload + sizeof(elements), "descriptor"));
	check(s, at + 34, 2, 1, STRUCTURE(at, "differs from the first"));
	check(s, at + 36, 2, 1, STRUCTURE(at, "differs from the first"));
	check(s, at + 38, 4, 1, STRUCTURE(at, "differs from the first"));
	check(s, at + 42, 4, header + 1, HEADER(header + 1, "contradicts"));
	/* Of the first entry: then the others differ from it. */
	check(s, first + 4, 2, 20,
	      STRUCTURE(first + s->records[1].entry, "differs from the first"));
}

/* Bytes of a record that its entry and its descriptor disown. */
static void gaps(void **state)
{
	struct sample *s = *state;
	uint64_t entry = s->archive.directory_offset + s->records[3].entry;
	uint64_t at = s->records[3].payload;

	/* Shorter by one: what is behind is no descriptor. */
	check(s, entry + 20, 8, UINT64_C(0x100000001),
	      HEADER(at + 1, "no data descriptor"));
	/* No descriptor is asked for, so its bytes are left. */
	set(s, s->records[3].header + 6, 2, 0x800);
	set(s, entry + 8, 2, 0x800);
	look(s);
	assert_int_equal(s->found.count, 3);
}

static void end_records(void **state)
{
	struct sample *s = *state;
	const struct archive *a = &s->archive;
	uint64_t end64 = a->end64, end = a->end;

	check(s, end + 4, 2, 1, STRUCTURE(end, "several disks"));
	check(s, end + 6, 2, 1, STRUCTURE(end, "several disks"));
	check(s, end + 8, 2, 3, STRUCTURE(end, "end records differ"));
	check(s, end + 10, 2, 5, STRUCTURE(end, "end records differ"));
	check(s, end + 12, 4, 1, STRUCTURE(end, "end records differ"));
	check(s, end + 16, 4, 1, STRUCTURE(end, "end records differ"));
	check(s, end64 + 4, 8, 45, STRUCTURE(end64, "contradicts itself"));
	check(s, end64 + 14, 2, 46, STRUCTURE(end64, "another version"));
	check(s, end64 + 16, 4, 1, STRUCTURE(end64, "several disks"));
	check(s, end64 + 20, 4, 1, STRUCTURE(end64, "several disks"));
	check(s, end64 + 24, 8, 5, STRUCTURE(end64, "contradicts itself"));
	check(s, a->locator + 4, 4, 1, STRUCTURE(end64, "several disks"));
	check(s, a->locator + 16, 4, 2, STRUCTURE(end64, "several disks"));
	/* Without a locator the end record alone counts. */
	check(s, a->locator + 3, 1, 6, STRUCTURE(end, "no ZIP64 end record"));
}

static void counts_of_records(void **state)
{
	struct sample *s = *state;
	uint64_t end64 = s->archive.end64;
	uint64_t last = s->archive.directory_offset + s->records[3].entry;

	/* One is left over, and one byte is not there. */
	check(s, end64 + 32, 8, 3, STRUCTURE(last, "more in the central"));
	check(s, end64 + 40, 8, get(s, end64 + 40, 8) - 1,
	      STRUCTURE(last, "bad entry"));
}

static void with_a_comment(void **state)
{
	struct sample s = { .archive = { .comment = "x", .checked = true } };

	(void)state;
	make(&s);
	look(&s);
	assert_int_equal(s.found.count, 1);
	assert_int_equal(s.found.flaw, ZIP_FLAW_STRUCTURE);
	assert_int_equal(s.found.fault.offset, s.archive.out.size - 1);
	archive_free(&s.archive);
}

/* Two entries for the same bytes: the payload is given once. */
static void record_over_another(void **state)
{
	struct sample *s = *state;
	uint64_t at = s->archive.directory_offset + s->records[3].entry;

	set(s, at + 42, 4, s->records[2].header);
	memcpy(s->archive.out.data + at + 46, "archive/data/0", 14);
	set(s, at + 28, 2, 14);
	set(s, at + 32, 2, 1); /* a byte of comment is what is left */
	set(s, at + 20, 4, sizeof(elements));
	set(s, at + 24, 4, sizeof(elements));
	look(s);
	assert_int_equal(s->index.count, 3);
	assert_true(s->found.count > 0);
}

/* ---- other tools --------------------------------------------------------- */

/* Say in all headers that another tool wrote it. */
static void make_foreign(struct sample *s)
{
	unsigned i;

	for (i = 0; i < RECORDS; i++) {
		uint64_t at = s->archive.directory_offset +
			      s->records[i].entry;

		set(s, at + 4, 2, 0x314);
		set(s, at + 6, 2, 20);
		set(s, s->records[i].header + 4, 2, 20);
	}
}

/* What only PyTorch's layout says is not asked of others. */
static void others_may_lay_out_as_they_like(void **state)
{
	struct sample *s = *state;
	uint64_t extra = s->records[2].header + 30 + 14;

	make_foreign(s);
	check_sound(s);
	set(s, extra, 2, 0x5455); /* a time, and not padding */
	set(s, extra + 4, 4, 12345);
	set(s, s->records[3].header + 10, 4, 0x12345678);
	set(s, s->archive.directory_offset + s->records[3].entry + 38, 4,
	    0x1800000);
	set(s, s->archive.locator + 16, 4, 0);
	check_sound(s);
	/* Sizes in front instead of behind. */
	set(s, s->records[2].header + 18, 4, sizeof(elements));
	set(s, s->records[2].header + 22, 4, sizeof(elements));
	check_sound(s);
}

static void others_must_not_contradict_themselves(void **state)
{
	struct sample *s = *state;
	uint64_t at = s->records[2].header;
	uint64_t end = s->records[2].payload + sizeof(elements);

	make_foreign(s);
	check(s, at + 6, 2, 0x800, HEADER(at, "differ"));
	check(s, at + 8, 2, 8, HEADER(at, "differ"));
	check(s, at + 14, 4, 1, HEADER(at, "checksum"));
	check(s, at + 18, 4, 99, HEADER(at, "size"));
	check(s, at + 22, 4, 99, HEADER(at, "size"));
	check(s, end + 4, 4, 1, HEADER(end, "data descriptor"));
	check(s, end + 8, 4, 99, HEADER(end, "data descriptor"));
	check(s, s->archive.end + 8, 2, 3,
	      STRUCTURE(s->archive.end, "end records differ"));
}

/* The directory may have another order than the records. */
static void others_may_sort_their_directory(void **state)
{
	struct sample *s = *state;
	char *first = s->archive.out.data + s->archive.directory_offset;
	char *third = first + s->records[2].entry;
	size_t size = 46 + 14;
	char swap[46 + 14];

	make_foreign(s);
	first += s->records[1].entry;
	assert_int_equal(third - first, size);
	memcpy(swap, first, size);
	memcpy(first, third, size);
	memcpy(third, swap, size);
	check_sound(s);
}

static void compressed_records_are_not_read(void **state)
{
	struct sample *s = *state;
	uint64_t at = s->archive.directory_offset + s->records[2].entry;

	make_foreign(s);
	set(s, s->records[2].header + 8, 2, 8);
	set(s, at + 10, 2, 8);
	look(s);
	assert_int_equal(s->found.count, 1);
	assert_int_equal(s->found.flaw, ZIP_FLAW_UNREAD);
	assert_int_equal(s->index.count, 3);
}

/* ---- the alignment ------------------------------------------------------- */

/* The record .storage_alignment is believed. Both records start at multiples
 * of 64: with 32 the second would start earlier, with 128 both later. What is
 * no number says nothing. */
static void alignment_is_a_record(void **state)
{
	static const char *const texts[] = { "64", "32", "128", "6x", "" };
	static const unsigned flaws[] = { 0, 1, 2, 0, 0 };
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(texts); i++) {
		struct sample s = { .archive = { .checked = true } };
		struct archive *a = &s.archive;

		s.records[0] = archive_add(a, "archive/.storage_alignment",
					   texts[i], strlen(texts[i]));
		s.records[1] = archive_add(a, "archive/version", "3\n", 2);
		archive_end(a);
		look(&s);
		assert_int_equal(s.index.count, 2);
		assert_int_equal(s.found.count, flaws[i]);
		if (flaws[i])
			assert_non_null(strstr(s.found.fault.reason,
					       "alignment"));
		archive_free(a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(sound),
		cmocka_unit_test(without_checksums),
		TEST(local_header),
		TEST(padding),
		TEST(data_descriptor),
		TEST(directory),
		TEST(gaps),
		TEST(end_records),
		TEST(counts_of_records),
		cmocka_unit_test(with_a_comment),
		TEST(record_over_another),
		TEST(others_may_lay_out_as_they_like),
		TEST(others_must_not_contradict_themselves),
		TEST(others_may_sort_their_directory),
		TEST(compressed_records_are_not_read),
		cmocka_unit_test(alignment_is_a_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
