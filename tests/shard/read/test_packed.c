/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elements of 4 and 6 bits: geometry and selections against an oracle that
 * counts bits.
 */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/world.h"

#include "shard/safetensors/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BITS_MAX = 8 * 4096 };

static struct dice dice;

/* The catalog of one tensor with the sizes @written. */
static struct catalog *make(enum dtype dtype, const struct box *written)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct catalog_tensor tensor = {
		.name = "w", .name_size = 1, .dtype = dtype,
		.shape = { .ndim = written->ndim },
		.written = written->size,
	};
	struct catalog_item item = { .flags = CATALOG_RAW };
	struct fault fault;

	if (!safetensors_pack(dtype, written->ndim, written->size,
			      tensor.shape.size))
		tensor.written = NULL;
	item.size = box_volume(&tensor.shape);
	assert_int_equal(catalog_builder_file(builder, "f", 1, &item.file), 0);
	assert_int_equal(catalog_builder_begin(builder, &tensor, &fault), 0);
	assert_int_equal(catalog_builder_shard(builder, &tensor.shape, &item,
					       &fault), 0);
	assert_int_equal(catalog_builder_end(builder, &fault), 0);
	return catalog_out_finish(builder);
}

static void check_pack(enum dtype dtype, const struct box *written,
		       const uint64_t *expected)
{
	uint64_t found[LIMIT_NDIM];

	assert_true(safetensors_pack(dtype, written->ndim, written->size,
				     found));
	assert_memory_equal(found, expected,
			    written->ndim * sizeof(*expected));
}

static void known_geometry(void **state)
{
	static const struct {
		enum dtype dtype;
		struct box written;
		uint64_t packed[4];
	} rows[] = {
		{ DTYPE_F4, { 1, { 0 }, { 6 } }, { 3 } },
		{ DTYPE_F4, { 2, { 0 }, { 5, 4 } }, { 5, 2 } },
		{ DTYPE_F4, { 2, { 0 }, { 4, 3 } }, { 1, 6 } },
		{ DTYPE_F4, { 3, { 0 }, { 5, 2, 3 } }, { 5, 1, 3 } },
		{ DTYPE_F4, { 3, { 0 }, { 2, 3, 5 } }, { 1, 1, 15 } },
		{ DTYPE_F4, { 3, { 0 }, { 7, 2, 1 } }, { 7, 1, 1 } },
		{ DTYPE_F6_E2M3, { 1, { 0 }, { 4 } }, { 3 } },
		{ DTYPE_F6_E3M2, { 2, { 0 }, { 2, 4 } }, { 2, 3 } },
		{ DTYPE_F6_E3M2, { 2, { 0 }, { 2, 2 } }, { 1, 3 } },
		{ DTYPE_F6_E2M3, { 3, { 0 }, { 3, 2, 6 } }, { 3, 1, 9 } },
		/* No elements at all. */
		{ DTYPE_F4, { 1, { 0 }, { 0 } }, { 0 } },
		{ DTYPE_F4, { 2, { 0 }, { 3, 0 } }, { 3, 0 } },
		{ DTYPE_F4, { 2, { 0 }, { 0, 3 } }, { 1, 0 } },
		{ DTYPE_F4, { 2, { 0 }, { 0, 4 } }, { 0, 2 } },
		{ DTYPE_F6_E2M3, { 3, { 0 }, { 2, 0, 1 } }, { 2, 1, 0 } },
	};
	static const uint64_t plain[] = { 3, 5 };
	uint64_t found[2] = { 0, 0 };
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(rows); i++)
		check_pack(rows[i].dtype, &rows[i].written, rows[i].packed);
	assert_false(safetensors_pack(DTYPE_F8_E4M3, 2, plain, found));
	assert_memory_equal(found, plain, sizeof(plain));
	assert_false(safetensors_pack(DTYPE_F64, 0, NULL, NULL));
}

/* Mark the bits of the elements of @box in a tensor of sizes @size; false
 * when it has none. */
