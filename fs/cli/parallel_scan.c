/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/parallel_scan.h"

#include "shard/read/virtual_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a unit at least, and units at most, but one for each item. */
#define UNIT_SIZE (4 * (uint64_t)MIB)
enum { UNITS_MAX = 65536 };

/* ---- units --------------------------------------------------------------- */

static uint64_t count_units(const struct parallel_scan *sweep,
			    const struct parallel_scan_item *item)
{
	uint64_t each = sweep->unit_size / item->size;

	return item->count / each + (item->count % each != 0);
}

int parallel_scan_init(struct parallel_scan *sweep,
		       const struct parallel_scan_item *items, uint64_t count)
{
	uint64_t i;

	*sweep = (struct parallel_scan){ .items = items,
					 .count = count,
					 .unit_size = UNIT_SIZE };
	sweep->first = calloc(count + 1, sizeof(*sweep->first));
	if (!sweep->first)
		return -ENOMEM;
	/* Tensors of a hostile checkpoint may claim more than 2^64 bytes
	 * together; each has far less. */
	for (i = 0; i < count; i++)
		if (__builtin_add_overflow(sweep->size,
					   items[i].count * items[i].size,
					   &sweep->size))
			sweep->size = UINT64_MAX;
	while (sweep->size / sweep->unit_size > UNITS_MAX)
		sweep->unit_size *= 2;
	for (i = 0; i < count; i++)
		sweep->first[i + 1] = sweep->first[i] +
				      count_units(sweep, &items[i]);
	return 0;
}

void parallel_scan_finish(struct parallel_scan *sweep)
{
	free(sweep->first);
	sweep->first = NULL;
}

struct parallel_scan_range
parallel_scan_range(const struct parallel_scan *sweep, uint64_t unit)
{
	uint64_t low = 0, high = sweep->count, each;
	struct parallel_scan_range range;

	/* The last item that begins at or before the unit: empty ones have
	 * none, and are passed. */
	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;

		if (sweep->first[middle] <= unit)
			low = middle;
		else
			high = middle;
	}
	each = sweep->unit_size / sweep->items[low].size;
	range.item = low;
	range.begin = (unit - sweep->first[low]) * each;
	range.end = range.begin + each;
	if (range.end > sweep->items[low].count)
		range.end = sweep->items[low].count;
	return range;
}

/* ---- reading ------------------------------------------------------------- */

struct reply *parallel_scan_reply(struct parallel_scan_replies *replies,
				  unsigned thread, unsigned side)
{
	struct reply **reply = &replies->replies[thread][side];

	if (!*reply)
		*reply = reply_create();
	return *reply;
}

void parallel_scan_replies_finish(struct parallel_scan_replies *replies)
{
	unsigned i;

	for (i = 0; i < TOOL_THREADS_MAX; i++) {
		reply_destroy(replies->replies[i][0]);
		reply_destroy(replies->replies[i][1]);
	}
}

int parallel_scan_read(struct reply *reply,
		       const struct parallel_scan_entry *what, uint64_t offset,
		       uint64_t size, const void **ret_data)
{
	struct virtual_file_origin origin = {
		.catalog = what->checkpoint->catalog, .entry = what->entry,
	};
	struct virtual_file *content;
	int error;

	catalog_shape(origin.catalog,
		      catalog_entry(origin.catalog, what->entry),
		      &origin.selection);
	error = reply_begin(reply, NULL, size);
	if (!error)
		error = virtual_file_raw(&origin, &content);
	if (error)
		return error;
	error = virtual_file_read(content, checkpoint_source(what->checkpoint),
				  offset, reply);
	virtual_file_put(content);
	if (!error)
		*ret_data = reply->data;
	return error;
}

bool parallel_scan_is_damage(int error)
{
	return error == -EIO || error == -EOPNOTSUPP || error == -E2BIG;
}

/* @reply may be NULL: it is not known what is wrong. */
static void explain(const struct tool *tool,
		    const struct parallel_scan_entry *what,
		    const struct reply *reply, int error)
{
	const struct catalog *catalog = what->checkpoint->catalog;
	const struct fault *fault = reply ? &reply->fault : NULL;
	struct array name = { .data = NULL };

	if (tool_print_name(catalog, catalog_entry(catalog, what->entry),
			    &name))
		tool_fail(tool, "%s: %s", what->path, strerror(ENOMEM));
	else if (fault)
		tool_fail(tool, "%s: %s: %s: byte %" PRIu64 ": %s%s%s",
			  what->path, name.data, reply->fault_file,
			  fault->offset, fault->reason,
			  *fault->detail ? ": " : "", fault->detail);
	else
		tool_fail(tool, "%s: %s: %s", what->path, name.data,
			  strerror(-error));
	array_finish(&name);
}

bool parallel_scan_fail(struct parallel_scan_failure *failure,
			const struct tool *tool,
			const struct parallel_scan_entry *what,
			const struct reply *reply, int error)
{
	int none = 0;
	bool first = atomic_compare_exchange_strong(&failure->error, &none,
						    error);

	if (reply && reply->fault.error &&
	    !atomic_exchange(&failure->explained, true))
		explain(tool, what, reply, error);
	return first;
}

void parallel_scan_end(const struct parallel_scan_failure *failure,
		       const struct tool *tool,
		       const struct parallel_scan_entry *what)
{
	int error = atomic_load(&failure->error);

	if (error && !atomic_load(&failure->explained))
		explain(tool, what, NULL, error);
}
