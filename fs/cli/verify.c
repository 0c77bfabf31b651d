/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/tool.h"

#include "shard/base/json_text.h"
#include "shard/verify/verify.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
"usage: ckptfs verify [--quick] [--json] SRC\n"
"\n"
"Is the checkpoint SRC, a folder or one safetensors file, what was written?\n"
"Every checksum that is stored is computed again, and what is said in two\n"
"places must be the same in both.\n"
"\n"
"    --quick            all but the elements of tensors: files, sizes, headers\n"
"                       and pickles; takes two small reads for each item\n"
"    --json             an object a line, and in the end {\"summary\": ...}\n"
"\n"
"A line for each fault, in any order:\n"
"\n"
"    NAME[BOX]: FILE: byte OFFSET: KIND: REASON\n"
"\n"
"    crc                bytes do not match their checksum\n"
"    structure          of an archive, or of the pickle in it\n"
"    header             a local header of an archive and its directory differ\n"
"    size               a file or a storage is too short\n"
"    shape, dtype       the stored tensor and the metadata differ\n"
"    missing            there is no such file, or tensors that an index names\n"
"                       are in none\n"
"    overlap            shards, or stored items, lie over each other\n"
"    hole               elements that no shard has\n"
"    unread             stored in a form that is not read: not checked\n"
"    io                 reading failed\n"
"    metadata           the metadata is refused, and nothing else was checked\n"
"\n"
"An offset in an item behind a stream extension is that of the item. The last\n"
"line is\n"
"\n"
"    N tensors, B bytes, H hashed, Z not recorded\n"
"\n"
"N tensors of together B bytes were checked. Of H of them all stored checksums\n"
"were computed again; with --quick that is none. Z have no checksum: all in\n"
"safetensors files, and those that PyTorch wrote with checksums turned off.\n"
"Objects are checked like tensors and have lines like them, but are not\n"
"counted here. The metadata itself has no checksum: of it, names and whatever\n"
"else is not found again in the stored items cannot be checked. Where ranks\n"
"have metadata of their own, the first copy of what several have is checked.\n"
"\n"
"What is odd but no fault, such as bytes of a file that belong to nothing, is\n"
"said on standard error.\n"
"\n"
"Exit status: 0 when there is no fault, 1 when there is, 2 when it could not be\n"
"done.\n";

struct verifier {
	const struct catalog *catalog;	/* borrowed; NULL: it was refused */
	const char *path;
	bool json, quick;
	struct verify *verify;
	struct verify_buffer *buffers[TOOL_THREADS_MAX]; /* owned */
	uint64_t note_count;
	struct array line;		/* owned; scratch of who prints */
	bool failed;			/* to print: out of memory */
};

/* ---- as text ------------------------------------------------------------- */

static int print_where(struct verifier *v, const struct verify_fault *fault)
{
	const struct catalog_entry *entry =
		catalog_entry(v->catalog, fault->entry);
	struct box box, shape;
	int error = tool_print_name(v->catalog, entry, &v->line);

	if (!error && fault->shard != VERIFY_ALL_SHARDS && entry->ndim > 0 &&
	    !(entry->flags & CATALOG_OBJECT)) {
		catalog_shape(v->catalog, entry, &shape);
		catalog_box(v->catalog, entry, fault->shard, &box);
		error = tool_print_box(&box, &shape, &v->line);
	}
	return error ? error : tool_print(&v->line, ": ");
}

static int print_text(struct verifier *v, const struct verify_fault *fault)
{
	int error = v->catalog ? print_where(v, fault) : 0;

	if (!error && fault->file)
		error = tool_print_text(fault->file, strlen(fault->file),
					&v->line);
	if (!error && fault->file)
		error = tool_print(&v->line, ": byte %" PRIu64 ": ",
				   fault->offset);
	if (!error)
		error = tool_print(&v->line, "%s: %s%s%s",
				   verify_kind_name(fault->kind),
				   fault->reason, *fault->detail ? ": " : "",
				   fault->detail);
	return error;
}

static void print_summary(const struct verify_summary *s)
{
	printf("%" PRIu64 " tensors, %" PRIu64 " bytes, %" PRIu64
	       " hashed, %" PRIu64 " not recorded\n", s->tensor_count, s->size,
	       s->hashed, s->not_recorded);
}

