/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A unit in which a pair differs, or cannot be read, makes all later ones of
 * the pair void; earlier ones have begun already, or will. So the first such
 * unit decides, whichever thread comes first.
 *
 * With values all units count, and only one that cannot be read ends a pair.
 */
#include "fs/cli/pairs.h"

#include "fs/cli/object_pair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- events -------------------------------------------------------------- */

static void note(struct pairs *pairs, struct pair *pair, uint64_t event)
{
	uint64_t before = atomic_load(&pair->event);

	while (event < before &&
	       !atomic_compare_exchange_weak(&pair->event, &before, event))
		;
	atomic_store(&pairs->different, true);
}

/* What is found later than what is known already does not matter. */
static bool is_void(const struct pair *pair, uint64_t unit)
{
	return atomic_load(&pair->event) / 2 < unit;
}

static struct parallel_scan_entry entry_of(const struct pairs *pairs,
					   const struct pair *pair,
					   unsigned side)
{
	return (struct parallel_scan_entry){
		pairs->paths[side], pairs->checkpoints[side],
		pair->entries[side],
	};
}

/* A unit at work. */
struct pair_unit {
	struct pairs *pairs;
	struct pair *pair;
	unsigned thread;
	uint64_t index;			/* of the unit */
	struct parallel_scan_range range; /* at hand, of the pair's tensors */
	const void *data[2];		/* it, of both sides */
};

/* The side @side could not be read into @reply, which may be NULL. */
static void note_failure(struct pair_unit *unit, unsigned side,
			 const struct reply *reply, int error)
{
	struct pair *pair = unit->pair;
	const struct parallel_scan_entry what =
		entry_of(unit->pairs, pair, side);

	if (parallel_scan_fail(&pair->failure, unit->pairs->tool, &what, reply,
			       error))
		atomic_store(&pair->failed_side, side);
	note(unit->pairs, pair, 2 * unit->index + 1);
}

/* ---- tensors ------------------------------------------------------------- */

/* The range of one side, at most LIMIT_READ_SIZE. 0, -ECANCELED when it cannot
 * be read, which was noted, or -errno. */
static int read_side(struct pair_unit *unit, unsigned side)
{
	const struct parallel_scan_range *range = &unit->range;
	const struct parallel_scan_entry what =
		entry_of(unit->pairs, unit->pair, side);
	enum dtype dtype = pair_entry(unit->pairs, unit->pair, side)->dtype;
	uint64_t size = dtype_info(dtype)->size;
	struct reply *reply = parallel_scan_reply(&unit->pairs->replies,
						  unit->thread, side);
	int error;

	if (!reply)
		return -ENOMEM;
	error = parallel_scan_read(reply, &what, range->begin * size,
				   (range->end - range->begin) * size,
				   &unit->data[side]);
	if (!parallel_scan_is_damage(error))
		return error;
	note_failure(unit, side, reply, error);
	return -ECANCELED;
}

static void compare_range(struct pair_unit *unit)
{
	struct pairs *pairs = unit->pairs;
	struct pair *pair = unit->pair;
	enum dtype dtype = pair_entry(pairs, pair, PAIR_LEFT)->dtype;
	uint64_t count = unit->range.end - unit->range.begin;
	struct compare_side left = { dtype, unit->data[PAIR_LEFT] };
	struct compare_side right = {
		pair_entry(pairs, pair, PAIR_RIGHT)->dtype,
		unit->data[PAIR_RIGHT],
	};

	if (pair->has_values)
		compare_add(&pairs->parts[unit->index], &left, &right, count);
	else if (memcmp(left.data, right.data,
			count * dtype_info(dtype)->size))
		note(pairs, pair, 2 * unit->index);
}

static int compare_tensors(struct pair_unit *unit)
{
	struct parallel_scan_range *range = &unit->range;
	uint64_t size = unit->pairs->items[range->item].size, end = range->end;
	int error = 0;

	for (; range->begin < end && !error; range->begin = range->end) {
		if (is_void(unit->pair, unit->index))
			break;
		range->end = end;
		if (end - range->begin > LIMIT_READ_SIZE / size)
			range->end = range->begin + LIMIT_READ_SIZE / size;
		error = read_side(unit, PAIR_LEFT);
		if (!error)
			error = read_side(unit, PAIR_RIGHT);
		if (!error)
			compare_range(unit);
		tool_progress_add((range->end - range->begin) * size);
		/* Not even the rest of this unit is needed. */
		if (!unit->pair->has_values &&
		    atomic_load(&unit->pair->event) / 2 == unit->index)
			break;
	}
	return error == -ECANCELED ? 0 : error;
}

/* ---- what is not a tensor ------------------------------------------------ */

