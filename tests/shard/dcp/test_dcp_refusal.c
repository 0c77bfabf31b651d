/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata that is refused, with the name and the place of what is wrong. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/dice.h"
#include "support/metadata_out.h"

#include "shard/dcp/dcp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct notes notes;
static struct fault fault;

static int read_text(const void *data, size_t size, unsigned *ret_bad)
{
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct dcp_file file = { .data = data, .size = size };
	int error;

	memset(&fault, 0, sizeof(fault));
	error = dcp_read(builder, &file, 1, &fault, ret_bad);
	catalog_builder_destroy(builder);
	return error;
}

static void check_text(const struct array *text, const char *reason,
		       const char *detail)
{
	unsigned bad = 77;
	int error = read_text(text->data, text->size, &bad);

	if (error != -EBADMSG || fault.error != error || !fault.reason ||
	    !strstr(fault.reason, reason))
		fail_msg("%d, %s; expected %s", error,
			 fault.reason ? fault.reason : "none", reason);
	assert_int_equal(bad, 0);
	assert_string_equal(fault.detail, detail);
	assert_true(fault.offset <= text->size);
}

static void check(struct metadata *metadata, const char *reason,
		  const char *detail)
{
	struct array text = { .data = NULL };

	metadata_finish(metadata, &text);
	check_text(&text, reason, detail);
	array_finish(&text);
}
#define CHECK_PICKLE(pickle, reason) \
	check_text(&(struct array){ .data = (char *)(uintptr_t)pickle, \
				    .size = sizeof(pickle) - 1 }, reason, "")

static void paths_that_leave_the_folder(void **state)
{
	static const char *const paths[] = {
		"", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..",
		"a/b/../../../c",
	};
	const struct box shape = BOX1(0, 4);
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(paths); i++) {
		struct metadata metadata = { .protocol = 4 };

		metadata_whole(&metadata, "w", "float32", &shape,
			       (struct metadata_place){ paths[i], 0, 9 });
		check(&metadata, "not a plain relative path", "w");
	}
}

static void odd_but_harmless_paths(void **state)
{
	static const char *const paths[] = {
		"...", "..a", "a..", ".a", "a/b", "a//b", "./a", "a\\..\\b",
	};
	const struct box shape = BOX1(0, 4);
	unsigned i, bad;

	(void)state;
	for (i = 0; i < COUNT_OF(paths); i++) {
		struct metadata metadata = { .protocol = 4 };
		struct array text = { .data = NULL };

		metadata_whole(&metadata, "w", "float32", &shape,
			       (struct metadata_place){ paths[i], 0, 9 });
		metadata_finish(&metadata, &text);
		assert_int_equal(read_text(text.data, text.size, &bad), 0);
		array_finish(&text);
	}
}

static void places_that_are_no_places(void **state)
{
	static const struct metadata_place places[] = {
		{ "f", (uint64_t)-1, 5 }, { "f", 5, (uint64_t)-1 },
		{ "f", INT64_MAX, 1 }, { "f", 1, INT64_MAX },
		{ "f", INT64_MAX, INT64_MAX },
		{ "f", LIMIT_TENSOR_SIZE, 1 },
	};
	const struct box shape = BOX1(0, 4);
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(places); i++) {
		struct metadata metadata = { .protocol = 4 };

		metadata_whole(&metadata, "w", "float32", &shape, places[i]);
		check(&metadata, "bad offset or length", "w");
	}
}

static void shards_out_of_bounds(void **state)
{
	struct metadata metadata = { .protocol = 4 };
	const struct box shape = BOX1(0, 4), box = BOX1(2, 3);

	(void)state;
	metadata_begin(&metadata, "layers.0.w", "float32", 1, shape.size);
	metadata_chunk(&metadata, &box);
	metadata_end(&metadata);
	metadata_item(&metadata, "layers.0.w", &box,
		      (struct metadata_place){ "f", 0, 9 });
	check(&metadata, "out of the bounds", "layers.0.w");
}