/* ---- as JSON ------------------------------------------------------------- */

static int print_numbers(struct verifier *v, const char *key,
			 const uint64_t *numbers, unsigned count)
{
	int error = tool_print(&v->line, "\"%s\":[", key);
	unsigned i;

	for (i = 0; i < count && !error; i++)
		error = tool_print(&v->line, "%s%" PRIu64, i > 0 ? "," : "",
				   numbers[i]);
	return error ? error : tool_print(&v->line, "]");
}

/* Each with the comma behind it. */
static int print_json_where(struct verifier *v,
			    const struct verify_fault *fault)
{
	const struct catalog_entry *entry =
		catalog_entry(v->catalog, fault->entry);
	struct box box;
	int error = tool_print(&v->line, "\"name\":");

	if (!error)
		error = json_text_string(&v->line,
					 catalog_text(v->catalog, entry->name),
					 entry->name_size);
	if (!error)
		error = tool_print(&v->line, ",");
	if (error || (entry->flags & CATALOG_OBJECT))
		return error;
	if (fault->shard == VERIFY_ALL_SHARDS)
		catalog_shape(v->catalog, entry, &box);
	else
		catalog_box(v->catalog, entry, fault->shard, &box);
	error = tool_print(&v->line, "\"box\":{");
	if (!error)
		error = print_numbers(v, "offsets", box.offset, box.ndim);
	if (!error)
		error = tool_print(&v->line, ",");
	if (!error)
		error = print_numbers(v, "sizes", box.size, box.ndim);
	return error ? error : tool_print(&v->line, "},");
}

static int print_json(struct verifier *v, const struct verify_fault *fault)
{
	char reason[256];
	int error = tool_print(&v->line, "{");

	if (!error && v->catalog)
		error = print_json_where(v, fault);
	if (!error && fault->file)
		error = tool_print(&v->line, "\"file\":");
	if (!error && fault->file)
		error = json_text_string(&v->line, fault->file,
					 strlen(fault->file));
	if (!error && fault->file)
		error = tool_print(&v->line, ",\"offset\":%" PRIu64 ",",
				   fault->offset);
	if (!error)
		error = tool_print(&v->line, "\"kind\":\"%s\",\"reason\":",
				   verify_kind_name(fault->kind));
	snprintf(reason, sizeof(reason), "%s%s%s", fault->reason,
		 *fault->detail ? ": " : "", fault->detail);
	if (!error)
		error = json_text_string(&v->line, reason, strlen(reason));
	return error ? error : tool_print(&v->line, "}");
}

static void print_json_summary(const struct verify_summary *s)
{
	printf("{\"summary\":{\"tensors\":%" PRIu64 ",\"nbytes\":%" PRIu64
	       ",\"hashed\":%" PRIu64 ",\"not_recorded\":%" PRIu64
	       ",\"faults\":%" PRIu64 "}}\n", s->tensor_count, s->size,
	       s->hashed, s->not_recorded, s->fault_count);
}

/* ---- what is found ------------------------------------------------------- */

static void print_fault(void *context, const struct verify_fault *fault)
{
	struct verifier *v = context;
	int error;

	v->line.size = 0;
	error = v->json ? print_json(v, fault) : print_text(v, fault);
	if (!error)
		error = array_append(&v->line, "\n", 1);
	v->failed = v->failed || error;
	if (error)
		return;
	tool_progress_hide();
	fwrite(v->line.data, 1, v->line.size, stdout);
}

static void print_note(void *context, const struct verify_note *note)
{
	struct verifier *v = context;

	if (v->note_count++ >= LIMIT_NOTES)
		return;
	v->line.size = 0;
	if (tool_print_text(note->file, strlen(note->file), &v->line))
		v->failed = true;
	else
		tool_fail(&tool_verify, "%s: %" PRIu64 " bytes from byte %"
			  PRIu64 " on: %s", v->line.data, note->size,
			  note->offset, note->reason);
}

static void count_progress(void *context, uint64_t size)
{
	(void)context;
	tool_progress_add(size);
}

