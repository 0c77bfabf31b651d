/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Catalogs of all kinds pass, none that is cut off does, and of one with a
 * flipped bit only what no hash can tell. What each rule refuses is in
 * test_catalog_refusal.c.
 */
#include "support/test.h"
#include "support/catalog_zoo.h"
#include "support/opening.h"
#include "support/sample.h"

#include "shard/base/array.h"
#include "shard/base/name.h"
#include "shard/catalog/catalog_check.h"
#include "shard/catalog/catalog_json.h"
#include "shard/catalog/catalog_layout.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void check_good(const struct catalog *catalog, const char *what)
{
	struct fault fault = { .error = 0 };
	int error = catalog_check(catalog, catalog->size, &fault);

	if (error)
		fail_msg("%s: byte %d: %s", what, (int)fault.offset,
			 fault.reason);
	assert_int_equal(fault.error, 0);
	assert_int_equal(catalog_check(catalog, catalog->size, NULL), 0);
}

static bool finds_all(const struct catalog *catalog)
{
	uint64_t count = catalog->tensor_count + catalog->object_count, i;

	for (i = 0; i < count; i++) {
		const struct catalog_entry *entry = catalog_entry(catalog, i);
		char encoded[NAME_ENCODED_MAX];
		size_t size = name_encode(catalog_text(catalog, entry->name),
					  entry->name_size, encoded);
		int64_t found = i < catalog->tensor_count ?
			catalog_find_tensor(catalog, encoded, size) :
			catalog_find_object(catalog, encoded, size);

		if (found != (int64_t)i)
			return false;
	}
	return true;
}

static void zoo_passes(void **state)
{
	struct catalog *catalog = catalog_zoo();

	(void)state;
	assert_int_equal(catalog->tensor_count, ZOO_TENSORS);
	check_good(catalog, "zoo");
	assert_true(finds_all(catalog));
	catalog_put(catalog);
}

static void empty_passes(void **state)
{
	struct notes notes;
	struct catalog *catalog =
		catalog_out_finish(catalog_out_create(&notes));

	(void)state;
	check_good(catalog, "empty");
	catalog_put(catalog);
}

/* Cut along any axes, with holes and overlaps. */
static void worlds_pass(void **state)
{
	static const struct world_limits limits = {
		.ndim = 5, .volume = 300, .holes = 40, .overlaps = 40,
	};
	struct dice dice = dice_make();
	struct world world;
	unsigned i;

	(void)state;
	for (i = 0; i < 2000; i++) {
		struct catalog *catalog;

		world_make(&world, &limits, &dice);
		catalog = catalog_out_world(&world);
		check_good(catalog, "world");
		catalog_put(catalog);
	}
}

/* Enough for long runs of slots, and names that are cut, hashed, escaped. */
static void many_names_pass(void **state)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct box scalar = { .ndim = 0 };
	struct catalog *catalog;
	char name[300];
	unsigned i;

	(void)state;
	for (i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "%s%0*u", i % 5 ? "" : "a/",
			 i % 3 ? 1 : 200, i);
		catalog_out_begin(builder, name, DTYPE_F32, &scalar);
		catalog_out_shard(builder, scalar, "f", i, 1);
		catalog_out_end(builder);
	}
	catalog = catalog_out_finish(builder);
	check_good(catalog, "many names");
	catalog_put(catalog);
}

/* ---- checkpoints --------------------------------------------------------- */

/* Whether there is a checkpoint at @folder. */
static bool check_checkpoint(int folder, const char *what)
{
	const struct checkpoint_options options = { .cache = NULL };
	struct checkpoint_report report;
	struct checkpoint *checkpoint;

	if (opening_checkpoint(folder, &options, &checkpoint, &report))
		return false;
	check_good(checkpoint->catalog, what);
	opening_close(checkpoint);
	return true;
}

static void samples_pass(void **state)
{
	unsigned kind;

	(void)state;
	for (kind = 0; kind < 4; kind++) {
		struct test_folder folder;

		folder_make(&folder);
		if (kind < 2)
			sample_write(&folder, kind, 1);
		else
			sample_write_safetensors(&folder, kind == 2 ?
						 SAMPLE_SHARDED :
						 SAMPLE_INDEXED, 1);
		assert_true(check_checkpoint(folder.fd, "sample"));
		folder_remove(&folder);
	}
}