static void shards_of_another_ndim(void **state)
{
	struct metadata metadata = { .protocol = 4 };
	const struct box shape = BOX1(0, 4), box = BOX2(0, 0, 4, 1);

	(void)state;
	metadata_begin(&metadata, "w", "float32", 1, shape.size);
	metadata_chunk(&metadata, &box);
	metadata_end(&metadata);
	check(&metadata, "bad shard", "w");
}

static void sizes_that_are_no_sizes(void **state)
{
	struct metadata metadata = { .protocol = 4 };
	static const uint64_t negative[1] = { (uint64_t)-1 };
	static uint64_t ones[33];
	unsigned i;

	(void)state;
	metadata_begin(&metadata, "w", "float32", 1, negative);
	metadata_end(&metadata);
	check(&metadata, "bad size of a tensor", "w");
	for (i = 0; i < 33; i++)
		ones[i] = 1;
	metadata_begin(&metadata, "w", "float32", 33, ones);
	metadata_end(&metadata);
	check(&metadata, "more than 32 axes", "w");
}

static void too_large_a_tensor(void **state)
{
	struct metadata metadata = { .protocol = 4 };
	static const uint64_t size[2] = { UINT64_C(1) << 40,
					  UINT64_C(1) << 40 };
	struct array text = { .data = NULL };
	unsigned bad = 77;

	(void)state;
	metadata_begin(&metadata, "w", "float32", 2, size);
	metadata_end(&metadata);
	metadata_finish(&metadata, &text);
	assert_int_equal(read_text(text.data, text.size, &bad), -E2BIG);
	assert_int_equal(fault.error, -E2BIG);
	assert_int_equal(bad, 0);
	assert_string_equal(fault.detail, "w");
	array_finish(&text);
}

static void long_name(void **state)
{
	static char name[LIMIT_NAME_SIZE + 2];
	struct metadata metadata = { .protocol = 4 };
	struct array text = { .data = NULL };
	unsigned bad;

	(void)state;
	memset(name, 'n', LIMIT_NAME_SIZE);
	metadata_object(&metadata, name);
	metadata_finish(&metadata, &text);
	assert_int_equal(read_text(text.data, text.size, &bad), 0);
	text.size = 0;
	name[LIMIT_NAME_SIZE] = 'n';
	metadata_object(&metadata, name);
	metadata_finish(&metadata, &text);
	assert_int_equal(read_text(text.data, text.size, &bad), -EBADMSG);
	assert_non_null(strstr(fault.reason, "longer than 64 KiB"));
	array_finish(&text);
}

static void pickles_of_something_else(void **state)
{
	(void)state;
	CHECK_PICKLE("N.", "no state_dict_metadata");
	CHECK_PICKLE("}.", "no state_dict_metadata");
	CHECK_PICKLE("ca\nb\n)\x81.", "no state_dict_metadata");
	CHECK_PICKLE("ca\nb\n)\x81}\x8c\x13state_dict_metadata}sb.",
		     "no storage_data");
	CHECK_PICKLE("ca\nb\n)\x81}\x8c\x13state_dict_metadata]sb.",
		     "no state_dict_metadata");
	CHECK_PICKLE("", "without STOP");
	CHECK_PICKLE("PK\3\4", "no checkpoint needs");
}

#define ROOT(tensors, storage) \
	"ca\nb\n)\x81}(\x8c\x13state_dict_metadata" tensors \
	"\x8c\x0cstorage_data" storage "ub."

static void entries_of_something_else(void **state)
{
	(void)state;
	CHECK_PICKLE(ROOT("}NNs", "}"), "name that is not a string");
	CHECK_PICKLE(ROOT("}", "}NNs"), "index without a name");
	CHECK_PICKLE(ROOT("}", "}ca\nb\n)\x81}\x8c\3fqnNsbNs"),
		     "index without a name");
}

static void entry_of_no_kind(void **state)
{
	static const char pickle[] = ROOT("}\x8c\1wNs", "}");
	const struct array text = { .data = (char *)(uintptr_t)pickle,
				    .size = sizeof(pickle) - 1 };

	(void)state;
	check_text(&text, "neither the metadata of a tensor", "w");
}

