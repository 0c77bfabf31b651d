/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan against an element-by-element oracle: random tensors, cut at random,
 * some with holes or overlaps, random selections of them and random ranges.
 * Each element of a range is asked of the pieces: which shard, which element
 * of it, and at which place of the answer.
 */
#include "support/test.h"
#include "support/catalog_out.h"

#include "shard/read/plan.h"

#include <stdlib.h>
#include <string.h>

enum { HOLE = -1 };

static struct dice dice;

struct question {
	const struct world *world;
	const struct catalog *catalog;
	const struct catalog_entry *entry;
	struct box selection;
	uint64_t begin, end;
	int *answers;		/* the part that came last, per element */
	unsigned *counts;	/* how many pieces held it */
};

/* The part that shard @index was made of: see catalog_out_world. */
static int part_of(const struct question *q, uint64_t index)
{
	assert_true(index < q->entry->shard_count);
	return (int)catalog_shard(q->catalog, q->entry, index)->offset;
}

/* Each element of @piece lies in its part and at its place. */
static void take_piece(const struct question *q, const struct plan *plan,
		       const struct piece *piece)
{
	int part = part_of(q, piece->shard);
	struct box shard, run = { .ndim = q->entry->ndim };
	uint64_t index[LIMIT_NDIM] = { 0 }, where[LIMIT_NDIM];
	unsigned i;

	catalog_box(q->catalog, q->entry, piece->shard, &shard);
	assert_memory_equal(shard.offset, q->world->parts[part].offset,
			    shard.ndim * sizeof(uint64_t));
	memcpy(run.size, piece->count, run.ndim * sizeof(uint64_t));
	assert_true(box_volume(&run) > 0);
	do {
		uint64_t target = piece->target, flat;

		for (i = 0; i < run.ndim; i++) {
			uint64_t at = piece->offset[i] + index[i];

			assert_true(at < shard.size[i]);
			where[i] = shard.offset[i] + at -
				   q->selection.offset[i];
			assert_true(where[i] < q->selection.size[i]);
			target += index[i] * plan->stride[i];
		}
		flat = world_flat(run.ndim, q->selection.size, where);
		assert_true(target < q->end - q->begin);
		assert_int_equal(flat, q->begin + target);
		q->answers[target] = part;
		q->counts[target]++;
	} while (world_step(&run, index));
}

static void check_answers(const struct question *q)
{
	bool overlap = q->entry->flags & CATALOG_OVERLAP;
	uint64_t index[LIMIT_NDIM] = { 0 }, where[LIMIT_NDIM], flat = 0;
	unsigned i;

	if (q->begin == q->end)
		return;
	do {
		if (flat >= q->begin && flat < q->end) {
			for (i = 0; i < q->selection.ndim; i++)
				where[i] = q->selection.offset[i] + index[i];
			assert_int_equal(q->answers[flat - q->begin],
					 world_owner(q->world, where));
			if (!overlap)
				assert_int_equal(q->counts[flat - q->begin],
					q->answers[flat - q->begin] != HOLE);
		}
		flat++;
	} while (world_step(&q->selection, index));
}

static void ask(struct question *q)
{
	uint64_t count = q->end - q->begin, pieces = 0, most, i;
	struct piece piece;
	struct plan plan;

	q->answers = malloc((count + 1) * sizeof(*q->answers));
	q->counts = calloc(count + 1, sizeof(*q->counts));
	assert_true(q->answers && q->counts);
	for (i = 0; i < count; i++)
		q->answers[i] = HOLE;
	/* 2 * ndim - 1 boxes make any range. */
	most = q->entry->shard_count *
	       (q->entry->ndim ? 2 * q->entry->ndim - 1 : 1);
	plan_init(&plan, q->catalog, q->entry, &q->selection,
		  (struct plan_range){ q->begin, q->end });
	while (plan_next(&plan, &piece)) {
		assert_true(++pieces <= most);
		take_piece(q, &plan, &piece);
	}
	assert_false(plan_next(&plan, &piece));
	check_answers(q);
	free(q->answers);
	free(q->counts);
}

