/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What catalog_builder.c makes of what it is given, and catalog_check.c
 * refuses.
 */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/refusal.h"

#include "shard/base/hash.h"
#include "shard/catalog/catalog_check.h"
#include "shard/catalog/catalog_layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *at(struct catalog *c, uint64_t offset)
{
	return (char *)c + offset;
}

static struct catalog_entry *first_entry(struct catalog *c)
{
	return at(c, c->entries);
}

static uint32_t *slots(struct catalog *c)
{
	return at(c, c->tensor_slots);
}

/* The builder takes any chain. */
static void check_chain(const char *chain, size_t size, bool good)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct catalog *catalog;
	uint32_t flags;

	assert_int_equal(catalog_builder_transform(builder, chain, size,
						   &flags), 0);
	catalog = catalog_out_finish(builder);
	if (good)
		assert_int_equal(catalog_check(catalog, catalog->size, NULL),
				 0);
	else
		refusal_catalog(catalog, catalog->size, "bad stream extensions");
	catalog_put(catalog);
}

static void chains(void **state)
{
	char line[LIMIT_TRANSFORM_NAME + 3];

	(void)state;
	check_chain("a\nb\n", 4, true);
	check_chain("\n\n\n\n\n\n\n\n", LIMIT_TRANSFORM_DEPTH, true);
	check_chain("\n\n\n\n\n\n\n\n\n", LIMIT_TRANSFORM_DEPTH + 1, false);
	check_chain("a\nb", 3, false);
	check_chain("a\tb\n", 4, false);
	check_chain("a\177\n", 3, false);
	check_chain("a\0\n", 3, false);
	memset(line, 'x', sizeof(line));
	line[LIMIT_TRANSFORM_NAME] = '\n';
	check_chain(line, LIMIT_TRANSFORM_NAME + 1, true);
	line[LIMIT_TRANSFORM_NAME] = 'x';
	line[LIMIT_TRANSFORM_NAME + 1] = '\n';
	check_chain(line, LIMIT_TRANSFORM_NAME + 2, false);
}

/* The builder takes names of any size. */
static void long_names(void **state)
{
	static char name[LIMIT_PATH_SIZE + 1];
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct catalog_tensor tensor = {
		.name = "w", .name_size = 1, .type_name = name,
		.type_name_size = LIMIT_TYPE_NAME_SIZE + 1,
	};
	struct catalog *catalog;
	struct fault fault;
	uint32_t index;

	(void)state;
	memset(name, 'x', sizeof(name));
	assert_int_equal(catalog_builder_begin(builder, &tensor, &fault), 0);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	refusal_catalog(catalog, catalog->size, "name of a type");
	catalog_put(catalog);
	builder = catalog_out_create(&notes);
	assert_int_equal(catalog_builder_file(builder, name, sizeof(name),
					      &index), 0);
	catalog = catalog_out_finish(builder);
	refusal_catalog(catalog, catalog->size, "path beyond");
	catalog_put(catalog);
}

/* What the last entry leaves behind: a shard without numbers, and numbers
 * without a shard. */
static void left_over(void **state)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct box box = { .ndim = 0 };
	struct catalog *catalog;

	(void)state;
	catalog_out_begin(builder, "w", DTYPE_F32, &box);
	catalog_out_shard(builder, box, "f", 0, 1);
	catalog_out_shard(builder, box, "f", 1, 1);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	first_entry(catalog)->shard_count = 1;
	catalog_hash(catalog, catalog->hash);
	refusal_catalog(catalog, catalog->size, "of no entry");
	catalog_put(catalog);
	builder = catalog_out_create(&notes);
	box.ndim = 3;
	memset(box.size, 0, sizeof(box.size));
	catalog_out_begin(builder, "w", DTYPE_F32, &box);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	first_entry(catalog)->ndim = 2;
	catalog_hash(catalog, catalog->hash);
	refusal_catalog(catalog, catalog->size, "of no entry");
	catalog_put(catalog);
}

static void add_scalar(struct catalog_builder *builder, const char *name)
{
	const struct box scalar = { .ndim = 0 };

	catalog_out_begin(builder, name, DTYPE_F32, &scalar);
	catalog_out_shard(builder, scalar, "f", 0, 1);
	catalog_out_end(builder);
}

static void one_name_twice(void **state)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct catalog *catalog;

	(void)state;
	add_scalar(builder, "a");
	add_scalar(builder, "b");
	add_scalar(builder, "a");
	catalog = catalog_out_finish(builder);
	refusal_catalog(catalog, catalog->size, "two entries of one name");
	catalog_put(catalog);
}

enum { SEED = 1, HOMES = 16 };

/* @count names that were chosen for a seed: all belong to a few slots. */
static struct catalog *crowd(unsigned count, uint64_t slot_count)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct catalog *catalog;
	uint64_t homes[2 * LIMIT_SLOT_RUN], home, i;
	unsigned made = 0;
	char name[24];

	for (i = 0; made < count; i++) {
		int size = snprintf(name, sizeof(name), "n%d", (int)i);

		home = hash_64(name, (size_t)size, SEED) % slot_count;
		if (home >= HOMES)
			continue;
		homes[made++] = home;
		add_scalar(builder, name);
	}
	catalog = catalog_out_finish(builder);
	assert_int_equal(catalog->tensor_slot_count, slot_count);
	catalog->seed = SEED;
	memset(slots(catalog), 0, slot_count * sizeof(uint32_t));
	for (made = 0; made < count; made++) {
		for (i = homes[made]; slots(catalog)[i]; i++)
			;
		slots(catalog)[i] = made + 1;
	}
	return catalog;
}

static void crowded_table(void **state)
{
	struct catalog *catalog = crowd(LIMIT_SLOT_RUN, 2 * LIMIT_SLOT_RUN);

	(void)state;
	assert_int_equal(catalog_check(catalog, catalog->size, NULL), 0);
	catalog_put(catalog);
	catalog = crowd(LIMIT_SLOT_RUN + 1, 4 * LIMIT_SLOT_RUN);
	refusal_catalog(catalog, catalog->size, "too similar hashes");
	catalog_put(catalog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chains),
		cmocka_unit_test(long_names),
		cmocka_unit_test(left_over),
		cmocka_unit_test(one_name_twice),
		cmocka_unit_test(crowded_table),
	};

	return cmocka_run_group_tests_name("catalog_refusal_built", tests,
					   NULL, NULL);
}
