/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/tool.h"

#include "fs/cli/columns.h"
#include "fs/cli/summary.h"
#include "shard/catalog/catalog_json.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Characters of a column at most: what is longer moves the rest of its line
 * to the right. */
enum { NAME_WIDTH_MAX = 60, SHAPE_WIDTH_MAX = 24, TYPE_WIDTH_MAX = 16 };

struct ls {
	const struct checkpoint *checkpoint;
	const struct catalog *catalog;
	struct owned_catalog owned;
	const char *glob;
	bool shards, json;
	struct array line, cell;	/* owned; at hand */
	size_t name_width, type_width, shape_width;
	uint64_t matched;
};

static const char help[] =
"usage: ckptfs ls [-l] [--json] SRC [GLOB]\n"
"\n"
"List what the checkpoint SRC holds, a folder or one safetensors file: name,\n"
"type, shape, size and shards of each tensor, or of those whose names match\n"
"GLOB, in which a star matches dots and slashes, too. What is not a tensor\n"
"has the type \"object\". Then come the totals for each key of the state dict,\n"
"the format, the release of torch as far as its metadata tells, files that do\n"
"not belong to the checkpoint, and its state.\n"
"\n"
"    -l, --shards       each shard as well: its box as a slice, its file, and\n"
"                       offset and size of the stored item in bytes; and what\n"
"                       is missing\n"
"    --json             an object a line, as in tensors.json, and in the end\n"
"                       {\"summary\": ...}\n"
"\n"
"Exit status: 0, 1 when the checkpoint is damaged, incomplete or still being\n"
"written, or nothing matches GLOB, 2 when SRC could not be read.\n";

/* ---- a line -------------------------------------------------------------- */

/* Append @print's text for @entry as a column of @width. */
static int print_cell(struct ls *ls, const struct catalog_entry *entry,
		      int (*print)(const struct catalog *catalog,
				   const struct catalog_entry *entry,
				   struct array *out), size_t width)
{
	int error;

	ls->cell.size = 0;
	error = print(ls->catalog, entry, &ls->cell);
	if (!error)
		error = columns_cell(&ls->cell, width, false, &ls->line);
	return error ? error : tool_print(&ls->line, "  ");
}

static int print_line(struct ls *ls, const struct catalog_entry *entry)
{
	struct array *out = &ls->line;
	char size[16];
	int error = print_cell(ls, entry, tool_print_name, ls->name_width);

	if (!error)
		error = print_cell(ls, entry, columns_type, ls->type_width);
	if (!error)
		error = print_cell(ls, entry, columns_shape, ls->shape_width);
	tool_format_size(entry->size, size);
	if (!error)
		error = tool_print(out, "%10s  %" PRIu32 " shard%s%s%s\n",
				   size, entry->shard_count,
				   entry->shard_count == 1 ? "" : "s",
				   entry->flags & CATALOG_HOLES ?
				   ", with holes" : "",
				   entry->flags & CATALOG_OVERLAP ?
				   ", overlapping" : "");
	return error;
}

static int print_shard(struct ls *ls, const struct catalog_entry *entry,
		       uint64_t index)
{
	const struct catalog_shard *shard =
		catalog_shard(ls->catalog, entry, index);
	struct array *out = &ls->line;
	const struct catalog_file *file;
	struct box box, shape;
	int error;

	catalog_shape(ls->catalog, entry, &shape);
	catalog_box(ls->catalog, entry, index, &box);
	error = tool_print(out, "    ");
	if (!error)
		error = tool_print_box(&box, &shape, out);
	if (error)
		return error;
	if (shard->file == CATALOG_NO_FILE)
		return tool_print(out, "  missing\n");
	file = catalog_file(ls->catalog, shard->file);
	error = tool_print(out, "  ");
	if (!error)
		error = tool_print_text(catalog_text(ls->catalog, file->path),
					file->path_size, out);
	if (!error)
		error = tool_print(out, "  %" PRIu64 "  %" PRIu64 "\n",
				   shard->offset, shard->size);
	return error;
}

/* ---- JSON ---------------------------------------------------------------- */

static uint64_t json_limit(const struct catalog *catalog)
{
	return catalog->size * LIMIT_JSON_FACTOR + LIMIT_JSON_SLACK;
}

/* Keyed as a tensor is, as far as it has the same. */
static int print_json_object(struct ls *ls, const struct catalog_entry *entry)
{
	struct array *out = &ls->line;
	int error = tool_print(out, "{");

	if (!error)
		error = columns_json(ls->catalog, entry, out);
	if (!error)
		error = tool_print(out, ",\"shards\":");
	if (!error)
		error = catalog_json_shards(&ls->owned, entry, NULL,
					    json_limit(ls->catalog), out);
	return error ? error : tool_print(out, "}\n");
}