static void second_file_is_named(void **state)
{
	struct metadata good = { .protocol = 4 };
	struct array text = { .data = NULL };
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct dcp_file files[3];
	unsigned bad = 77;

	(void)state;
	metadata_finish(&good, &text);
	files[0] = files[2] = (struct dcp_file){ text.data, text.size, true };
	files[1] = (struct dcp_file){ text.data, text.size - 1, true };
	assert_int_equal(dcp_read(builder, files, 3, &fault, &bad), -EBADMSG);
	assert_int_equal(bad, 1);
	assert_int_equal(fault.offset, text.size - 1);
	catalog_builder_destroy(builder);
	array_finish(&text);
}

/* Processor time for reading 20000 stored items, of which number i has the
 * offset that @twist makes of i. */
static double time_items(uint64_t (*twist)(uint64_t number))
{
	struct metadata metadata = { .protocol = 4 };
	struct array text = { .data = NULL };
	clock_t start;
	uint64_t i;
	unsigned bad;

	for (i = 0; i < 20000; i++) {
		const struct box box = BOX1(twist(i), 1);

		metadata_item(&metadata, "w", &box,
			      (struct metadata_place){ "f", 0, 9 });
	}
	metadata_finish(&metadata, &text);
	start = clock();
	assert_int_equal(read_text(text.data, text.size, &bad), 0);
	array_finish(&text);
	return (double)(clock() - start) / CLOCKS_PER_SEC;
}

static uint64_t harmless(uint64_t number)
{
	return number;
}

static uint64_t high_bits(uint64_t number)
{
	return number << 45;
}

/* A multiplication by the golden ratio undone: what a weak hash makes of
 * these differs in high bits only. */
static uint64_t undone(uint64_t number)
{
	const uint64_t odd = UINT64_C(0x9e3779b97f4a7c15);
	uint64_t inverse = odd;
	unsigned i;

	for (i = 0; i < 5; i++)
		inverse *= 2 - odd * inverse;
	return (number << 44) * inverse & INT64_MAX;
}

static void hostile_indices_are_no_hang(void **state)
{
	double usual = time_items(harmless), a = time_items(high_bits),
	       b = time_items(undone);

	(void)state;
	print_message("%.3f s, %.3f s, %.3f s\n", usual, a, b);
	assert_true(a < 20 * usual + 0.1);
	assert_true(b < 20 * usual + 0.1);
}

/* Any damage: an error or not, but nothing else. */
static void random_damage(void **state)
{
	struct metadata metadata = { .megatron = true };
	const struct box shape = BOX2(0, 0, 4, 4);
	struct dice dice = dice_make();
	struct array text = { .data = NULL };
	unsigned i, j, bad;
	char *data;

	(void)state;
	metadata_whole(&metadata, "model.w", "float32", &shape,
		       (struct metadata_place){ "__0_0.distcp", 0, 99 });
	metadata_object(&metadata, "o");
	metadata_item(&metadata, "o", NULL,
		      (struct metadata_place){ "__0_0.distcp", 99, 99 });
	metadata_finish(&metadata, &text);
	data = malloc(text.size);
	assert_non_null(data);
	for (i = 0; i < 10000; i++) {
		memcpy(data, text.data, text.size);
		for (j = 0; j < 2; j++)
			data[dice_below(&dice, text.size)] =
				(char)dice_any(&dice);
		if (read_text(data, text.size, &bad))
			assert_true(fault.error && fault.reason);
	}
	free(data);
	array_finish(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_that_leave_the_folder),
		cmocka_unit_test(odd_but_harmless_paths),
		cmocka_unit_test(places_that_are_no_places),
		cmocka_unit_test(shards_out_of_bounds),
		cmocka_unit_test(shards_of_another_ndim),
		cmocka_unit_test(sizes_that_are_no_sizes),
		cmocka_unit_test(too_large_a_tensor),
		cmocka_unit_test(long_name),
		cmocka_unit_test(pickles_of_something_else),
		cmocka_unit_test(entries_of_something_else),
		cmocka_unit_test(entry_of_no_kind),
		cmocka_unit_test(second_file_is_named),
		cmocka_unit_test(hostile_indices_are_no_hang),
		cmocka_unit_test(random_damage),
	};

	return cmocka_run_group_tests_name("dcp_refusal", tests, NULL, NULL);
}
