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

static void note_error(struct pairs *pairs, struct pair *pair, uint64_t unit,
		       unsigned side, int error)
{
	int none = 0;

	if (atomic_compare_exchange_strong(&pair->error, &none, error))
		atomic_store(&pair->error_side, side);
	note(pairs, pair, 2 * unit + 1);
}

/* ---- tensors ------------------------------------------------------------- */

/* A range of both sides, at most LIMIT_READ_SIZE. 0, -ECANCELED when it cannot
 * be read, which was noted, or -errno. */
static int read_both(struct pairs *pairs, struct pair *pair, unsigned thread,
		     uint64_t unit, const struct parallel_scan_range *range,
		     const void *ret_data[2])
{
	unsigned side;

	for (side = 0; side < 2; side++) {
		enum dtype dtype = pair_entry(pairs, pair, side)->dtype;
		uint64_t size = dtype_info(dtype)->size;
		struct reply *reply =
			parallel_scan_reply(&pairs->replies, thread, side);
		int error;

		if (!reply)
			return -ENOMEM;
		error = parallel_scan_read(reply, pairs->checkpoints[side],
					   pair->entries[side],
					   range->begin * size,
					   (range->end - range->begin) * size,
					   &ret_data[side]);
		if (!error)
			continue;
		if (!parallel_scan_is_damage(error))
			return error;
		note_error(pairs, pair, unit, side, error);
		/* Of the threads that meet a bad item one is told why. */
		if (reply->fault.error &&
		    !atomic_exchange(&pair->explained, true))
			parallel_scan_explain(pairs->tool, pairs->paths[side],
					      pairs->checkpoints[side]->catalog,
					      pair->entries[side], reply,
					      error);
		return -ECANCELED;
	}
	return 0;
}

static void compare_range(struct pairs *pairs, struct pair *pair, uint64_t unit,
			  const struct parallel_scan_range *range,
			  const void *const data[2])
{
	enum dtype dtype = pair_entry(pairs, pair, PAIR_LEFT)->dtype;
	uint64_t count = range->end - range->begin;
	struct compare_side left = { dtype, data[PAIR_LEFT] };
	struct compare_side right = {
		pair_entry(pairs, pair, PAIR_RIGHT)->dtype, data[PAIR_RIGHT],
	};

	if (pair->has_values)
		compare_add(&pairs->parts[unit], &left, &right, count);
	else if (memcmp(data[0], data[1], count * dtype_info(dtype)->size))
		note(pairs, pair, 2 * unit);
}

static int compare_tensors(struct pairs *pairs, struct pair *pair,
			   unsigned thread, uint64_t unit,
			   struct parallel_scan_range range)
{
	uint64_t size = pairs->items[range.item].size, end = range.end;
	const void *data[2];
	int error = 0;

	for (; range.begin < end && !error; range.begin = range.end) {
		if (is_void(pair, unit))
			break;
		range.end = end;
		if (end - range.begin > LIMIT_READ_SIZE / size)
			range.end = range.begin + LIMIT_READ_SIZE / size;
		error = read_both(pairs, pair, thread, unit, &range, data);
		if (!error)
			compare_range(pairs, pair, unit, &range, data);
		tool_progress_add((range.end - range.begin) * size);
		/* Not even the rest of this unit is needed. */
		if (!pair->has_values &&
		    atomic_load(&pair->event) / 2 == unit)
			break;
	}
	return error == -ECANCELED ? 0 : error;
}

/* ---- what is not a tensor ------------------------------------------------ */

static int compare_objects(struct pairs *pairs, struct pair *pair,
			   unsigned thread, uint64_t unit)
{
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
			parallel_scan_reply(&pairs->replies, thread, side);

		if (!reply || reply_begin(reply, NULL, LIMIT_READ_SIZE))
			return -ENOMEM;
		o.buffers[side] = reply->data;
	}
	error = object_pair_compare(&o);
	if (error && !parallel_scan_is_damage(error))
		return error;
	if (error)
		note_error(pairs, pair, unit, o.side, error);
	else if (o.differ)
		note(pairs, pair, 2 * unit);
	return 0;
}

/* ---- all of them --------------------------------------------------------- */

static int compare_unit(void *context, unsigned thread, uint64_t unit)
{
	struct pairs *pairs = context;
	struct parallel_scan_range range =
		parallel_scan_range(&pairs->sweep, unit);
	struct pair *pair = &pairs->pairs[range.item];
	int error;

	if (pair_entry(pairs, pair, PAIR_LEFT)->flags & CATALOG_OBJECT)
		error = compare_objects(pairs, pair, thread, unit);
	else
		error = compare_tensors(pairs, pair, thread, unit, range);
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
	uint64_t unit;

	if (pair->event != UINT64_MAX) {
		bool unreadable = pair->event % 2 == 1;

		if (pair->state == PAIR_EQUAL)
			pair->state = unreadable ? PAIR_UNREADABLE :
						   PAIR_CHANGED;
		pair->has_values = false;
		if (unreadable && !pair->explained)
			parallel_scan_explain(
				pairs->tool, pairs->paths[pair->error_side],
				pairs->checkpoints[pair->error_side]->catalog,
				pair->entries[pair->error_side], NULL,
				pair->error);
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