static int compare_objects(struct pair_unit *unit)
{
	struct pairs *pairs = unit->pairs;
	struct pair *pair = unit->pair;
	struct object_pair o = {
		.checkpoints = { pairs->checkpoints[0],
				 pairs->checkpoints[1] },
		.entries = { pair_entry(pairs, pair, PAIR_LEFT),
			     pair_entry(pairs, pair, PAIR_RIGHT) },
	};
	unsigned side;
	int error;

	for (side = 0; side < 2; side++) {
		struct reply *reply =
			parallel_scan_reply(&pairs->replies, unit->thread,
					    side);

		if (!reply || reply_begin(reply, NULL, LIMIT_READ_SIZE))
			return -ENOMEM;
		o.buffers[side] = reply->data;
	}
	error = object_pair_compare(&o);
	if (error && !parallel_scan_is_damage(error))
		return error;
	if (error)
		note_failure(unit, o.side, NULL, error);
	else if (o.differ)
		note(pairs, pair, 2 * unit->index);
	return 0;
}

/* ---- all of them --------------------------------------------------------- */

static int compare_unit(void *context, unsigned thread, uint64_t index)
{
	struct pairs *pairs = context;
	struct pair_unit unit = {
		.pairs = pairs, .thread = thread, .index = index,
		.range = parallel_scan_range(&pairs->sweep, index),
	};
	int error;

	unit.pair = &pairs->pairs[unit.range.item];
	if (pair_entry(pairs, unit.pair, PAIR_LEFT)->flags & CATALOG_OBJECT)
		error = compare_objects(&unit);
	else
		error = compare_tensors(&unit);
	if (!error && pairs->hasty && atomic_load(&pairs->different))
		error = -ECANCELED;
	return error;
}

/* Elements to read; what is not a tensor is one. */
static struct parallel_scan_item make_item(const struct pairs *pairs,
					   const struct pair *pair)
{
	const struct catalog_entry *a = pair_entry(pairs, pair, PAIR_LEFT);
	const struct catalog_entry *b = pair_entry(pairs, pair, PAIR_RIGHT);
	uint64_t left, right;

	if (!pair->read)
		return (struct parallel_scan_item){ 0, 1 };
	if (a->flags & CATALOG_OBJECT)
		return (struct parallel_scan_item){ 1, 1 };
	left = dtype_info(a->dtype)->size;
	right = dtype_info(b->dtype)->size;
	/* A type that is not read: reading the first byte says so. */
	if (left == 0)
		return (struct parallel_scan_item){ 1, 1 };
	return (struct parallel_scan_item){ a->size / left,
					    left > right ? left : right };
}

/* What was found of @pair, whose units are done. */
static void conclude(struct pairs *pairs, uint64_t index)
{
	struct pair *pair = &pairs->pairs[index];
	struct parallel_scan_entry what;
	uint64_t unit;

	if (pair->event != UINT64_MAX) {
		bool unreadable = pair->event % 2 == 1;

		if (pair->state == PAIR_EQUAL)
			pair->state = unreadable ? PAIR_UNREADABLE :
						   PAIR_CHANGED;
		pair->has_values = false;
		what = entry_of(pairs, pair, pair->failed_side);
		if (unreadable)
			parallel_scan_end(&pair->failure, pairs->tool, &what);
		return;
	}
	if (!pair->has_values)
		return;
	for (unit = pairs->sweep.first[index];
	     unit < pairs->sweep.first[index + 1]; unit++)
		compare_merge(&pair->comparison, &pairs->parts[unit]);
	if (pair->comparison.first != COMPARE_NONE &&
	    pair->state == PAIR_EQUAL) {
		pair->state = PAIR_CHANGED;
		pairs->different = true;
	}
}

static int make_sweep(struct pairs *pairs)
{
	uint64_t i, units;
	int error;

	pairs->items = calloc(pairs->count + 1, sizeof(*pairs->items));
	if (!pairs->items)
		return -ENOMEM;
	for (i = 0; i < pairs->count; i++)
		pairs->items[i] = make_item(pairs, &pairs->pairs[i]);
	error = parallel_scan_init(&pairs->sweep, pairs->items, pairs->count);
	if (error || !pairs->values)
		return error;
	units = pairs->sweep.first[pairs->count];
	pairs->parts = calloc(units + 1, sizeof(*pairs->parts));
	if (!pairs->parts)
		return -ENOMEM;
	for (i = 0; i < units; i++)
		pairs->parts[i] = COMPARISON_NONE;
	return 0;
}

int pairs_compare(struct pairs *pairs)
{
	struct tool_job job = { .work = compare_unit, .context = pairs };
	uint64_t i;
	int error;

	if (pairs->hasty && pairs->different)
		return 0;
	error = make_sweep(pairs);
	if (error)
		return error;
	job.count = pairs->sweep.first[pairs->count];
	tool_progress_begin(pairs->sweep.size);
	error = tool_work(&job);
	tool_progress_end();
	if (error == -ECANCELED)
		error = 0;
	for (i = 0; i < pairs->count && !error; i++)
		conclude(pairs, i);
	return error;
}
