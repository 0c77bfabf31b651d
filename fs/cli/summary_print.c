/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/summary.h"

#include "fs/cli/tool.h"
#include "shard/base/json_text.h"

#include <inttypes.h>
#include <string.h>

/* Files of one kind that are named for people. */
enum { NAMED_FILES_MAX = 16 };

static const char *format_name(const struct summary *s)
{
	switch (s->checkpoint->catalog->origin.format) {
	case CATALOG_DCP:
		return "DCP";
	case CATALOG_DCP_LOCAL:
		return "DCP with rank-local metadata";
	case CATALOG_SAFETENSORS:
		return "safetensors";
	case CATALOG_SAFETENSORS_SHARDED:
		return "sharded safetensors of DCP";
	default:
		return "unknown";
	}
}

/* For scripts. */
static const char *format_key(const struct summary *s)
{
	static const char *const keys[] = {
		[CATALOG_DCP] = "dcp",
		[CATALOG_DCP_LOCAL] = "dcp-local",
		[CATALOG_SAFETENSORS] = "safetensors",
		[CATALOG_SAFETENSORS_SHARDED] = "safetensors-sharded",
	};
	uint32_t format = s->checkpoint->catalog->origin.format;

	return format < sizeof(keys) / sizeof(keys[0]) ? keys[format] :
							 "unknown";
}

/* ---- for people ---------------------------------------------------------- */

static int print_torch(const struct summary *s, struct array *out)
{
	const struct catalog_origin *origin = &s->checkpoint->catalog->origin;
	unsigned first = origin->torch_first, last = origin->torch_last;

	if (!first && !last)
		return 0;
	if (first == last)
		return tool_print(out, ", torch %u.%u", first / 100,
				  first % 100);
	if (!last)
		return tool_print(out, ", torch %u.%u or later", first / 100,
				  first % 100);
	if (!first)
		return tool_print(out, ", torch %u.%u or earlier", last / 100,
				  last % 100);
	return tool_print(out, ", torch %u.%u to %u.%u", first / 100,
			  first % 100, last / 100, last % 100);
}

static const char *plural(uint64_t count)
{
	return count == 1 ? "" : "s";
}

/* Of the tensors. */
static int print_total(uint64_t count, uint64_t size, struct array *out)
{
	char text[16];

	tool_format_size(size, text);
	return tool_print(out, "%" PRIu64 " tensor%s, %s", count,
			  plural(count), text);
}

static int print_keys(const struct summary *s, struct array *out)
{
	const struct summary_key *keys =
		(const struct summary_key *)s->keys.data;
	size_t count = s->keys.size / sizeof(*keys), i;
	int error = 0;

	/* Of a flat state dict the total says it all. */
	if (count == 1 && !keys[0].name)
		return 0;
	for (i = 0; i < count && !error; i++) {
		error = tool_print(out, "    ");
		if (!error)
			error = keys[i].name ?
				tool_print_text(keys[i].name,
						keys[i].name_size, out) :
				tool_print(out, "(without a key above them)");
		if (!error)
			error = tool_print(out, ": ");
		if (!error)
			error = print_total(keys[i].tensors, keys[i].size,
					    out);
		if (!error)
			error = tool_print(out, "\n");
	}
	return error;
}

/* The terminated names in @names, a line each. */
static int print_names(const struct array *names, struct array *out)
{
	const char *name = names->data, *end = name + names->size;
	uint64_t count = 0, more = 0;
	int error = 0;

	for (; name < end && !error; name += strlen(name) + 1) {
		if (count++ >= NAMED_FILES_MAX) {
			more++;
			continue;
		}
		error = tool_print(out, "    ");
		if (!error)
			error = tool_print_text(name, strlen(name), out);
		if (!error)
			error = tool_print(out, "\n");
	}
	if (!error && more)
		error = tool_print(out, "    and %" PRIu64 " more\n", more);
	return error;
}

/* The names of the files that have @flag. */
static int collect(const struct summary *s, enum summary_file flag,
		   struct array *names)
{
	const struct catalog *catalog = s->checkpoint->catalog;
	uint64_t i;
	int error = 0;

	for (i = 0; i < catalog->file_count && !error; i++) {
		const struct catalog_file *file = catalog_file(catalog, i);

		if (s->file_flags[i] == flag)
			error = array_append(names, catalog_text(catalog,
								 file->path),
					     file->path_size + 1);
	}
	return error;
}

static int print_flagged(const struct summary *s, enum summary_file flag,
			 const char *what, struct array *out)
{
	struct array names = { .data = NULL };
	int error = collect(s, flag, &names);

	if (!error && names.size > 0) {
		error = tool_print(out, "%s:\n", what);
		if (!error)
			error = print_names(&names, out);
	}
	array_finish(&names);
	return error;
}

static int print_orphans(const struct summary *s, struct array *out)
{
	char size[16];
	int error;

	if (s->orphan_count == 0)
		return 0;
	tool_format_size(s->orphan_size, size);
	error = tool_print(out, "not part of it: %" PRIu64 " file%s, %s:\n",
			   s->orphan_count, plural(s->orphan_count), size);
	return error ? error : print_names(&s->orphans, out);
}