static bool mark(unsigned char *bits, unsigned width, const uint64_t *size,
		 const struct box *box)
{
	uint64_t at[LIMIT_NDIM] = { 0 }, element[LIMIT_NDIM];
	unsigned i;

	memset(bits, 0, BITS_MAX);
	if (box_volume(box) == 0)
		return false;
	do {
		uint64_t flat;

		for (i = 0; i < box->ndim; i++)
			element[i] = box->offset[i] + at[i];
		flat = world_flat(box->ndim, size, element) * width;
		assert_true(flat + width <= BITS_MAX);
		memset(bits + flat, 1, width);
	} while (world_step(box, at));
	return true;
}

static bool whole_bytes(const unsigned char *bits)
{
	unsigned i, j;

	for (i = 0; i < BITS_MAX; i += 8)
		for (j = 1; j < 8; j++)
			if (bits[i] != bits[i + j])
				return false;
	return true;
}

/* Does the last axis alone make whole bytes? */
static bool is_simple(unsigned width, const struct box *written)
{
	return written->size[written->ndim - 1] * width % 8 == 0;
}

static void check_selection(const struct catalog *catalog, unsigned width,
			    const struct box *written, const struct box *part)
{
	static unsigned char want[BITS_MAX], found[BITS_MAX];
	const struct catalog_entry *entry = catalog_entry(catalog, 0);
	bool some = mark(want, width, written->size, part);
	struct box shape, box, back;

	catalog_shape(catalog, entry, &shape);
	if (!catalog_select(catalog, entry, part, &box)) {
		/* Where several axes are one, only all of them is a box. */
		if (some && is_simple(width, written))
			assert_false(whole_bytes(want));
		return;
	}
	assert_int_equal(box.ndim, part->ndim);
	assert_int_equal(mark(found, 8, shape.size, &box), some);
	assert_memory_equal(found, want, BITS_MAX);
	if (!some)
		return;
	catalog_written(catalog, entry, &box, &back);
	assert_memory_equal(back.offset, part->offset,
			    part->ndim * sizeof(uint64_t));
	assert_memory_equal(back.size, part->size,
			    part->ndim * sizeof(uint64_t));
}

/* A shape that is whole bytes. */
static void random_shape(unsigned width, struct box *ret)
{
	unsigned i;

	do {
		memset(ret, 0, sizeof(*ret));
		ret->ndim = 1 + (unsigned)dice_below(&dice, 4);
		for (i = 0; i < ret->ndim; i++)
			ret->size[i] = dice_chance(&dice, 5) ? 0 :
				       1 + dice_below(&dice, 8);
	} while (box_volume(ret) * width % 8 != 0 ||
		 box_volume(ret) * width > BITS_MAX);
}

static void random_selections(void **state)
{
	static const enum dtype types[] = { DTYPE_F4, DTYPE_F6_E2M3,
					    DTYPE_F6_E3M2, DTYPE_U8 };
	unsigned i, j, taken = 0;

	(void)state;
	for (i = 0; i < 2000; i++) {
		enum dtype dtype = types[dice_below(&dice, COUNT_OF(types))];
		unsigned width = dtype_info(dtype)->bits;
		struct box written, shape, part;
		struct catalog *catalog;

		random_shape(width, &written);
		catalog = make(dtype, &written);
		catalog_written_shape(catalog, catalog_entry(catalog, 0),
				      &shape);
		assert_memory_equal(shape.size, written.size,
				    written.ndim * sizeof(uint64_t));
		assert_true(catalog_entry(catalog, 0)->size ==
			    box_volume(&written) * width / 8);
		check_selection(catalog, width, &written, &written);
		assert_true(catalog_select(catalog, catalog_entry(catalog, 0),
					   &written, &part));
		for (j = 0; j < 10; j++) {
			world_pick(&dice, &written, &part);
			check_selection(catalog, width, &written, &part);
			taken += catalog_select(catalog,
						catalog_entry(catalog, 0),
						&part, &shape);
		}
		catalog_put(catalog);
	}
	/* Both answers were seen often enough to mean something. */
	assert_true(taken > 4000 && taken < 19000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_geometry),
		cmocka_unit_test(random_selections),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("packed", tests, NULL, NULL);
}
