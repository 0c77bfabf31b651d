/* SPDX-License-Identifier: Apache-2.0 */
/* Items behind stream extensions that cannot be read, and whole items. */
#include "support/test.h"
#include "support/coded.h"
#include "support/reading.h"
#include "support/zstd_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct dice dice;
static struct coded coded;

/* Part 0 is stored as it is, 1 and 3 are compressed once, 2 is compressed
 * twice. */
static struct coded_form usual_form(struct dice *any, unsigned part)
{
	static const struct coded_form forms[CODED_PARTS] = {
		{ .depth = 0 }, { .depth = 1, .forms = ZSTD_OUT_CHECKED },
		{ .depth = 2 }, { .depth = 1 },
	};

	(void)any;
	return forms[part];
}

/* Two of the first sort, one that says less than it is behind, one that says
 * what nobody knows. */
static struct coded_form odd_form(struct dice *any, unsigned part)
{
	static const struct coded_form forms[CODED_PARTS] = {
		{ .depth = 0 }, { .depth = 1 },
		{ .depth = 2, .chain = "stream.zstd/1\n" },
		{ .depth = 1, .chain = "stream.zstd/1\nstream.odd/7\n" },
	};

	(void)any;
	return forms[part];
}

static struct decoded_cache *the_cache;

static void start(uint64_t cache_size,
		  struct coded_form (*form)(struct dice *any, unsigned part))
{
	coded_rows(&coded, &dice, form);
	the_cache = decoded_cache_create(cache_size);
	assert_non_null(the_cache);
	coded_open(&coded, the_cache);
}

static int setup(void **state)
{
	(void)state;
	start(1 << 20, usual_form);
	return 0;
}

static int setup_odd(void **state)
{
	(void)state;
	start(1 << 20, odd_form);
	return 0;
}

/* Decoded, the items of 16 KiB have a bit more. */
static int setup_small(void **state)
{
	(void)state;
	start(CODED_PART_SIZE, usual_form);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	coded_free(&coded);
	decoded_cache_destroy(the_cache);
	return 0;
}

static void check_said(unsigned part, int error, const char *reason)
{
	const struct catalog_shard *shard = coded_shard(&coded, part);
	const struct fault *fault = &coded.store.reply->fault;
	unsigned i;

	assert_int_equal(coded_read_part(&coded, part), error);
	assert_int_equal(fault->error, error);
	if (!strstr(fault->reason, reason))
		fail_msg("%s, expected: %s", fault->reason, reason);
	assert_string_equal(coded.store.reply->fault_file,
			    coded_path(&coded, part));
	assert_in_range(fault->offset, shard->offset,
			shard->offset + shard->size);
	for (i = 0; i < 2; i++) {
		assert_int_equal(coded_read_part(&coded, part), error);
		assert_int_equal(fault->error, 0);
	}
}

/* ---- what is wrong ------------------------------------------------------- */

static void damage(unsigned part, uint64_t at)
{
	folder_poke(&coded.store.folder, coded_path(&coded, part),
		    coded_shard(&coded, part)->offset + at, 0x55);
	coded_open(&coded, the_cache);
}

static void damaged_start(void **state)
{
	(void)state;
	damage(1, 0);
	check_said(1, -EIO, "not a zstd frame");
	coded_check_part(&coded, 2);
	coded_check_part(&coded, 0);
}

static void damaged_checksum(void **state)
{
	(void)state;
	damage(1, coded_shard(&coded, 1)->size - 1);
	check_said(1, -EIO, "damaged zstd frame");
	coded_check_part(&coded, 3);
}

static void truncated_file(void **state)
{
	const struct catalog_shard *shard = coded_shard(&coded, 2);
	int fd = openat(coded.store.folder.fd, coded_path(&coded, 2),
			O_WRONLY | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(shard->offset + shard->size) -
				   1), 0);
	close(fd);
	coded_open(&coded, the_cache);
	check_said(2, -EIO, "ends beyond the end of the file");
	coded_check_part(&coded, 1);
}