static void ask_about(const struct world *world, unsigned times)
{
	struct catalog *catalog = catalog_out_world(world);
	struct question q = { .world = world, .catalog = catalog,
			      .entry = catalog_entry(catalog, 0) };
	unsigned i;

	for (i = 0; i < times; i++) {
		uint64_t count;

		world_pick(&dice, &world->shape, &q.selection);
		count = box_volume(&q.selection);
		q.begin = 0;
		q.end = count;
		if (!dice_chance(&dice, 20)) {
			q.begin = dice_below(&dice, count + 1);
			q.end = q.begin +
				dice_below(&dice, count - q.begin + 1);
		}
		ask(&q);
	}
	catalog_put(catalog);
}

static void ask_worlds(unsigned worlds, unsigned times,
		       const struct world_limits *limits)
{
	unsigned i;

	for (i = 0; i < worlds; i++) {
		struct world world;

		world_make(&world, limits, &dice);
		ask_about(&world, times);
	}
}

static void tilings(void **state)
{
	const struct world_limits limits = { .ndim = 6, .volume = 400 };

	(void)state;
	ask_worlds(600, 16, &limits);
}

static void tilings_with_holes(void **state)
{
	const struct world_limits limits = {
		.ndim = 6, .volume = 300, .holes = 100,
	};

	(void)state;
	ask_worlds(200, 12, &limits);
}

static void tilings_with_overlaps(void **state)
{
	const struct world_limits limits = {
		.ndim = 6, .volume = 300, .holes = 30, .overlaps = 100,
	};

	(void)state;
	ask_worlds(200, 12, &limits);
}

/* Rows over many ranks: a range of few rows looks at few shards. */
static void few_pieces_of_many_shards(void **state)
{
	enum { SHARDS = 100000 };
	const struct box shape = BOX2(0, 0, 4 * SHARDS, 8);
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct catalog *catalog;
	struct piece piece;
	struct plan plan;
	uint64_t i;

	(void)state;
	catalog_out_begin(builder, "w", DTYPE_F32, &shape);
	for (i = SHARDS; i > 0; i--)
		catalog_out_shard(builder, BOX2(4 * (i - 1), 0, 4, 8), "f",
				  i - 1, 1);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	for (i = 0; i < 100000; i++) {
		uint64_t row = dice_below(&dice, 4 * SHARDS - 1);

		plan_init(&plan, catalog, catalog_entry(catalog, 0), &shape,
			  (struct plan_range){ row * 8, row * 8 + 8 });
		assert_true(plan_next(&plan, &piece));
		assert_int_equal(piece.shard, row / 4);
		assert_int_equal(piece.offset[0], row % 4);
		assert_false(plan_next(&plan, &piece));
	}
	catalog_put(catalog);
}

/* Numbers beyond 32 bits. */
static void huge_axes(void **state)
{
	const uint64_t half = UINT64_C(5) << 32;
	const struct box shape = BOX2(0, 0, 2 * half, 3);
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct catalog *catalog;
	struct piece piece;
	struct plan plan;

	(void)state;
	catalog_out_begin(builder, "w", DTYPE_U8, &shape);
	catalog_out_shard(builder, BOX2(0, 0, half, 3), "f", 0, 1);
	catalog_out_shard(builder, BOX2(half, 0, half, 3), "f", 1, 1);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	plan_init(&plan, catalog, catalog_entry(catalog, 0), &shape,
		  (struct plan_range){ 3 * half - 1, 3 * half + 2 });
	assert_true(plan_next(&plan, &piece));
	assert_int_equal(piece.shard, 0);
	assert_true(piece.offset[0] == half - 1);
	assert_int_equal(piece.offset[1], 2);
	assert_int_equal(piece.target, 0);
	assert_true(plan_next(&plan, &piece));
	assert_int_equal(piece.shard, 1);
	assert_int_equal(piece.offset[0], 0);
	assert_int_equal(piece.target, 1);
	assert_int_equal(piece.count[1], 2);
	assert_false(plan_next(&plan, &piece));
	catalog_put(catalog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tilings),
		cmocka_unit_test(tilings_with_holes),
		cmocka_unit_test(tilings_with_overlaps),
		cmocka_unit_test(few_pieces_of_many_shards),
		cmocka_unit_test(huge_axes),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
