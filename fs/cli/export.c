/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/export_say.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What Hugging Face's tools write at most into one file. */
#define FILE_SIZE_MAX UINT64_C(5000000000)

static const char help[] =
"usage: ckptfs export SRC DST (--safetensors | --hf | --npy) [options]\n"
"\n"
"Write the tensors of the checkpoint SRC, a folder or one safetensors file, to\n"
"DST: whole, whatever they were cut into.\n"
"\n"
"    --safetensors      DST is one safetensors file\n"
"    --hf               DST is a folder for from_pretrained, without its\n"
"                       configuration: model.safetensors, or\n"
"                       model-0000i-of-0000N.safetensors and an index\n"
"    --npy              DST is a folder with a file NAME.npy for each tensor;\n"
"                       bfloat16 is <V2, float8 is |V1, as NumPy has neither\n"
"    --select=GLOB      only tensors whose whole names match; a star matches\n"
"                       dots and slashes, too; may be given more than once\n"
"    --top=KEY          only what lies below the key KEY of the state dict,\n"
"                       such as model or app.model, by its names below there\n"
"    --dtype=TYPE       bf16, f16 or f32: what floating types are converted to,\n"
"                       rounded to nearest even. What has no such conversion\n"
"                       stays as it is: integers, bool, complex, float4\n"
"    --max-shard-size=SIZE\n"
"                       bytes of tensors in one file of --hf: 5GB\n"
"    --json             an object a line for each tensor, as in tensors.json,\n"
"                       and in the end {\"summary\": ...}\n"
"\n"
"What is not a tensor is not exported. DST appears when all of it is written\n"
"and on the disk; when anything fails, nothing is left behind. A file DST is\n"
"replaced, a folder DST must be empty.\n"
"\n"
"Exit status: 0; 1 when a tensor cannot be read as a whole, and then there is\n"
"no DST, or when some were left out since safetensors or NumPy has no such\n"
"type, which are named then, and in the metadata of a safetensors file; 2 when\n"
"it could not be done.\n";

static const char index_name[] = "model.safetensors.index.json";

static enum tool_status fail(const struct export_options *options, int error)
{
	return tool_fail(&tool_export, "%s: %s", options->path,
			 strerror(-error));
}

/* ---- writing ------------------------------------------------------------- */

static int write_index(const struct export_plan *plan, struct output *output)
{
	struct array text = { .data = NULL };
	size_t done = 0;
	int fd = -1, error = export_index(plan, &text);

	if (!error)
		error = output_make(output, index_name, text.size);
	if (!error)
		error = output_open(output, index_name, &fd);
	while (!error && done < text.size) {
		ssize_t size = write(fd, text.data + done, text.size - done);

		if (size >= 0)
			done += (size_t)size;
		else if (errno != EINTR)
			error = -errno;
	}
	if (!error && fsync(fd) < 0)
		error = -errno;
	if (fd >= 0 && close(fd) < 0 && !error)
		error = -errno;
	array_finish(&text);
	return error;
}

static enum tool_status write_all(struct export_plan *plan,
				  struct output *output)
{
	const struct export_options *options = plan->options;
	struct writer writer = {
		.checkpoint = plan->checkpoint, .output = output,
		.count = export_file_count(plan),
		.open = export_plan_open, .context = plan,
	};
	struct writer_failure failure;
	uint64_t size = 0;
	int error = writer_run(&writer, &size, &failure);

	if (tool_interrupted())
		return TOOL_FAILED;
	if (error)
		return export_explain_failure(plan, &failure, size);
	if (checkpoint_is_stale(plan->checkpoint))
		return tool_fail(&tool_export,
				 "%s: the checkpoint changed meanwhile",
				 options->source);
	if (options->form == EXPORT_HF && writer.count > 1)
		error = write_index(plan, output);
	/* The last moment to change one's mind. */
	if (tool_interrupted())
		return TOOL_FAILED;
	if (!error)
		error = output_commit(output);
	return error ? fail(options, error) : TOOL_GOOD;
}

static enum tool_status write_plan(struct export_plan *plan)
{
	const struct export_options *options = plan->options;
	enum tool_status status;
	struct output *output;
	const char *reason = NULL;
	int error;

	/* From here on there is something to clean up. */
	tool_catch_signals();
	error = output_create(options->path,
			      options->form != EXPORT_SAFETENSORS,
			      plan->checkpoint, &output, &reason);
	if (error && reason)
		return tool_fail(&tool_export, "%s: %s", options->path,
				 reason);
	if (error)
		return fail(options, error);
	status = write_all(plan, output);
	output_destroy(output);
	return status;
}

static enum tool_status finish(const struct export_plan *plan, bool json)
{
	uint64_t tensors = export_part_count(&plan->parts);
	uint64_t files = export_file_count(plan);
	char size[16];
	int error = export_explain_left_out(plan);

