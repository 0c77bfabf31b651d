/* SPDX-License-Identifier: Apache-2.0 */
/* Items behind stream extensions, read through a cache. */
#include "support/test.h"
#include "support/coded.h"
#include "support/zstd_out.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct dice dice;
static struct coded coded;

/* ---- random tensors -------------------------------------------------------- */

static struct coded_form any_form(struct dice *any, unsigned part)
{
	(void)part;
	return (struct coded_form){ .depth = (unsigned)dice_below(any, 4),
				    .forms = (unsigned)dice_below(any, 4) };
}

/* Read and compare; the oracle says whether a hole is met. */
static void check_range(const struct coded *c, const struct box *selection,
			uint64_t offset, uint64_t size)
{
	unsigned char *expected = malloc(size + 1), *found = malloc(size + 1);
	struct reply *reply = c->store.reply;
	int error = coded_read(c, reply, selection, offset, size);

	assert_true(expected && found);
	if (store_expect(&c->store, selection, offset, size, expected)) {
		if (error)
			fail_msg("error %d: %s %s", error,
				 reply->fault.error ? reply->fault.reason :
				 "no fault", reply->fault.detail);
		store_copy(&c->store, found);
		assert_memory_equal(found, expected, size);
	} else {
		assert_int_equal(error, -EIO);
	}
	reply_release(reply);
	free(expected);
	free(found);
}

static void check_random_ranges(const struct coded *c, unsigned count)
{
	uint64_t element = dtype_info(c->store.world.dtype)->size;

	while (count-- > 0) {
		struct box selection;
		uint64_t whole, offset, size;

		world_pick(&dice, &c->store.world.shape, &selection);
		whole = box_volume(&selection) * element;
		offset = dice_below(&dice, whole + 1);
		size = dice_below(&dice, whole - offset + 1);
		if (size == 0)
			offset -= offset % element;
		if (size > LIMIT_READ_SIZE)
			size = LIMIT_READ_SIZE;
		check_range(c, &selection, offset, size);
	}
}

/* @plain in a small cache: other layouts may take ten times as much. */
static void check_worlds(const struct world_limits *limits, unsigned worlds,
			 uint64_t cache_size, bool plain)
{
	unsigned before = folder_count_descriptors();
	struct decoded_cache *cache = decoded_cache_create(cache_size);
	unsigned i;

	assert_non_null(cache);
	for (i = 0; i < worlds; i++) {
		struct world world;

		world_make(&world, limits, &dice);
		coded_make(&coded, &world, plain, &dice, any_form);
		coded_open(&coded, cache);
		check_random_ranges(&coded, 15);
		coded_free(&coded);
	}
	decoded_cache_destroy(cache);
	assert_int_equal(folder_count_descriptors(), before);
}

static void small_tensors(void **state)
{
	const struct world_limits limits = {
		.ndim = 5, .volume = 300, .holes = 10, .overlaps = 15,
	};

	(void)state;
	check_worlds(&limits, 60, 1 << 22, false);
	check_worlds(&limits, 30, 30000, true);
}

static void large_tensors(void **state)
{
	const struct world_limits limits = {
		.ndim = 3, .volume = 60000, .holes = 10, .overlaps = 10,
	};

	(void)state;
	check_worlds(&limits, 6, 1 << 26, false);
	check_worlds(&limits, 6, 1 << 20, true);
}

/* ---- one tensor ------------------------------------------------------------ */

/* Its parts: rows of 16 KiB in float32. Part 0 is stored as it is, 1 and 3
 * are compressed once, 2 is compressed twice. */
enum { PARTS = 4, PART_SIZE = 16 * 1024 };

