/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/stat_run.h"

#include "shard/values/convert.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
"usage: ckptfs stat [--json] SRC [GLOB]\n"
"\n"
"For each tensor of the checkpoint SRC, a folder or one safetensors file, or\n"
"for those whose names match GLOB, in which a star matches dots and slashes,\n"
"too: smallest and largest value, mean, standard deviation (of the population:\n"
"divided by N), and how many elements are zero, NaN and infinite. NaN and\n"
"infinity are left out of all the rest. Of complex numbers it is the absolute\n"
"value that counts. Types without values, such as float4 and quantized ones,\n"
"have dashes. What is not a tensor is not listed.\n"
"\n"
"    --json             an object a line, as in tensors.json, with min, max,\n"
"                       mean, std, zeros, nan and inf, null where there is\n"
"                       none; and in the end {\"summary\": ...}\n"
"\n"
"Exit status: 0, 1 when a tensor cannot be read, which is said on standard\n"
"error, or nothing matches GLOB, 2 when SRC could not be read.\n";

/* ---- reading ------------------------------------------------------------- */

static int find_tensors(struct stat_run *run)
{
	const struct catalog *catalog = run->catalog;
	uint64_t i;

	run->tensors = calloc(catalog->tensor_count + 1,
			      sizeof(*run->tensors));
	run->items = calloc(catalog->tensor_count + 1, sizeof(*run->items));
	if (!run->tensors || !run->items)
		return -ENOMEM;
	for (i = 0; i < catalog->tensor_count; i++) {
		const struct catalog_entry *entry = catalog_entry(catalog, i);
		uint64_t size = dtype_info(entry->dtype)->size;

		if (!tool_matches(catalog, entry, run->glob))
			continue;
		run->tensors[run->count].entry = i;
		run->items[run->count] = (struct parallel_scan_item){ 0, 1 };
		if (convert_has_value(entry->dtype))
			run->items[run->count] =
				(struct parallel_scan_item){ entry->size / size,
							     size };
		run->count++;
	}
	return 0;
}

static struct parallel_scan_entry entry_of(const struct stat_run *run,
					   const struct stat_tensor *tensor)
{
	return (struct parallel_scan_entry){ run->path, run->checkpoint,
					     tensor->entry };
}

static int read_unit(void *context, unsigned thread, uint64_t unit)
{
	struct stat_run *run = context;
	struct parallel_scan_range range =
		parallel_scan_range(&run->sweep, unit);
	struct stat_tensor *tensor = &run->tensors[range.item];
	const struct parallel_scan_entry what = entry_of(run, tensor);
	uint64_t size = run->items[range.item].size, count;
	struct reply *reply = parallel_scan_reply(&run->replies, thread, 0);
	enum dtype dtype = catalog_entry(run->catalog, tensor->entry)->dtype;
	const void *data;
	int error = reply ? 0 : -ENOMEM;

	for (; range.begin < range.end && !error; range.begin += count) {
		if (atomic_load(&tensor->failure.error))
			break;
		count = range.end - range.begin;
		if (count > LIMIT_READ_SIZE / size)
			count = LIMIT_READ_SIZE / size;
		error = parallel_scan_read(reply, &what, range.begin * size,
					   count * size, &data);
		if (!error)
			statistics_add(&run->parts[unit], dtype, data, count);
		/* A tensor that cannot be read does not stop the others. */
		if (parallel_scan_is_damage(error)) {
			parallel_scan_fail(&tensor->failure, &tool_stat, &what,
					   reply, error);
			error = 0;
		}
		reply_release(reply);
		tool_progress_add(count * size);
	}
	return error;
}

static int read_all(struct stat_run *run)
{
	struct tool_job job = { .work = read_unit, .context = run };
	uint64_t i;
	int error = parallel_scan_init(&run->sweep, run->items, run->count);

	if (error)
		return error;
	job.count = run->sweep.first[run->count];
	run->parts = calloc(job.count + 1, sizeof(*run->parts));
	if (!run->parts)
		return -ENOMEM;
	tool_progress_begin(run->sweep.size);
	error = tool_work(&job);
	tool_progress_end();
	for (i = 0; i < run->count && !error; i++) {
		const struct parallel_scan_entry what =
			entry_of(run, &run->tensors[i]);

		parallel_scan_end(&run->tensors[i].failure, &tool_stat, &what);
	}
	return error;
}

uint64_t stat_count_unreadable(const struct stat_run *run)
{
	uint64_t i, count = 0;

	for (i = 0; i < run->count; i++)
		count += run->tensors[i].failure.error != 0;
	return count;
}

/* ---- all of it ----------------------------------------------------------- */

static enum tool_status describe(struct stat_run *run)
{
	struct checkpoint *checkpoint;
	enum tool_status status = TOOL_GOOD;
	int error = tool_open(&tool_stat, run->path, &checkpoint);

	if (error)
		return tool_open_status(error);
	run->checkpoint = checkpoint;
	run->catalog = checkpoint->catalog;
	error = find_tensors(run);
	if (!error)
		error = read_all(run);
	if (!error)
		error = stat_print(run);
	if (error) {
		status = tool_fail(&tool_stat, "%s: %s", run->path,
				   error == -ESTALE ?
				   "the checkpoint changed meanwhile" :
				   strerror(-error));
	} else if (run->glob && run->count == 0) {
		tool_fail(&tool_stat, "%s: no name matches", run->glob);
		status = TOOL_BAD;
	} else if (stat_count_unreadable(run) > 0) {
		status = TOOL_BAD;
	}
	parallel_scan_replies_finish(&run->replies);
	parallel_scan_finish(&run->sweep);
	free(run->parts);
	free(run->items);
	free(run->tensors);
	checkpoint_close(checkpoint);
	return status;
}

static enum tool_status run_stat(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	struct stat_run run = { .path = NULL };
	int option;

	for (;;) {
		option = getopt_long(argc, argv, "", options, NULL);
		if (option < 0)
			break;
		if (option != 'j')
			return tool_usage(&tool_stat, "bad arguments");
		run.json = true;
	}
	if (argc - optind < 1 || argc - optind > 2)
		return tool_usage(&tool_stat,
				  "SRC is needed, and at most GLOB");
	run.path = argv[optind];
	run.glob = argc - optind == 2 ? argv[optind + 1] : NULL;
	return describe(&run);
}

const struct tool tool_stat = {
	.name = "stat",
	.summary = "smallest, largest, mean and other figures of each tensor",
	.help = help,
	.run = run_stat,
};
