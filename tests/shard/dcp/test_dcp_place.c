/* SPDX-License-Identifier: Apache-2.0 */
/* Stream extensions of stored items. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/metadata_out.h"

#include "shard/dcp/dcp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void add_tensor(struct metadata *m, const char *name)
{
	const struct box shape = BOX1(0, 4);

	metadata_whole(m, name, "float32", &shape,
		       (struct metadata_place){ "f", 0, 9 });
}

/* The extensions of tensor @index. */
static void check_chain(const struct catalog *catalog, uint64_t index,
			const char *chain)
{
	const struct catalog_shard *shard = catalog_shard(catalog,
		catalog_entry(catalog, index), 0);
	const char *found;
	size_t size;

	assert_int_equal(!!(shard->flags & CATALOG_TRANSFORMED), *chain != 0);
	if (!*chain) {
		assert_int_equal(shard->flags, 0);
		return;
	}
	found = catalog_transforms(catalog, shard, &size);
	assert_int_equal(size, strlen(chain));
	assert_memory_equal(found, chain, size);
}

static void check_value(const char *pickle, size_t size, const char *chain)
{
	struct metadata m = { .protocol = 4 };
	struct catalog *catalog;

	put_bytes(&m.transforms, pickle, size);
	add_tensor(&m, "w");
	catalog = metadata_catalog(&m);
	check_chain(catalog, 0, chain);
	assert_int_equal(catalog->transform_count, *chain != 0);
	catalog_put(catalog);
}
#define CHECK(pickle, chain) check_value(pickle, sizeof(pickle) - 1, chain)

static void lists_of_descriptors(void **state)
{
	(void)state;
	CHECK("](\x8c\x0dstream.zstd/1e", "stream.zstd/1\n");
	CHECK("](\x8c\1b\x8c\1ae", "b\na\n");
	CHECK("](\x8c\1b\x8c\1b\x8c\0e", "b\nb\n\n");
	CHECK("\x8c\1b\x8c\1a\x86", "b\na\n");
	/* UTF-8, and what only looks like an end. */
	CHECK("](\x8c\4\xc3\xa9/1e", "\xc3\xa9/1\n");
	CHECK("]", "");
	CHECK(")", "");
	CHECK("N", "");
}

/* Many items, three chains. */
static void each_chain_is_kept_once(void **state)
{
	static const char *const chains[] = { "a\nb\n", "b\na\n", "a\n" };
	static const char *const pickles[] = {
		"](\x8c\1a\x8c\1be", "](\x8c\1b\x8c\1ae", "](\x8c\1ae",
	};
	struct metadata m = { .protocol = 4 };
	struct catalog *catalog;
	char name[16];
	unsigned i;

	(void)state;
	for (i = 0; i < 300; i++) {
		const char *pickle = pickles[i % 3];

		array_finish(&m.transforms);
		put_bytes(&m.transforms, pickle, strlen(pickle));
		snprintf(name, sizeof(name), "w%u", i);
		add_tensor(&m, name);
	}
	catalog = metadata_catalog(&m);
	assert_int_equal(catalog->transform_count, 3);
	for (i = 0; i < 300; i++)
		check_chain(catalog, i, chains[i % 3]);
	catalog_put(catalog);
}

static int read_text(const struct array *text, struct fault *fault)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct dcp_file file = { .data = text->data,
				       .size = text->size };
	unsigned bad = 0;
	int error;

	memset(fault, 0, sizeof(*fault));
	error = dcp_read(builder, &file, 1, fault, &bad);
	catalog_builder_destroy(builder);
	return error;
}

static void check_refused(const char *pickle, size_t size)
{
	struct metadata m = { .protocol = 4 };
	struct array text = { .data = NULL };
	struct fault fault;

	put_bytes(&m.transforms, pickle, size);
	add_tensor(&m, "the.tensor");
	metadata_finish(&m, &text);
	assert_int_equal(read_text(&text, &fault), -EBADMSG);
	assert_int_equal(fault.error, -EBADMSG);
	assert_non_null(strstr(fault.reason, "bad stream extensions"));
	assert_string_equal(fault.detail, "the.tensor");
	assert_true(fault.offset > 0 && fault.offset < text.size);
	array_finish(&text);
}
#define REFUSED(pickle) check_refused(pickle, sizeof(pickle) - 1)

