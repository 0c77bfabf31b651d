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

int parallel_scan_read(struct reply *reply, const struct checkpoint *checkpoint,
		       uint64_t entry, uint64_t offset, uint64_t size,
		       const void **ret_data)
{
	struct virtual_file_origin origin = { .catalog = checkpoint->catalog,
					      .entry = entry };
	struct virtual_file *content;
	int error;

	catalog_shape(origin.catalog, catalog_entry(origin.catalog, entry),
		      &origin.selection);
	error = reply_begin(reply, NULL, size);
	if (!error)
		error = virtual_file_raw(&origin, &content);
	if (error)
		return error;
	error = virtual_file_read(content, checkpoint_source(checkpoint),
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

void parallel_scan_explain(const struct tool *tool, const char *path,
			   const struct catalog *catalog, uint64_t entry,
			   const struct reply *reply, int error)
{
	const struct fault *fault = reply ? &reply->fault : NULL;
	struct array name = { .data = NULL };

	if (tool_print_name(catalog, catalog_entry(catalog, entry), &name))
		tool_fail(tool, "%s: %s", path, strerror(ENOMEM));
	else if (fault && fault->error)
		tool_fail(tool, "%s: %s: %s: byte %" PRIu64 ": %s%s%s", path,
			  name.data, reply->fault_file, fault->offset,
			  fault->reason, *fault->detail ? ": " : "",
			  fault->detail);
	else
		tool_fail(tool, "%s: %s: %s", path, name.data,
			  error == -ESTALE ?
			  "the checkpoint changed meanwhile" :
			  strerror(-error));
	array_finish(&name);
}
