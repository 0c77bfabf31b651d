/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/export_say.h"

#include "fs/cli/summary.h"
#include "shard/base/json_text.h"
#include "shard/base/name.h"
#include "shard/catalog/catalog_json.h"

#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tensors that are named when something is wrong with them. */
enum { NAMED_MAX = 16 };

static enum tool_status fail(const struct export_plan *plan, int error)
{
	return tool_fail(&tool_export, "%s: %s", plan->options->path,
			 strerror(-error));
}

/* ---- what cannot be read ------------------------------------------------- */

/* The first shard of @entry whose file is not there, or NULL. */
static const struct catalog_shard *
find_missing(const struct export_plan *plan, const struct catalog_entry *entry)
{
	uint64_t i;

	for (i = 0; i < entry->shard_count; i++) {
		const struct catalog_shard *shard =
			catalog_shard(plan->catalog, entry, i);

		if (checkpoint_pin(plan->checkpoint, shard->file)->inode == 0)
			return shard;
	}
	return NULL;
}

/* Append what keeps @entry from being read as a whole; nothing if nothing
 * does. */
static int print_obstacle(const struct export_plan *plan,
			  const struct catalog_entry *entry, struct array *out)
{
	const struct catalog *catalog = plan->catalog;
	const struct catalog_shard *missing = find_missing(plan, entry);
	const struct catalog_file *file;
	struct box box, shape;
	int error;

	if (!missing && !(entry->flags & CATALOG_HOLES))
		return 0;
	error = tool_print_name(catalog, entry, out);
	if (error)
		return error;
	if (missing) {
		file = catalog_file(catalog, missing->file);
		error = tool_print(out, ": there is no ");
		return error ? error :
		       tool_print_text(catalog_text(catalog, file->path),
				       file->path_size, out);
	}
	error = tool_print(out, ": no shard holds ");
	catalog_shape(catalog, entry, &shape);
	catalog_box(catalog, entry, entry->shard_count, &box);
	return error ? error : tool_print_box(&box, &shape, out);
}

/* Say what of the tensors cannot be read; false: nothing was said. */
bool export_explain_obstacles(const struct export_plan *plan, int *ret_error)
{
	const struct array *parts = &plan->parts;
	struct array text = { .data = NULL };
	uint64_t count = 0, i;

	*ret_error = 0;
	if (plan->catalog->origin.lost) {
		tool_fail(&tool_export, "%s: %" PRIu64
			  " tensors that the index names are in no file",
			  plan->options->source, plan->catalog->origin.lost);
		count = 1;
	}
	for (i = 0; i < export_part_count(parts) && !*ret_error; i++) {
		text.size = 0;
		*ret_error = print_obstacle(plan, catalog_entry(plan->catalog,
			export_part(parts, i)->entry), &text);
		if (text.size > 0 && count++ < NAMED_MAX)
			tool_fail(&tool_export, "%s", text.data);
	}
	array_finish(&text);
	if (count > NAMED_MAX)
		tool_fail(&tool_export, "%" PRIu64 " more like these",
			  count - NAMED_MAX);
	return count > 0;
}

int export_explain_left_out(const struct export_plan *plan)
{
	const struct array *parts = &plan->left_out;
	const struct catalog *catalog = plan->catalog;
	struct array name = { .data = NULL };
	uint64_t count = export_part_count(parts), i;
	int error = 0;

	for (i = 0; i < count && i < NAMED_MAX && !error; i++) {
		const struct catalog_entry *entry =
			catalog_entry(catalog, export_part(parts, i)->entry);

		name.size = 0;
		error = tool_print_name(catalog, entry, &name);
		if (!error)
			tool_fail(&tool_export, "%s: left out: there is no way to write its type (%s) or name",
				  name.data,
				  dtype_info((enum dtype)entry->dtype)->name);
	}
	array_finish(&name);
	if (count > NAMED_MAX)
		tool_fail(&tool_export, "%" PRIu64 " more like these",
			  count - NAMED_MAX);
	return error;
}

/* ---- nothing to do ------------------------------------------------------- */