static void lists_of_something_else(void **state)
{
	char text[600] = "](X\1\1\0\0";

	(void)state;
	REFUSED("K\1");
	REFUSED("\x8c\1a");
	REFUSED("}\x8c\1a\x8c\1bs");
	REFUSED("\x8f(\x8c\1a\x90");
	REFUSED("](K\1e");
	REFUSED("](\x8c\1aNe");
	REFUSED("](]e");
	REFUSED("](C\1ae");
	REFUSED("](\x8c\3a\nbe");
	REFUSED("](\x8c\1\0e");
	REFUSED("](\x8c\1\x1f" "e");
	REFUSED("](\x8c\1\x7f" "e");
	/* A list that holds itself. */
	REFUSED("]q\1h\1a");
	/* 9 of them, and one of 257 bytes. */
	REFUSED("](\x8c\1a\x8c\1a\x8c\1a\x8c\1a\x8c\1a\x8c\1a\x8c\1a\x8c\1a"
		"\x8c\1ae");
	memset(text + 7, 'x', 257);
	text[7 + 257] = 'e';
	check_refused(text, 7 + 257 + 1);
}

static void as_many_and_as_long_as_may_be(void **state)
{
	struct metadata m = { .protocol = 4 };
	struct catalog *catalog;
	char name[257], chain[8 * 257 + 1];
	unsigned i;

	(void)state;
	memset(name, 'x', 256);
	name[256] = '\0';
	PUT(&m.transforms, "](");
	for (i = 0; i < 8; i++) {
		put_text(&m.transforms, name);
		memset(chain + 257 * i, 'x', 256);
		chain[257 * i + 256] = '\n';
	}
	chain[257 * 8] = '\0';
	PUT(&m.transforms, "e");
	add_tensor(&m, "w");
	catalog = metadata_catalog(&m);
	check_chain(catalog, 0, chain);
	catalog_put(catalog);
}

static void put_chains(struct metadata *m, unsigned count)
{
	char name[16];
	unsigned i;

	for (i = 0; i < count; i++) {
		array_finish(&m->transforms);
		PUT(&m->transforms, "]");
		snprintf(name, sizeof(name), "x%u", i);
		put_text(&m->transforms, name);
		PUT(&m->transforms, "a");
		add_tensor(m, name);
	}
}

static void too_many_chains(void **state)
{
	struct metadata m = { .protocol = 4 };
	struct array text = { .data = NULL };
	struct fault fault;

	(void)state;
	put_chains(&m, LIMIT_TRANSFORMS);
	metadata_finish(&m, &text);
	assert_int_equal(read_text(&text, &fault), 0);
	array_finish(&text);
	put_chains(&m, LIMIT_TRANSFORMS + 1);
	metadata_finish(&m, &text);
	assert_int_equal(read_text(&text, &fault), -E2BIG);
	assert_non_null(strstr(fault.reason, "too many different stream"));
	array_finish(&text);
}

/* Processor time for 20000 items that take turns with 256 chains, the names
 * of which have the length @length and differ in the end only. */
static double time_chains(unsigned length)
{
	struct metadata m = { .protocol = 4 };
	struct array text = { .data = NULL };
	struct fault fault;
	clock_t start;
	char name[300];
	unsigned i, j;

	memset(name, 'x', sizeof(name));
	for (i = 0; i < 20000; i++) {
		array_finish(&m.transforms);
		PUT(&m.transforms, "](");
		snprintf(name + length - 3, 4, "%03u", i % 256);
		for (j = 0; j < LIMIT_TRANSFORM_DEPTH; j++)
			put_text(&m.transforms, name);
		PUT(&m.transforms, "e");
		snprintf(name + length, 16, "%u", i);
		add_tensor(&m, name + length);
	}
	metadata_finish(&m, &text);
	start = clock();
	assert_int_equal(read_text(&text, &fault), 0);
	array_finish(&text);
	return (double)(clock() - start) / CLOCKS_PER_SEC;
}

static void similar_chains_are_no_hang(void **state)
{
	double small = time_chains(3), large = time_chains(256);

	(void)state;
	print_message("%.3f s, %.3f s\n", small, large);
	assert_true(large < 20 * small + 0.1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_of_descriptors),
		cmocka_unit_test(each_chain_is_kept_once),
		cmocka_unit_test(lists_of_something_else),
		cmocka_unit_test(as_many_and_as_long_as_may_be),
		cmocka_unit_test(too_many_chains),
		cmocka_unit_test(similar_chains_are_no_hang),
	};

	return cmocka_run_group_tests_name("dcp_place", tests, NULL, NULL);
}