static int print_json(struct ls *ls, uint64_t index)
{
	const struct catalog_entry *entry = catalog_entry(ls->catalog, index);
	int error;

	if (entry->flags & CATALOG_OBJECT)
		return print_json_object(ls, entry);
	error = catalog_json_tensor(&ls->owned, index,
				    json_limit(ls->catalog), &ls->line);
	return error ? error : tool_print(&ls->line, "\n");
}

/* ---- all of them --------------------------------------------------------- */

static uint64_t entry_count(const struct ls *ls)
{
	return ls->catalog->tensor_count + ls->catalog->object_count;
}

static void widen(size_t *width, const struct array *text, size_t limit)
{
	size_t count = columns_width(text);

	if (count > limit)
		count = limit;
	if (count > *width)
		*width = count;
}

static int measure(struct ls *ls)
{
	uint64_t i;
	int error = 0;

	for (i = 0; i < entry_count(ls) && !error; i++) {
		const struct catalog_entry *entry =
			catalog_entry(ls->catalog, i);

		if (!tool_matches(ls->catalog, entry, ls->glob))
			continue;
		ls->line.size = 0;
		error = tool_print_name(ls->catalog, entry, &ls->line);
		widen(&ls->name_width, &ls->line, NAME_WIDTH_MAX);
		ls->line.size = 0;
		if (!error)
			error = columns_type(ls->catalog, entry, &ls->line);
		widen(&ls->type_width, &ls->line, TYPE_WIDTH_MAX);
		ls->line.size = 0;
		if (!error)
			error = columns_shape(ls->catalog, entry, &ls->line);
		widen(&ls->shape_width, &ls->line, SHAPE_WIDTH_MAX);
	}
	return error;
}

static int print_entry(struct ls *ls, uint64_t index)
{
	const struct catalog_entry *entry = catalog_entry(ls->catalog, index);
	uint64_t i, count = (uint64_t)entry->shard_count + entry->hole_count;
	int error;

	ls->line.size = 0;
	error = ls->json ? print_json(ls, index) : print_line(ls, entry);
	for (i = 0; ls->shards && !ls->json && i < count && !error; i++) {
		error = print_shard(ls, entry, i);
		if (ls->line.size > MIB) {
			fwrite(ls->line.data, 1, ls->line.size, stdout);
			ls->line.size = 0;
		}
	}
	if (!error)
		fwrite(ls->line.data, 1, ls->line.size, stdout);
	return error;
}

static int print_all(struct ls *ls, const char *path)
{
	struct summary summary;
	uint64_t i;
	int error = ls->json ? 0 : measure(ls);

	for (i = 0; i < entry_count(ls) && !error && !ferror(stdout); i++) {
		if (!tool_matches(ls->catalog, catalog_entry(ls->catalog, i),
				  ls->glob))
			continue;
		ls->matched++;
		error = print_entry(ls, i);
	}
	if (error)
		return error;
	error = summary_init(&summary, ls->checkpoint, path, ls->glob);
	ls->line.size = 0;
	if (!error)
		error = ls->json ? summary_json(&summary, &ls->line) :
				   summary_text(&summary, &ls->line);
	if (!error) {
		fwrite(ls->line.data, 1, ls->line.size, stdout);
		error = summary_is_complete(&summary) ? 0 : -EIO;
	}
	summary_finish(&summary);
	return error;
}

static enum tool_status list(struct ls *ls, const char *path)
{
	struct checkpoint *checkpoint;
	int error = tool_open(&tool_ls, path, &checkpoint);

	if (error)
		return tool_open_status(error);
	ls->checkpoint = checkpoint;
	ls->catalog = checkpoint->catalog;
	ls->owned = checkpoint_owned(checkpoint);
	error = print_all(ls, path);
	array_finish(&ls->line);
	array_finish(&ls->cell);
	checkpoint_close(checkpoint);
	if (error && error != -EIO)
		return tool_fail(&tool_ls, "%s: %s", path, strerror(-error));
	if (ls->glob && ls->matched == 0) {
		tool_fail(&tool_ls, "%s: no name matches", ls->glob);
		return TOOL_BAD;
	}
	return error ? TOOL_BAD : TOOL_GOOD;
}

static enum tool_status run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "shards", no_argument, NULL, 'l' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	struct ls ls = { .glob = NULL };
	int option;

	for (;;) {
		option = getopt_long(argc, argv, "l", options, NULL);
		if (option < 0)
			break;
		if (option == 'l')
			ls.shards = true;
		else if (option == 'j')
			ls.json = true;
		else
			return tool_usage(&tool_ls, "bad arguments");
	}
	if (argc - optind < 1 || argc - optind > 2)
		return tool_usage(&tool_ls, "SRC is needed, and at most GLOB");
	ls.glob = argc - optind == 2 ? argv[optind + 1] : NULL;
	return list(&ls, argv[optind]);
}

const struct tool tool_ls = {
	.name = "ls",
	.summary = "list tensors, totals, format and state",
	.help = help,
	.run = run,
};