	if (!error && json)
		error = export_print_json(plan);
	if (error)
		return fail(plan->options, error);
	tool_format_size(plan->size, size);
	if (!json)
		printf("%" PRIu64 " tensor%s, %s, %" PRIu64 " file%s\n",
		       tensors, tensors == 1 ? "" : "s", size,
		       files, files == 1 ? "" : "s");
	return plan->left_out.size > 0 ? TOOL_BAD : TOOL_GOOD;
}

static enum tool_status export(const struct export_options *options, bool json)
{
	struct checkpoint *checkpoint;
	struct export_plan plan;
	enum tool_status status;
	int error = tool_open(&tool_export, options->source, &checkpoint);

	if (error)
		return tool_open_status(error);
	error = export_plan_init(&plan, checkpoint, options);
	if (!error && plan.matched == 0) {
		status = export_explain_nothing(&plan);
	} else if (!error && export_explain_obstacles(&plan, &error)) {
		status = TOOL_BAD;
	} else {
		if (!error)
			error = export_plan_deal(&plan);
		status = error ? fail(options, error) : write_plan(&plan);
		if (status == TOOL_GOOD)
			status = finish(&plan, json);
	}
	export_plan_finish(&plan);
	checkpoint_close(checkpoint);
	return status;
}

/* ---- the command line ---------------------------------------------------- */

enum { OPTION_SAFETENSORS, OPTION_HF, OPTION_NPY, OPTION_SELECT, OPTION_TOP,
       OPTION_DTYPE, OPTION_FILE_SIZE, OPTION_JSON };

static const struct option long_options[] = {
	{ "safetensors", no_argument, NULL, OPTION_SAFETENSORS },
	{ "hf", no_argument, NULL, OPTION_HF },
	{ "npy", no_argument, NULL, OPTION_NPY },
	{ "select", required_argument, NULL, OPTION_SELECT },
	{ "top", required_argument, NULL, OPTION_TOP },
	{ "dtype", required_argument, NULL, OPTION_DTYPE },
	{ "max-shard-size", required_argument, NULL, OPTION_FILE_SIZE },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ NULL, 0, NULL, 0 },
};

struct command_line {
	struct export_options options;
	const char **globs;		/* owned */
	bool safetensors, hf, npy, json, file_size;
};

static enum dtype parse_type(const char *name)
{
	return strcmp(name, "bf16") == 0 ? DTYPE_BF16 :
	       strcmp(name, "f16") == 0 ? DTYPE_F16 :
	       strcmp(name, "f32") == 0 ? DTYPE_F32 : DTYPE_UNKNOWN;
}

/* NULL, or what is wrong with it. */
static const char *take_option(struct command_line *line, int option,
			       const char *value)
{
	switch (option) {
	case OPTION_SAFETENSORS:
		line->safetensors = true;
		return NULL;
	case OPTION_HF:
		line->hf = true;
		return NULL;
	case OPTION_NPY:
		line->npy = true;
		return NULL;
	case OPTION_SELECT:
		line->globs[line->options.glob_count++] = value;
		return NULL;
	case OPTION_TOP:
		line->options.top = value;
		return *value ? NULL : "--top needs a key";
	case OPTION_DTYPE:
		line->options.dtype = parse_type(value);
		return line->options.dtype != DTYPE_UNKNOWN ? NULL :
		       "--dtype is bf16, f16 or f32";
	case OPTION_FILE_SIZE:
		line->file_size = true;
		return tool_parse_size(value, &line->options.file_size_max) &&
		       line->options.file_size_max > 0 ?
		       NULL : "--max-shard-size needs a size, such as 5GB";
	case OPTION_JSON:
		line->json = true;
		return NULL;
	default:
		return "bad arguments";
	}
}

static const char *take_rest(struct command_line *line, int count, char **rest)
{
	if (count != 2)
		return "SRC and DST are needed";
	line->options.source = rest[0];
	line->options.path = rest[1];
	if (line->npy + (line->hf || line->safetensors) != 1)
		return "one of --safetensors, --hf and --npy is needed";
	if (line->file_size && !line->hf)
		return "--max-shard-size is for --hf";
	line->options.form = line->npy ? EXPORT_NPY : line->hf ? EXPORT_HF :
			     EXPORT_SAFETENSORS;
	return NULL;
}

static enum tool_status run(int argc, char **argv)
{
	struct command_line line = {
		.options = { .file_size_max = FILE_SIZE_MAX },
		.globs = calloc((size_t)argc, sizeof(*line.globs)),
	};
	enum tool_status status;
	const char *wrong = NULL;
	int option;

	if (!line.globs)
		return tool_fail(&tool_export, "%s", strerror(ENOMEM));
	line.options.globs = line.globs;
	while (!wrong) {
		option = getopt_long(argc, argv, "", long_options, NULL);
		if (option < 0)
			break;
		wrong = take_option(&line, option, optarg);
	}
	if (!wrong)
		wrong = take_rest(&line, argc - optind, argv + optind);
	status = wrong ? tool_usage(&tool_export, "%s", wrong) :
			 export(&line.options, line.json);
	free(line.globs);
	return status;
}

const struct tool tool_export = {
	.name = "export",
	.summary = "write the tensors as safetensors or .npy files",
	.help = help,
	.run = run,
};