static int print_state(const struct summary *s, struct array *out)
{
	uint64_t lost = s->checkpoint->catalog->origin.lost;
	int error;

	if (summary_is_complete(s))
		return tool_print(out, "state: complete\n");
	error = tool_print(out, "state: incomplete");
	if (!error && s->incomplete)
		error = tool_print(out, ", %" PRIu64 " tensor%s with holes",
				   s->incomplete, plural(s->incomplete));
	if (!error && lost)
		error = tool_print(out, ", %" PRIu64 " tensor%s of the index in no file",
				   lost, plural(lost));
	if (!error && s->missing)
		error = tool_print(out, ", %" PRIu64 " file%s missing",
				   s->missing, plural(s->missing));
	if (!error && s->cut)
		error = tool_print(out, ", %" PRIu64 " file%s too short",
				   s->cut, plural(s->cut));
	return error ? error : tool_print(out, "\n");
}

int summary_text(const struct summary *summary, struct array *out)
{
	uint64_t objects = summary->objects;
	int error = print_total(summary->tensors, summary->size, out);

	if (!error && objects > 0)
		error = tool_print(out, ", %" PRIu64 " object%s", objects,
				   plural(objects));
	if (!error)
		error = tool_print(out, "\n");
	if (!error)
		error = print_keys(summary, out);
	if (!error)
		error = tool_print(out, "format: %s", format_name(summary));
	if (!error)
		error = print_torch(summary, out);
	if (!error)
		error = tool_print(out, "\n");
	if (!error)
		error = print_flagged(summary, SUMMARY_MISSING, "missing", out);
	if (!error)
		error = print_flagged(summary, SUMMARY_CUT, "too short", out);
	if (!error)
		error = print_orphans(summary, out);
	if (!error && summary->leftovers.size > 0)
		error = tool_print(out, "left by an interrupted save:\n");
	if (!error)
		error = print_names(&summary->leftovers, out);
	return error ? error : print_state(summary, out);
}

/* ---- for scripts --------------------------------------------------------- */

static int put_keys(const struct summary *s, struct array *out)
{
	const struct summary_key *keys =
		(const struct summary_key *)s->keys.data;
	size_t count = s->keys.size / sizeof(*keys), i;
	int error = tool_print(out, ",\"keys\":[");

	for (i = 0; i < count && !error; i++) {
		error = tool_print(out, "%s{\"key\":", i > 0 ? "," : "");
		if (!error)
			error = keys[i].name ?
				json_text_string(out, keys[i].name,
						 keys[i].name_size) :
				tool_print(out, "null");
		if (!error)
			error = tool_print(out, ",\"tensors\":%" PRIu64
					   ",\"nbytes\":%" PRIu64 "}",
					   keys[i].tensors, keys[i].size);
	}
	return error ? error : tool_print(out, "]");
}

/* A release as "2.9"; 0 is null. */
static int put_release(const char *key, unsigned release, struct array *out)
{
	return release ? tool_print(out, "\"%s\":\"%u.%u\"", key,
				    release / 100, release % 100) :
			 tool_print(out, "\"%s\":null", key);
}

static int put_names(const char *key, const struct array *names,
		     struct array *out)
{
	const char *name = names->data, *end = name + names->size;
	int error = tool_print(out, ",\"%s\":[", key);

	for (; name < end && !error; name += strlen(name) + 1) {
		if (name != names->data)
			error = tool_print(out, ",");
		if (!error)
			error = json_text_string(out, name, strlen(name));
	}
	return error ? error : tool_print(out, "]");
}

static int put_flagged(const struct summary *s, enum summary_file flag,
		       const char *key, struct array *out)
{
	struct array names = { .data = NULL };
	int error = collect(s, flag, &names);

	if (!error)
		error = put_names(key, &names, out);
	array_finish(&names);
	return error;
}

int summary_json(const struct summary *summary, struct array *out)
{
	const struct catalog *catalog = summary->checkpoint->catalog;
	int error = tool_print(out, "{\"summary\":{\"tensors\":%" PRIu64
			       ",\"objects\":%" PRIu64 ",\"nbytes\":%" PRIu64
			       ",\"files\":%" PRIu64, summary->tensors,
			       summary->objects, summary->size,
			       catalog->file_count);

	if (!error)
		error = put_keys(summary, out);
	if (!error)
		error = tool_print(out, ",\"format\":\"%s\",\"torch\":{",
				   format_key(summary));
	if (!error)
		error = put_release("first", catalog->origin.torch_first, out);
	if (!error)
		error = tool_print(out, ",");
	if (!error)
		error = put_release("last", catalog->origin.torch_last, out);
	if (!error)
		error = tool_print(out, "}");
	if (!error)
		error = put_flagged(summary, SUMMARY_MISSING, "missing", out);
	if (!error)
		error = put_flagged(summary, SUMMARY_CUT, "too_short", out);
	if (!error)
		error = put_names("orphans", &summary->orphans, out);
	if (!error)
		error = put_names("leftovers", &summary->leftovers, out);
	if (error)
		return error;
	return tool_print(out, ",\"lost\":%" PRIu64 ",\"incomplete\":%" PRIu64
			  ",\"state\":\"%s\"}}\n", catalog->origin.lost,
			  summary->incomplete,
			  summary_is_complete(summary) ? "complete" :
							 "incomplete");
}