static void missing_file(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(coded.store.folder.fd,
				  coded_path(&coded, 2), 0), 0);
	coded_open(&coded, the_cache);
	assert_int_equal(coded_read_part(&coded, 2), -EIO);
	assert_int_equal(coded_read_part(&coded, 2), -EIO);
	coded_check_part(&coded, 1);
	assert_false(atomic_load(&coded.stale));
}

static void unknown_extension(void **state)
{
	const struct fault *fault = &coded.store.reply->fault;

	(void)state;
	assert_int_equal(coded_read_part(&coded, 3), -EOPNOTSUPP);
	assert_string_equal(fault->detail, "stream.odd/7");
	coded_open(&coded, the_cache);
	check_said(3, -EOPNOTSUPP, "unknown stream extension");
	coded_check_part(&coded, 1);
}

/* Decoded only once, of two times: no archive. */
static void not_the_tensor(void **state)
{
	(void)state;
	assert_int_equal(coded_read_part(&coded, 2), -EIO);
	assert_non_null(strstr(coded.store.reply->fault.detail,
			       "of the decoded item"));
	coded_open(&coded, the_cache);
	check_said(2, -EIO, "no end record");
	coded_check_part(&coded, 1);
}

static void larger_than_the_cache(void **state)
{
	unsigned before = folder_count_descriptors();

	(void)state;
	check_said(1, -EOPNOTSUPP, "larger than the cache of decoded items");
	check_said(2, -EOPNOTSUPP, "larger than the cache of decoded items");
	coded_check_part(&coded, 0);
	/* But for the file that is open now, nothing stays. */
	assert_in_range(folder_count_descriptors(), before, before + 3);
}

/* Errors that are known say nothing about another file. */
static void stale_although_it_was_bad(void **state)
{
	(void)state;
	damage(1, 0);
	assert_int_equal(coded_read_part(&coded, 1), -EIO);
	folder_poke(&coded.store.folder, coded_path(&coded, 1), 0, 'x');
	assert_int_equal(coded_read_part(&coded, 1), -ESTALE);
}

static void without_a_cache(void **state)
{
	(void)state;
	coded_open(&coded, NULL);
	check_said(1, -EOPNOTSUPP, "nothing may be decoded");
	coded_check_part(&coded, 0);
}

/* ---- whole items --------------------------------------------------------- */

struct whole {
	struct array data;
	int result;
};

static int keep_item(void *context, const struct input *input)
{
	struct whole *whole = context;
	char *data;

	array_finish(&whole->data);
	data = array_add(&whole->data, input->size + 1);
	assert_non_null(data);
	whole->data.size = input->size;
	assert_int_equal(input->read(input, data, input->size, 0), 0);
	return whole->result;
}

static int get_item(unsigned part, struct whole *whole)
{
	return source_decoded_item(coded.source, coded_shard(&coded, part),
				   keep_item, whole);
}

/* The item as the store has it, before it was compressed. */
static int get_original(unsigned part, struct whole *whole)
{
	return source_file_item(coded.store.source,
				catalog_shard(coded.store.catalog,
					      catalog_entry(coded.store.catalog,
							    0), part),
				keep_item, whole);
}

static void whole_items(void **state)
{
	struct whole found = { .result = 0 }, original = found;
	unsigned part, twice;

	(void)state;
	for (twice = 0; twice < 2; twice++)
		for (part = 0; part < CODED_PARTS; part++) {
			assert_int_equal(get_item(part, &found), 0);
			assert_int_equal(get_original(part, &original), 0);
			assert_int_equal(found.data.size, original.data.size);
			assert_memory_equal(found.data.data,
					    original.data.data,
					    found.data.size);
		}
	/* What the callback says is what comes back. */
	found.result = -EXDEV;
	assert_int_equal(get_item(1, &found), -EXDEV);
	folder_poke(&coded.store.folder, coded_path(&coded, 1), 10, 'x');
	assert_int_equal(get_item(1, &found), -ESTALE);
	array_finish(&found.data);
	array_finish(&original.data);
}

