/* SPDX-License-Identifier: Apache-2.0 */
/* One stored item: sound, damaged in each way that has a name, and unreadable
 * at each read. */
#include "support/test.h"
#include "support/dice.h"
#include "support/item_out.h"

#include "shard/verify/verify_item.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 50, COLUMNS = 40, STORAGE = ROWS * COLUMNS * 4 };

static const uint64_t shape[2] = { ROWS, COLUMNS };
static const struct verify_range all = { 0, UINT64_MAX };

struct sample {
	struct array item;
	struct box box;
	uint64_t payload;	/* offset of the elements */
	struct verify_buffer *buffer;
	struct verify_findings findings;
	bool is_recorded, is_whole;
	/* Set by a test: */
	bool quick;
	enum dtype dtype;
	unsigned reads;		/* that succeed, if not 0 */
};

/* What is said of @s->item. */
static void make_item(struct sample *s, bool checked)
{
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);
	static unsigned char storage[STORAGE];
	unsigned i;

	for (i = 0; i < STORAGE; i++)
		storage[i] = (unsigned char)dice_mix(i);
	spec.storage = storage;
	spec.checked = checked;
	array_finish(&s->item);
	s->item = (struct array){ .data = NULL };
	item_out(&s->item, &spec);
	s->payload = (uint64_t)((char *)memmem(s->item.data, s->item.size,
					       storage, STORAGE) -
				s->item.data);
}

static int setup(void **state)
{
	struct sample *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->box = (struct box){ .ndim = 2, .offset = { 3, 0 },
			       .size = { ROWS, COLUMNS } };
	s->dtype = DTYPE_F32;
	s->buffer = verify_buffer_create();
	assert_non_null(s->buffer);
	make_item(s, true);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct sample *s = *state;

	verify_buffer_destroy(s->buffer);
	array_finish(&s->item);
	free(s);
	return 0;
}

struct counted_input {
	struct input input;	/* first: passed as this */
	struct sample *sample;
};

static int read_counted(const struct input *input, void *buffer, size_t size,
			uint64_t offset)
{
	struct sample *s = ((const struct counted_input *)input)->sample;

	assert_true(offset <= input->size && size <= input->size - offset);
	if (s->reads > 0 && --s->reads == 0)
		return -ENODATA;
	memcpy(buffer, (const char *)input->data + offset, size);
	return 0;
}

static struct counted_input make_input(struct sample *s)
{
	struct counted_input counted = { .sample = s };

	counted.input = input_memory(s->item.data, s->item.size);
	counted.input.read = read_counted;
	return counted;
}

static void look(struct sample *s)
{
	struct counted_input counted = make_input(s);
	struct verify_item item;
	struct verify_part part;

	memset(&s->findings, 0, sizeof(s->findings));
	assert_int_equal(verify_item_open(&item, &counted.input, s->quick,
					  s->buffer, &s->findings), 0);
	s->is_recorded = item.is_recorded;
	s->is_whole = item.is_whole;
	verify_item_hash(&item, all, &part);
	assert_int_equal(verify_item_tensor(&item, s->dtype, &s->box), 0);
	verify_item_close(&item);
}

/* Exactly one thing is found. */
static void check(struct sample *s, enum verify_kind kind, uint64_t offset,
		  const char *reason)
{
	const struct verify_finding *first = &s->findings.list[0];

	look(s);
	if (s->findings.count != 1 || first->kind != kind ||
	    first->fault.offset != offset ||
	    !strstr(first->fault.reason, reason))
		fail_msg("%u findings: %s at %u: %s", s->findings.count,
			 s->findings.count ? verify_kind_name(first->kind) :
			 "none", (unsigned)first->fault.offset,
			 s->findings.count ? first->fault.reason : "");
}

static void sound(void **state)
{
	struct sample *s = *state;

	look(s);
	assert_int_equal(s->findings.count, 0);
	assert_true(s->is_recorded && s->is_whole);
}

static void no_checksums(void **state)
{
	struct sample *s = *state;

	make_item(s, false);
	s->item.data[s->payload] ^= 1;
	look(s);
	assert_int_equal(s->findings.count, 0);
	assert_false(s->is_recorded);
}

static void elements(void **state)
{
	struct sample *s = *state;

	s->item.data[s->payload + 77] ^= 0x10;
	check(s, VERIFY_CRC, s->payload, "checksum");
	assert_string_equal(s->findings.list[0].fault.detail, "archive/data/0");
	s->quick = true;
	look(s);
	assert_int_equal(s->findings.count, 0);
}

/* Its elements are not read when it is quick, all else is. */
static void small_records(void **state)
{
	struct sample *s = *state;
	char *version = memmem(s->item.data, s->item.size, "3\n", 2);

	*version = '4';
	for (s->quick = false;; s->quick = true) {
		check(s, VERIFY_CRC, (uint64_t)(version - s->item.data),
		      "checksum");
		if (s->quick)
			break;
	}
	*version = '3';
	/* The pickle: found by its checksum, and not a second time. */
	s->item.data[64 + 3] ^= 1;
	s->quick = false;
	check(s, VERIFY_CRC, 64, "checksum");
}