static struct coded_form usual_form(struct dice *any, unsigned part)
{
	static const struct coded_form forms[PARTS] = {
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
	static const struct coded_form forms[PARTS] = {
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
	struct world world = { .dtype = DTYPE_F32, .part_count = PARTS };
	unsigned i;

	world.shape = BOX2(0, 0, 4 * PARTS, 1024);
	for (i = 0; i < PARTS; i++)
		world.parts[i] = BOX2(4 * i, 0, 4, 1024);
	coded_make(&coded, &world, true, &dice, form);
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
	start(PART_SIZE, usual_form);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	coded_free(&coded);
	decoded_cache_destroy(the_cache);
	return 0;
}

static int read_part(unsigned part)
{
	return coded_read(&coded, coded.store.reply, NULL,
			  (uint64_t)part * PART_SIZE, PART_SIZE);
}

static void check_part(unsigned part)
{
	check_range(&coded, NULL, (uint64_t)part * PART_SIZE, PART_SIZE);
}

static void check_said(unsigned part, int error, const char *reason)
{
	const struct catalog_shard *shard = coded_shard(&coded, part);
	const struct fault *fault = &coded.store.reply->fault;
	unsigned i;

	assert_int_equal(read_part(part), error);
	assert_int_equal(fault->error, error);
	if (!strstr(fault->reason, reason))
		fail_msg("%s, expected: %s", fault->reason, reason);
	assert_string_equal(coded.store.reply->fault_file,
			    coded_path(&coded, part));
	assert_in_range(fault->offset, shard->offset,
			shard->offset + shard->size);
	for (i = 0; i < 2; i++) {
		assert_int_equal(read_part(part), error);
		assert_int_equal(fault->error, 0);
	}
}

/* What is not compressed is still borrowed. */
static void parts_side_by_side(void **state)
{
	(void)state;
	check_range(&coded, NULL, 0, PARTS * PART_SIZE);
	check_range(&coded, NULL, PART_SIZE - 3, 2 * PART_SIZE + 5);
	assert_int_equal(read_part(0), 0);
	assert_int_equal(coded.store.reply->segment_count, 1);
	assert_int_equal(read_part(1), 0);
	assert_int_equal(coded.store.reply->segment_count, 0);
	assert_int_equal(coded.store.reply->hold_count, 0);
}

static void nowait_decodes_nothing(void **state)
{
	struct reply *reply = coded.store.reply;

	(void)state;
	reply->nowait = true;
	assert_int_equal(read_part(1), -EAGAIN);
	reply->nowait = false;
	check_part(1);
	reply->nowait = true;
	check_part(1);
	assert_int_equal(read_part(2), -EAGAIN);
	assert_int_equal(reply->fault.error, 0);
	reply->nowait = false;
	check_part(2);
}

/* ---- what is wrong --------------------------------------------------------- */

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
	check_part(2);
	check_part(0);
}

static void damaged_checksum(void **state)
{
	(void)state;
	damage(1, coded_shard(&coded, 1)->size - 1);
	check_said(1, -EIO, "damaged zstd frame");
	check_part(3);
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
	check_part(1);
}

static void missing_file(void **state)
{
	(void)state;
	assert_int_equal(unlinkat(coded.store.folder.fd,
				  coded_path(&coded, 2), 0), 0);
	coded_open(&coded, the_cache);
	assert_int_equal(read_part(2), -EIO);
	assert_int_equal(read_part(2), -EIO);
	check_part(1);
	assert_false(source_file_is_stale(coded.files));
}

static void unknown_extension(void **state)
{
	const struct fault *fault = &coded.store.reply->fault;

	(void)state;
	assert_int_equal(read_part(3), -EOPNOTSUPP);
	assert_string_equal(fault->detail, "stream.odd/7");
	coded_open(&coded, the_cache);
	check_said(3, -EOPNOTSUPP, "unknown stream extension");
	check_part(1);
}

/* Decoded only once, of two times: no archive. */
static void not_the_tensor(void **state)
{
	(void)state;
	assert_int_equal(read_part(2), -EIO);
	assert_non_null(strstr(coded.store.reply->fault.detail,
			       "of the decoded item"));
	coded_open(&coded, the_cache);
	check_said(2, -EIO, "no end record");
	check_part(1);
}

static void larger_than_the_cache(void **state)
{
	unsigned before = folder_count_descriptors();

	(void)state;
	check_said(1, -EOPNOTSUPP, "larger than the cache of decoded items");
	check_said(2, -EOPNOTSUPP, "larger than the cache of decoded items");
	check_part(0);
	/* But for the file that is open now, nothing stays. */
	assert_in_range(folder_count_descriptors(), before, before + 3);
}

static void changed_file_is_stale(void **state)
{
	(void)state;
	check_part(1);
	check_part(0);
	folder_poke(&coded.store.folder, coded_path(&coded, 1), 10, 'x');
	assert_int_equal(read_part(1), -ESTALE);
	assert_true(source_file_is_stale(coded.files));
	assert_int_equal(read_part(0), -ESTALE);
	assert_int_equal(read_part(1), -ESTALE);
}

static void file_changed_before_the_first_read(void **state)
{
	(void)state;
	folder_poke(&coded.store.folder, coded_path(&coded, 2), 10, 'x');
	assert_int_equal(read_part(2), -ESTALE);
	assert_int_equal(coded.store.reply->fault.error, 0);
}

/* Errors that are known say nothing about another file. */
static void stale_although_it_was_bad(void **state)
{
	(void)state;
	damage(1, 0);
	assert_int_equal(read_part(1), -EIO);
	folder_poke(&coded.store.folder, coded_path(&coded, 1), 0, 'x');
	assert_int_equal(read_part(1), -ESTALE);
}

static void without_a_cache(void **state)
{
	(void)state;
	coded_open(&coded, NULL);
	check_said(1, -EOPNOTSUPP, "nothing may be decoded");
	check_part(0);
}

/* ---- whole items ----------------------------------------------------------- */

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
		for (part = 0; part < PARTS; part++) {
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
	assert_int_equal(read_part(2), -EIO);
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
	free(coded.catalog);
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
	assert_int_equal(transfer_read(&transfer, reply), -EOPNOTSUPP);
	assert_non_null(strstr(reply->fault.reason, "object is behind"));
	assert_int_equal(transfer_read(&transfer, reply), -EOPNOTSUPP);
	assert_int_equal(reply->fault.error, 0);
	assert_int_equal(get_item(0, &found), 0);
	array_finish(&found.data);
	array_finish(&original.data);
}

/* ---- caches that are shared ------------------------------------------------ */

static struct coded_form compressed(struct dice *any, unsigned part)
{
	(void)part;
	return (struct coded_form){ .depth = 1 + dice_chance(any, 20) };
}

/* Sources come and go; their items go with them. */
static void sources_that_go_away(void **state)
{
	struct decoded_cache *cache = decoded_cache_create(1 << 22);
	struct coded *other = calloc(1, sizeof(*other));
	unsigned i;

	(void)state;
	assert_true(cache && other);
	coded_open(&coded, cache);
	check_range(&coded, NULL, 0, PARTS * PART_SIZE);
	for (i = 0; i < 5; i++) {
		unsigned before = folder_count_descriptors();

		coded_make(other, &coded.store.world, true, &dice, compressed);
		coded_open(other, cache);
		check_range(other, NULL, 0, PARTS * PART_SIZE);
		check_range(&coded, NULL, 0, PARTS * PART_SIZE);
		coded_free(other);
		assert_int_equal(folder_count_descriptors(), before);
	}
	coded_open(&coded, the_cache);
	decoded_cache_destroy(cache);
	free(other);
}

/* Each with a reply of its own; errors as a count. */
static void *read_any(void *argument)
{
	struct dice mine = { dice_mix((uintptr_t)argument) };
	struct reply *reply = reply_create();
	unsigned char *found = malloc(LIMIT_READ_SIZE);
	uint64_t whole = coded.store.size;
	uintptr_t wrong = !reply || !found;
	unsigned i, j;

	for (i = 0; i < 150 && !wrong; i++) {
		uint64_t offset = dice_below(&mine, whole);
		uint64_t size = 1 + dice_below(&mine, 20000);
		unsigned char *to = found;

		if (size > whole - offset)
			size = whole - offset;
		reply->nowait = dice_chance(&mine, 20);
		if (coded_read(&coded, reply, NULL, offset, size)) {
			wrong += !reply->nowait;
			continue;
		}
		for (j = 0; j < reply->iov_count; j++) {
			memcpy(to, reply->iov[j].iov_base,
			       reply->iov[j].iov_len);
			to += reply->iov[j].iov_len;
		}
		wrong += memcmp(found, coded.store.bytes + offset, size) != 0;
		reply_release(reply);
	}
	reply_destroy(reply);
	free(found);
	return (void *)wrong;
}

static void read_in_threads(void)
{
	pthread_t threads[8];
	uintptr_t i, wrong = 0;
	void *result;

	for (i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_any,
						(void *)(i + dice.state)), 0);
	for (i = 0; i < COUNT_OF(threads); i++) {
		assert_int_equal(pthread_join(threads[i], &result), 0);
		wrong += (uintptr_t)result;
	}
	assert_int_equal(wrong, 0);
}