static void summarise(const struct verifier *v,
		      const struct verify_summary *summary)
{
	if (v->note_count > LIMIT_NOTES)
		tool_fail(&tool_verify, "%" PRIu64 " more like these",
			  v->note_count - LIMIT_NOTES);
	if (v->json)
		print_json_summary(summary);
	else
		print_summary(summary);
}

/* ---- running ------------------------------------------------------------- */

static int work(void *context, unsigned thread, uint64_t index)
{
	struct verifier *v = context;

	if (!v->buffers[thread])
		v->buffers[thread] = verify_buffer_create();
	if (!v->buffers[thread])
		return -ENOMEM;
	return verify_unit(v->verify, v->buffers[thread], index);
}

static int verify_all(struct verifier *v, const struct checkpoint *checkpoint,
		      struct verify_summary *ret_summary)
{
	const struct verify_sink sink = {
		.fault = print_fault, .note = print_note,
		.progress = count_progress, .context = v,
	};
	struct tool_job job = { .work = work, .context = v };
	unsigned i;
	int error = verify_create(checkpoint, v->quick, &sink, &v->verify);

	if (error)
		return error;
	job.count = verify_unit_count(v->verify);
	tool_progress_begin(verify_size(v->verify));
	error = tool_work(&job);
	tool_progress_end();
	if (!error)
		verify_finish(v->verify, ret_summary);
	verify_destroy(v->verify);
	for (i = 0; i < TOOL_THREADS_MAX; i++)
		verify_buffer_destroy(v->buffers[i]);
	return !error && v->failed ? -ENOMEM : error;
}

/* Of what an index names and no file has there is nothing but the number. */
static void print_lost(struct verifier *v, uint64_t count)
{
	char detail[32];

	if (count == 0)
		return;
	snprintf(detail, sizeof(detail), "%" PRIu64, count);
	print_fault(v, &(struct verify_fault){
		.kind = VERIFY_MISSING,
		.reason = "tensors that the index names are in no file",
		.detail = detail,
	});
}

static enum tool_status verify_path(struct verifier *v)
{
	struct verify_summary summary = { .tensor_count = 0 };
	struct checkpoint_report *report = calloc(1, sizeof(*report));
	struct checkpoint *checkpoint;
	int error;

	if (!report)
		return tool_fail(&tool_verify, "%s", strerror(ENOMEM));
	error = tool_open_report(&tool_verify, v->path, &checkpoint, report);
	if (error && tool_open_status(error) == TOOL_BAD && *report->file) {
		print_fault(v, &(struct verify_fault){
			.kind = VERIFY_METADATA, .file = report->file,
			.offset = report->fault.offset,
			.reason = report->fault.reason,
			.detail = report->fault.detail,
		});
		summary.fault_count = 1;
		summarise(v, &summary);
	}
	free(report);
	if (error)
		return tool_open_status(error);
	print_lost(v, checkpoint->catalog->origin.lost);
	v->catalog = checkpoint->catalog;
	error = verify_all(v, checkpoint, &summary);
	summary.fault_count += checkpoint->catalog->origin.lost > 0;
	checkpoint_close(checkpoint);
	if (error == -ESTALE)
		return tool_fail(&tool_verify, "%s: changed while it was verified",
				 v->path);
	if (error)
		return tool_fail(&tool_verify, "%s: %s", v->path,
				 strerror(-error));
	summarise(v, &summary);
	return summary.fault_count ? TOOL_BAD : TOOL_GOOD;
}

static enum tool_status run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	struct verifier verifier = { .quick = false };
	enum tool_status status;
	int option;

	for (;;) {
		option = getopt_long(argc, argv, "", options, NULL);
		if (option < 0)
			break;
		if (option == 'q')
			verifier.quick = true;
		else if (option == 'j')
			verifier.json = true;
		else
			return tool_usage(&tool_verify, "bad arguments");
	}
	if (argc - optind != 1)
		return tool_usage(&tool_verify, "SRC is needed, and nothing else");
	verifier.path = argv[optind];
	status = verify_path(&verifier);
	array_finish(&verifier.line);
	return status;
}

const struct tool tool_verify = {
	.name = "verify",
	.summary = "check what is stored against its checksums",
	.help = help,
	.run = run,
};