static unsigned check_release(const char *release)
{
	char path[4096];
	unsigned count = 0;
	struct dirent *entry;
	DIR *stream;

	snprintf(path, sizeof(path), "%s/%s", FIXTURES, release);
	stream = opendir(path);
	assert_non_null(stream);
	for (entry = readdir(stream); entry; entry = readdir(stream)) {
		int fd = openat(dirfd(stream), entry->d_name,
				O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			continue;
		count += entry->d_name[0] != '.' &&
			 check_checkpoint(fd, entry->d_name);
		close(fd);
	}
	closedir(stream);
	return count;
}

/* What PyTorch wrote. */
static void fixtures_pass(void **state)
{
	(void)state;
	assert_true(check_release("torch-2.14.1") > 10);
	assert_int_equal(check_release("torch-2.6.0"), 3);
}

/* ---- damage -------------------------------------------------------------- */

static void refuse_bytes(const void *data, uint64_t size)
{
	/* Exactly as large, so that a sanitizer sees a read behind it. */
	char *blob = malloc(size ? size : 1);
	struct fault fault = { .error = 0 };

	assert_non_null(blob);
	memcpy(blob, data, size);
	assert_int_equal(catalog_check(blob, size, &fault), -EBADMSG);
	assert_int_equal(fault.error, -EBADMSG);
	assert_true(fault.offset <= size);
	assert_non_null(fault.reason);
	free(blob);
}

static void truncated(void **state)
{
	struct catalog *catalog = catalog_zoo();
	uint64_t whole = catalog->size, size;

	(void)state;
	for (size = 0; size < whole; size++) {
		refuse_bytes(catalog, size);
		/* And one that says so. */
		catalog->size = size;
		refuse_bytes(catalog, size);
		catalog->size = whole;
	}
	catalog_put(catalog);
}

static void longer(void **state)
{
	struct catalog *catalog = catalog_zoo();
	uint64_t whole = catalog->size;
	char *blob = calloc(1, whole + 8);

	(void)state;
	assert_non_null(blob);
	memcpy(blob, catalog, whole);
	refuse_bytes(blob, whole + 8);
	((struct catalog *)(void *)blob)->size += 8;
	refuse_bytes(blob, whole + 8);
	free(blob);
	catalog_put(catalog);
}

static void flip(struct catalog *catalog, uint64_t bit)
{
	((unsigned char *)catalog)[bit / 8] ^= (unsigned char)(1 << bit % 8);
}

/* Bits that may be anything: what people are told of the origin, and a seed
 * under which every name is found in its table still. */
static bool may_differ(const struct catalog *catalog, uint64_t byte)
{
	size_t origin = offsetof(struct catalog, origin);
	size_t seed = offsetof(struct catalog, seed);

	if (byte >= origin + offsetof(struct catalog_origin, torch_first) &&
	    byte < origin + sizeof(struct catalog_origin))
		return true;
	/* The format: one of the others. */
	if (byte == origin)
		return catalog->origin.format <= CATALOG_SAFETENSORS_SHARDED;
	return byte >= seed && byte < seed + sizeof(catalog->seed) &&
	       finds_all(catalog);
}

static void flipped(void **state)
{
	struct catalog *catalog = catalog_zoo();
	uint64_t bit;

	(void)state;
	for (bit = 0; bit < 8 * catalog->size; bit++) {
		uint64_t size = catalog->size;
		bool good;

		flip(catalog, bit);
		good = catalog_check(catalog, size, NULL) == 0;
		if (good != may_differ(catalog, bit / 8))
			fail_msg("bit %d: %s", (int)bit,
				 good ? "taken" : "refused");
		flip(catalog, bit);
	}
	catalog_put(catalog);
}

/* All that is said of the entries, which a sanitizer watches. */
static void say_all(const struct catalog *catalog)
{
	const struct owned_catalog owned = {
		catalog, calloc(catalog->file_count + 1, sizeof(uint32_t)),
	};
	struct array text = { .data = NULL };
	uint64_t i;

	assert_non_null(owned.owners);
	assert_true(finds_all(catalog));
	for (i = 0; i < catalog->tensor_count; i++)
		assert_int_equal(catalog_json_tensor(&owned, i, 0, &text), 0);
	free((void *)owned.owners);
	array_finish(&text);
}

/* With the hash of what it then is: refused, or good enough to be read. */
static void flipped_and_hashed(void **state)
{
	struct catalog *catalog = catalog_zoo();
	uint64_t begin = 8 * catalog->entries, end = 8 * catalog->tensor_slots;
	uint64_t bit, taken = 0;

	(void)state;
	for (bit = begin; bit < end; bit++) {
		flip(catalog, bit);
		catalog_hash(catalog, catalog->hash);
		if (catalog_check(catalog, catalog->size, NULL) == 0) {
			say_all(catalog);
			taken++;
		}
		flip(catalog, bit);
	}
	/* Offsets of items, types of one size, letters. */
	assert_true(taken > 0 && taken < (end - begin) / 2);
	catalog_put(catalog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zoo_passes),
		cmocka_unit_test(empty_passes),
		cmocka_unit_test(worlds_pass),
		cmocka_unit_test(many_names_pass),
		cmocka_unit_test(samples_pass),
		cmocka_unit_test(fixtures_pass),
		cmocka_unit_test(truncated),
		cmocka_unit_test(longer),
		cmocka_unit_test(flipped),
		cmocka_unit_test(flipped_and_hashed),
	};

	return cmocka_run_group_tests_name("catalog_check", tests, NULL, NULL);
}