/* Items are evicted, and decoded again, while others are read. */
static void many_threads_and_little_room(void **state)
{
	struct world world = { .dtype = DTYPE_F32, .part_count = 32 };
	uint64_t size;
	unsigned i;

	(void)state;
	coded_free(&coded);
	world.shape = BOX2(0, 0, 64, 1024);
	for (i = 0; i < 32; i++)
		world.parts[i] = BOX2(2 * i, 0, 2, 1024);
	coded_make(&coded, &world, true, &dice, compressed);
	/* Room for one item, for five, for all. */
	for (size = 1 << 14; size <= 1 << 20; size *= 4) {
		struct decoded_cache *cache = decoded_cache_create(size);

		assert_non_null(cache);
		coded_open(&coded, cache);
		read_in_threads();
		coded_open(&coded, the_cache);
		decoded_cache_destroy(cache);
	}
}

int main(void)
{
#define TEST_WITH(name, setup) \
	cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST(name) TEST_WITH(name, setup)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_tensors),
		cmocka_unit_test(large_tensors),
		TEST(parts_side_by_side),
		TEST(nowait_decodes_nothing),
		TEST(damaged_start),
		TEST(damaged_checksum),
		TEST(truncated_file),
		TEST(missing_file),
		TEST_WITH(unknown_extension, setup_odd),
		TEST_WITH(not_the_tensor, setup_odd),
		TEST_WITH(larger_than_the_cache, setup_small),
		TEST(changed_file_is_stale),
		TEST(file_changed_before_the_first_read),
		TEST(stale_although_it_was_bad),
		TEST(without_a_cache),
		TEST(whole_items),
		TEST_WITH(whole_items_that_are_bad, setup_odd),
		TEST_WITH(whole_items_that_are_too_large, setup_small),
		TEST(objects_as_items_only),
		TEST(sources_that_go_away),
		TEST(many_threads_and_little_room),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("source_decoded", tests, NULL,
					   NULL);
}