static void metadata_differs(void **state)
{
	struct sample *s = *state;

	s->box.size[0]--;
	check(s, VERIFY_SHAPE, 64, "shape");
	s->box.size[0]++;
	s->box.ndim = 1;
	check(s, VERIFY_SHAPE, 64, "shape");
	s->box.ndim = 2;
	s->dtype = DTYPE_I32;
	check(s, VERIFY_DTYPE, 64, "type");
}

/* The storage that the pickle names, and the record. */
static void storage_size(void **state)
{
	struct sample *s = *state;
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);
	struct array pickle = { .data = NULL };

	put_proto(&pickle, 2);
	item_out_call(&pickle, &spec);
	PUT(&pickle, ".");
	spec.storage_size += 4;
	spec.checked = true;
	s->item.size = 0;
	item_out_archive(&s->item, &pickle, &spec);
	array_finish(&pickle);
	look(s);
	assert_int_equal(s->findings.count, 1);
	assert_int_equal(s->findings.list[0].kind, VERIFY_SIZE);
}

static void a_kind_of_tensor_that_is_not_read(void **state)
{
	struct sample *s = *state;
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, shape);
	struct array pickle = { .data = NULL };

	put_proto(&pickle, 2);
	put_global(&pickle, "somewhere", "rebuild");
	PUT(&pickle, ")R.");
	spec.checked = true;
	s->item.size = 0;
	item_out_archive(&s->item, &pickle, &spec);
	array_finish(&pickle);
	look(s);
	assert_int_equal(s->findings.count, 0);
	assert_true(s->is_recorded && s->is_whole);
}

static void not_an_archive(void **state)
{
	struct sample *s = *state;

	s->item.size -= 1;
	look(s);
	assert_int_equal(s->findings.count, 1);
	assert_int_equal(s->findings.list[0].kind, VERIFY_STRUCTURE);
	s->item.size = 0;
	check(s, VERIFY_STRUCTURE, 0, "too short");
}

/* A faulty record does not keep others from being looked at. */
static void several_faults(void **state)
{
	struct sample *s = *state;
	char *version = memmem(s->item.data, s->item.size, "3\n", 2);

	s->item.data[s->payload] ^= 1;
	*version = '4';
	s->item.data[10] = 1; /* the time of data.pkl */
	look(s);
	assert_int_equal(s->findings.count, 3);
	assert_int_equal(s->findings.list[0].kind, VERIFY_HEADER);
	assert_int_equal(s->findings.list[1].kind, VERIFY_CRC);
	assert_int_equal(s->findings.list[2].kind, VERIFY_CRC);
}

static void too_many_faults(void **state)
{
	struct sample *s = *state;
	uint64_t i, position;
	struct input input;
	struct zip zip;
	struct zip_record record;
	struct verify_item item;
	struct verify_part part;

	input = input_memory(s->item.data, s->item.size);
	assert_int_equal(zip_open(&zip, &input, LIMIT_OBJECT_DIRECTORY_SIZE,
				  NULL), 0);
	memset(&s->findings, 0, sizeof(s->findings));
	/* A time in each local header, again and again. */
	for (position = 0; !zip_next(&zip, &position, &record, NULL);)
		s->item.data[record.header + 10] = 1;
	zip_close(&zip);
	for (i = 0; i < LIMIT_ITEM_FINDINGS; i++) {
		assert_int_equal(verify_item_open(&item, &input, false,
						  s->buffer, &s->findings), 0);
		verify_item_hash(&item, all, &part);
		verify_item_close(&item);
	}
	assert_int_equal(s->findings.count, LIMIT_ITEM_FINDINGS);
	assert_int_equal(s->findings.dropped,
			 4 * LIMIT_ITEM_FINDINGS - LIMIT_ITEM_FINDINGS);
}

/* ---- parts --------------------------------------------------------------- */

/* Verify in parts of @size bytes. */
static void look_in_parts(struct sample *s, uint64_t size)
{
	uint64_t count = (s->item.size + size - 1) / size, i;
	struct verify_part *parts = calloc(count, sizeof(*parts));
	struct counted_input counted = make_input(s);
	struct verify_item item;

	assert_non_null(parts);
	memset(&s->findings, 0, sizeof(s->findings));
	/* In no order. */
	for (i = 0; i < count; i++) {
		uint64_t part = (i * 7 + 3) % count;
		struct verify_range range = { part * size, (part + 1) * size };

		if (count % 7 == 0)
			range = (struct verify_range){ i * size,
						       (i + 1) * size };
		assert_int_equal(verify_item_open(&item, &counted.input, false,
						  s->buffer, &s->findings), 0);
		assert_true(verify_item_hash(&item, range,
					     &parts[range.begin / size]));
		verify_item_close(&item);
	}
	assert_int_equal(verify_item_open(&item, &counted.input, false,
					  s->buffer, &s->findings), 0);
	verify_item_join(&item, size, parts);
	verify_item_close(&item);
	free(parts);
}