enum tool_status export_explain_nothing(const struct export_plan *plan)
{
	struct array text = { .data = NULL };
	struct summary summary;
	int error = 0;
	size_t i;

	if (!plan->options->top)
		return tool_fail(&tool_export, "%s: no tensor matches",
				 plan->options->source);
	error = summary_init(&summary, plan->checkpoint, plan->options->source,
			     NULL);
	for (i = 0; i < summary.keys.size / sizeof(struct summary_key) &&
	     !error; i++) {
		const struct summary_key *key =
			(const struct summary_key *)summary.keys.data + i;

		if (key->name && text.size > 0)
			error = tool_print(&text, ", ");
		if (key->name && !error)
			error = tool_print_text(key->name, key->name_size,
						&text);
	}
	if (error)
		fail(plan, error);
	else if (text.size > 0)
		tool_fail(&tool_export, "%s: no tensor below %s matches; the keys are: %s",
			  plan->options->source, plan->options->top, text.data);
	else
		tool_fail(&tool_export, "%s: nothing is below %s: the state dict is flat, or its keys are not known",
			  plan->options->source, plan->options->top);
	array_finish(&text);
	summary_finish(&summary);
	return TOOL_FAILED;
}

/* ---- failures ------------------------------------------------------------ */

/* Is the stored item of shard @index of tensor @part what is at fault? It is
 * known by now to be bad, so that any read of it fails. */
static bool is_bad(const struct export_plan *plan,
		   const struct virtual_file_part *part, uint64_t index)
{
	struct virtual_file_origin origin = {
		.catalog = plan->catalog,
		.entry = part->entry,
	};
	struct reply *reply = reply_of_thread();
	struct virtual_file *content = NULL;
	int error = 0;

	catalog_box(plan->catalog, catalog_entry(plan->catalog, part->entry),
		    index, &origin.selection);
	if (reply && virtual_file_raw(&origin, &content) == 0 &&
	    virtual_file_size(content) > 0 &&
	    reply_begin(reply, NULL, 1) == 0)
		error = virtual_file_read(content,
					  checkpoint_source(plan->checkpoint),
					  0, reply);
	virtual_file_put(content);
	return error;
}

/* Does the fault lie in the stored item of @shard, or at its end, where
 * something may be missing? */
static bool is_near(const struct export_plan *plan,
		    const struct writer_failure *failure,
		    const struct catalog_shard *shard)
{
	const struct catalog_file *file =
		catalog_file(plan->catalog, shard->file);
	uint64_t offset = failure->fault.offset;

	return offset >= shard->offset &&
	       offset - shard->offset <= shard->size &&
	       strcmp(catalog_text(plan->catalog, file->path),
		      failure->fault_file) == 0;
}

/* The tensor whose stored item is at fault; NULL: not known. */
static const struct catalog_entry *
find_tensor(const struct export_plan *plan,
	    const struct writer_failure *failure)
{
	const struct catalog *catalog = plan->catalog;
	uint64_t i, k;

	for (i = 0; i < export_part_count(&plan->parts); i++) {
		const struct virtual_file_part *part =
			export_part(&plan->parts, i);
		const struct catalog_entry *entry =
			catalog_entry(catalog, part->entry);

		for (k = 0; k < entry->shard_count; k++)
			if (is_near(plan, failure,
				    catalog_shard(catalog, entry, k)) &&
			    is_bad(plan, part, k))
				return entry;
	}
	return NULL;
}

static void explain_fault(const struct export_plan *plan,
			  const struct writer_failure *failure)
{
	const struct catalog_entry *entry = find_tensor(plan, failure);
	const struct fault *fault = &failure->fault;
	struct array name = { .data = NULL };

	if (entry)
		tool_print_name(plan->catalog, entry, &name);
	tool_fail(&tool_export, "%s: %s: byte %" PRIu64 ": %s%s%s",
		  name.data ? name.data : plan->options->source,
		  failure->fault_file, fault->offset, fault->reason,
		  *fault->detail ? ": " : "", fault->detail);
	array_finish(&name);
}