static void whole_items_that_are_bad(void **state)
{
	struct whole found = { .result = 0 };

	(void)state;
	assert_int_equal(get_item(3, &found), -EOPNOTSUPP);
	/* It is no tensor, but an item. */
	assert_int_equal(coded_read_part(&coded, 2), -EIO);
	assert_int_equal(get_item(2, &found), 0);
	assert_memory_equal(found.data.data, "\x28\xb5\x2f\xfd", 4);
	damage(1, 0);
	assert_int_equal(get_item(1, &found), -EIO);
	/* It was not said yet. */
	check_said(1, -EIO, "not a zstd frame");
	assert_int_equal(get_item(1, &found), -EIO);
	array_finish(&found.data);
}

static void whole_items_that_are_too_large(void **state)
{
	struct whole found = { .result = 0 };

	(void)state;
	assert_int_equal(get_item(0, &found), 0);
	assert_int_equal(get_item(1, &found), -E2BIG);
	assert_int_equal(get_item(2, &found), -E2BIG);
	check_said(2, -EOPNOTSUPP, "larger than the cache");
	assert_int_equal(get_item(2, &found), -E2BIG);
	array_finish(&found.data);
}

/* The stored item of part @part as an object. */
static struct catalog *make_object(unsigned part)
{
	const struct catalog_shard *shard = coded_shard(&coded, part);
	struct catalog_item item = { .offset = shard->offset,
				     .size = shard->size };
	const char *path = coded_path(&coded, part), *chain;
	struct catalog_builder *builder;
	struct notes notes;
	struct fault fault;
	size_t size;

	builder = catalog_out_create(&notes);
	chain = catalog_transforms(coded.catalog, shard, &size);
	assert_int_equal(catalog_builder_transform(builder, chain, size,
						   &item.flags), 0);
	assert_int_equal(catalog_builder_file(builder, path, strlen(path),
					      &item.file), 0);
	assert_int_equal(catalog_builder_object(builder, "o", 1, &item,
						&fault), 0);
	return catalog_out_finish(builder);
}

/* By its stored size, which is all that is known of it, it cannot be read. */
static void objects_as_items_only(void **state)
{
	struct reply *reply = coded.store.reply;
	struct whole found = { .result = 0 }, original = found;
	struct transfer transfer;
	struct catalog *catalog;
	struct box box;

	(void)state;
	catalog = make_object(1);
	coded_close(&coded);
	catalog_put(coded.catalog);
	coded.catalog = catalog;
	coded_open(&coded, the_cache);
	assert_int_equal(get_item(0, &found), 0);
	assert_int_equal(get_original(1, &original), 0);
	assert_int_equal(found.data.size, original.data.size);
	assert_memory_equal(found.data.data, original.data.data,
			    found.data.size);
	catalog_shape(coded.catalog, catalog_entry(coded.catalog, 0), &box);
	transfer = (struct transfer){
		.source = source_decoded_source(coded.source),
		.catalog = coded.catalog,
		.entry = catalog_entry(coded.catalog, 0),
		.selection = &box, .size = 10,
	};
	assert_int_equal(reading(&transfer, reply), -EOPNOTSUPP);
	assert_non_null(strstr(reply->fault.reason, "object is behind"));
	assert_int_equal(reading(&transfer, reply), -EOPNOTSUPP);
	assert_int_equal(reply->fault.error, 0);
	assert_int_equal(get_item(0, &found), 0);
	array_finish(&found.data);
	array_finish(&original.data);
}

int main(void)
{
#define TEST_WITH(name, setup) \
	cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST(name) TEST_WITH(name, setup)
	const struct CMUnitTest tests[] = {
		TEST(damaged_start),
		TEST(damaged_checksum),
		TEST(truncated_file),
		TEST(missing_file),
		TEST_WITH(unknown_extension, setup_odd),
		TEST_WITH(not_the_tensor, setup_odd),
		TEST_WITH(larger_than_the_cache, setup_small),
		TEST(stale_although_it_was_bad),
		TEST(without_a_cache),
		TEST(whole_items),
		TEST_WITH(whole_items_that_are_bad, setup_odd),
		TEST_WITH(whole_items_that_are_too_large, setup_small),
		TEST(objects_as_items_only),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("source_decoded_refusal", tests,
					   NULL, NULL);
}