static void in_parts(void **state)
{
	static const uint64_t sizes[] = { 64, 97, 500, 4096, 8000, 1 << 20 };
	struct sample *s = *state;
	struct dice dice = dice_make();
	unsigned i, k;

	for (i = 0; i < COUNT_OF(sizes); i++) {
		look_in_parts(s, sizes[i]);
		assert_int_equal(s->findings.count, 0);
		for (k = 0; k < 20; k++) {
			uint64_t at = s->payload + dice_below(&dice, STORAGE);
			char bit = (char)(1 << dice_below(&dice, 8));

			s->item.data[at] ^= bit;
			look_in_parts(s, sizes[i]);
			assert_int_equal(s->findings.count, 1);
			assert_int_equal(s->findings.list[0].kind, VERIFY_CRC);
			assert_int_equal(s->findings.list[0].fault.offset,
					 s->payload);
			s->item.data[at] ^= bit;
		}
	}
}

/* An empty record whose checksum is not that of nothing, where one part ends
 * and the next begins: it is found once. */
static void empty_record_between_parts(void **state)
{
	const uint64_t empty[2] = { 0, 8 };
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, empty);
	struct sample *s = *state;
	unsigned i, count = 0;
	char *name;

	spec.checked = true;
	s->item.size = 0;
	item_out(&s->item, &spec);
	/* Its entry: there it has no other bytes behind its name. */
	name = memmem(s->item.data, s->item.size, "archive/data/0PK\1\2", 18);
	assert_non_null(name);
	name[-46 + 16] = 1;
	look_in_parts(s, 64);
	for (i = 0; i < s->findings.count; i++)
		count += s->findings.list[i].kind == VERIFY_CRC;
	assert_int_equal(count, 1);
	look_in_parts(s, 1 << 20);
	count = 0;
	for (i = 0; i < s->findings.count; i++)
		count += s->findings.list[i].kind == VERIFY_CRC;
	assert_int_equal(count, 1);
}

/* ---- larger than the buffer ---------------------------------------------- */

static void larger_than_the_buffer(void **state)
{
	const uint64_t long_shape[1] = { 3 * MIB / 2 };
	struct item_spec spec = item_spec_make(DTYPE_U8, 1, long_shape);
	struct sample *s = *state;
	unsigned char *storage = malloc(spec.storage_size);
	static const uint64_t places[] = { 0, 3000, 5000, 600000,
					   3 * MIB / 2 - 1 };
	unsigned i;

	assert_non_null(storage);
	for (i = 0; i < spec.storage_size; i++)
		storage[i] = (unsigned char)dice_mix(i);
	spec.storage = storage;
	spec.checked = true;
	s->item.size = 0;
	item_out(&s->item, &spec);
	s->payload = (uint64_t)((char *)memmem(s->item.data, s->item.size,
					       storage, 1000) - s->item.data);
	free(storage);
	s->dtype = DTYPE_U8;
	s->box = (struct box){ .ndim = 1, .size = { spec.storage_size } };
	look(s);
	assert_int_equal(s->findings.count, 0);
	for (i = 0; i < COUNT_OF(places); i++) {
		s->item.data[s->payload + places[i]] ^= 4;
		check(s, VERIFY_CRC, s->payload, "checksum");
		s->item.data[s->payload + places[i]] ^= 4;
	}
	/* Of each read in turn: reading failed, and nothing else. */
	for (i = 1;; i++) {
		s->reads = i;
		look(s);
		if (s->reads > 0)
			break;
		assert_int_equal(s->findings.count, 1);
		assert_int_equal(s->findings.list[0].kind, VERIFY_IO);
		assert_non_null(strstr(s->findings.list[0].fault.detail,
				       strerror(ENODATA)));
	}
	assert_true(i > 5);
	assert_int_equal(s->findings.count, 0);
	/* Its start, its end, and the descriptor of what is between. */
	s->quick = true;
	s->reads = 10;
	look(s);
	assert_int_equal(s->findings.count, 0);
	assert_true(10 - s->reads <= 3);
}

static void unreadable(void **state)
{
	struct sample *s = *state;

	s->reads = 1;
	check(s, VERIFY_IO, 0, "reading failed");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(sound),
		TEST(no_checksums),
		TEST(elements),
		TEST(small_records),
		TEST(metadata_differs),
		TEST(storage_size),
		TEST(a_kind_of_tensor_that_is_not_read),
		TEST(not_an_archive),
		TEST(several_faults),
		TEST(too_many_faults),
		TEST(in_parts),
		TEST(empty_record_between_parts),
		TEST(larger_than_the_buffer),
		TEST(unreadable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