enum tool_status export_explain_failure(const struct export_plan *plan,
					const struct writer_failure *failure,
					uint64_t size)
{
	char text[16];

	tool_format_size(size, text);
	if (failure->fault.error)
		explain_fault(plan, failure);
	else if (failure->error == -ESTALE)
		tool_fail(&tool_export, "%s: the checkpoint changed meanwhile",
			  plan->options->source);
	else if (failure->reading)
		tool_fail(&tool_export, "%s: reading: %s", plan->options->source,
			  strerror(-failure->error));
	else if (failure->error == -ENOSPC || failure->error == -EDQUOT)
		tool_fail(&tool_export, "%s: %s; %s are needed", plan->options->path,
			  strerror(-failure->error), text);
	else
		fail(plan, failure->error);
	/* What is not the checkpoint's fault may be different next time. */
	return failure->reading && (failure->error == -EIO ||
				    failure->error == -EOPNOTSUPP) ?
	       TOOL_BAD : TOOL_FAILED;
}

/* ---- JSON ---------------------------------------------------------------- */

static int print_json_part(const struct export_plan *plan, uint64_t file,
			   const struct virtual_file_part *part,
			   struct array *out)
{
	const struct catalog *catalog = plan->catalog;
	const struct catalog_entry *entry = catalog_entry(catalog, part->entry);
	const struct dtype_info *info = dtype_info(export_type(plan, part));
	char name[NAME_MAX + 1];
	struct box shape;
	size_t size;
	const char *key = export_key(plan, part, &size);
	int error = tool_print(out, "{\"name\":");

	if (!error)
		error = json_text_string(out, catalog_text(catalog,
							   entry->name),
					 entry->name_size);
	if (!error)
		error = tool_print(out, ",\"key\":");
	if (!error)
		error = json_text_string(out, key, size);
	if (!error)
		error = tool_print(out, ",\"dtype\":\"%s\","
				   "\"torch_dtype\":\"%s\",\"shape\":",
				   info->name, info->torch);
	catalog_written_shape(catalog, entry, &shape);
	if (!error)
		error = catalog_json_shape(&shape, out);
	export_file_name(plan, file, name);
	if (!error)
		error = tool_print(out, ",\"nbytes\":%" PRIu64 ",\"file\":",
				   export_size(plan, part));
	if (!error)
		error = json_text_string(out, name, strlen(name));
	return error ? error : tool_print(out, "}\n");
}

static int print_json_left_out(const struct export_plan *plan,
			       struct array *out)
{
	uint64_t i;
	int error = tool_print(out, ",\"left_out\":[");

	for (i = 0; i < export_part_count(&plan->left_out) && !error; i++) {
		const struct catalog_entry *entry =
			catalog_entry(plan->catalog,
				      export_part(&plan->left_out, i)->entry);

		if (i > 0)
			error = tool_print(out, ",");
		if (!error)
			error = json_text_string(out,
				catalog_text(plan->catalog, entry->name),
				entry->name_size);
	}
	return error ? error : tool_print(out, "]");
}

static int print_json_summary(const struct export_plan *plan,
			      struct array *out)
{
	int error = tool_print(out, "{\"summary\":{\"tensors\":%" PRIu64
			       ",\"nbytes\":%" PRIu64 ",\"files\":%" PRIu64,
			       export_part_count(&plan->parts), plan->size,
			       export_file_count(plan));

	if (!error)
		error = print_json_left_out(plan, out);
	return error ? error : tool_print(out, "}}\n");
}

int export_print_json(const struct export_plan *plan)
{
	const struct export_file *files = (const void *)plan->files.data;
	struct array line = { .data = NULL };
	uint64_t i, k;
	int error = 0;

	for (i = 0; i < export_file_count(plan); i++) {
		for (k = 0; k < files[i].count && !error; k++) {
			line.size = 0;
			error = print_json_part(plan, i, export_part(
				&plan->parts, files[i].first + k), &line);
			if (!error)
				fwrite(line.data, 1, line.size, stdout);
		}
	}
	line.size = 0;
	if (!error)
		error = print_json_summary(plan, &line);
	if (!error)
		fwrite(line.data, 1, line.size, stdout);
	array_finish(&line);
	return error;
}
