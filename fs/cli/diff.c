/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/diff_print.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
"usage: ckptfs diff [--values] [--select=GLOB] [--json | -q] A B\n"
"\n"
"Compare the tensors of two checkpoints by name, each a folder or one\n"
"safetensors file, whatever their formats and however they are cut into\n"
"shards. A line for each that is\n"
"\n"
"    added              only in B\n"
"    removed            only in A\n"
"    dtype, shape       of another type or shape\n"
"    changed            not equal in all bytes\n"
"    unreadable         damaged or incomplete in A or B, which is said on\n"
"                       standard error\n"
"\n"
"What is not a tensor counts as well, by what it is as JSON, or by its stored\n"
"bytes if it is no plain data; unless A or B is safetensors, which holds tensors\n"
"only.\n"
"\n"
"    --values           read all of each tensor, and say how far the two are\n"
"                       apart: the largest |a - b|, ||a - b|| / ||a||, the\n"
"                       index of the first element that differs, and how many\n"
"                       are NaN. So, too, where types differ. Pairs with NaN\n"
"                       are left out of the first two; equal infinities are\n"
"                       not apart\n"
"    --select=GLOB      only what has a name that matches; a star matches dots\n"
"                       and slashes, too; may be given more than once\n"
"    --json             an object a line for each tensor of A and B, equal ones\n"
"                       too: as in tensors.json, with state, and what B has in\n"
"                       dtype_b and so on where it differs; and in the end\n"
"                       {\"summary\": ...}\n"
"    -q, --quiet        no output, and an end at the first difference\n"
"\n"
"Exit status: 0 when they are the same, 1 when they differ, or when a tensor\n"
"is unreadable, 2 when A or B could not be read.\n";

struct diff {
	struct pairs pairs;
	const char **globs;		/* owned; the strings are argv's */
	int glob_count;
	bool json, quiet;
};

static bool is_selected(void *context, const struct catalog *catalog,
			const struct catalog_entry *entry)
{
	const struct diff *diff = context;
	int i;

	for (i = 0; i < diff->glob_count; i++)
		if (tool_matches(catalog, entry, diff->globs[i]))
			return true;
	return diff->glob_count == 0;
}

static enum tool_status compare(struct diff *diff)
{
	struct pairs *pairs = &diff->pairs;
	int error = pairs_make(pairs);

	if (!error)
		error = pairs_compare(pairs);
	if (!error && !diff->quiet)
		error = diff_print(pairs, diff->json);
	if (error)
		return tool_fail(&tool_diff, "%s and %s: %s", pairs->paths[0],
				 pairs->paths[1], error == -ESTALE ?
				 "a checkpoint changed meanwhile" :
				 strerror(-error));
	if (diff->glob_count > 0 && pairs->count == 0) {
		tool_fail(&tool_diff, "%s: no name matches", diff->globs[0]);
		return TOOL_BAD;
	}
	return pairs->different ? TOOL_BAD : TOOL_GOOD;
}

static enum tool_status open_both(struct diff *diff)
{
	struct checkpoint *a, *b;
	enum tool_status status = TOOL_FAILED;

	if (tool_open(&tool_diff, diff->pairs.paths[0], &a))
		return TOOL_FAILED;
	if (tool_open(&tool_diff, diff->pairs.paths[1], &b) == 0) {
		diff->pairs.checkpoints[0] = a;
		diff->pairs.checkpoints[1] = b;
		status = compare(diff);
		pairs_finish(&diff->pairs);
		checkpoint_close(b);
	}
	checkpoint_close(a);
	return status;
}

static enum tool_status read_options(struct diff *diff, int argc, char **argv)
{
	static const struct option options[] = {
		{ "values", no_argument, NULL, 'v' },
		{ "select", required_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'j' },
		{ "quiet", no_argument, NULL, 'q' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	for (;;) {
		option = getopt_long(argc, argv, "q", options, NULL);
		if (option < 0)
			break;
		if (option == 'v')
			diff->pairs.values = true;
		else if (option == 's')
			diff->globs[diff->glob_count++] = optarg;
		else if (option == 'j')
			diff->json = true;
		else if (option == 'q')
			diff->quiet = true;
		else
			return tool_usage(&tool_diff, "bad arguments");
	}
	if (argc - optind != 2)
		return tool_usage(&tool_diff, "A and B are needed");
	if (diff->quiet && diff->json)
		return tool_usage(&tool_diff, "--quiet prints no JSON");
	diff->pairs.paths[0] = argv[optind];
	diff->pairs.paths[1] = argv[optind + 1];
	/* Values are for who sees them. */
	diff->pairs.values = diff->pairs.values && !diff->quiet;
	diff->pairs.hasty = diff->quiet;
	return TOOL_GOOD;
}

static enum tool_status run(int argc, char **argv)
{
	struct diff *diff = calloc(1, sizeof(*diff));
	enum tool_status status = TOOL_FAILED;

	if (diff)
		diff->globs = calloc((size_t)argc + 1, sizeof(*diff->globs));
	if (!diff || !diff->globs) {
		free(diff);
		return tool_fail(&tool_diff, "%s", strerror(ENOMEM));
	}
	diff->pairs.tool = &tool_diff;
	diff->pairs.select = is_selected;
	diff->pairs.context = diff;
	status = read_options(diff, argc, argv);
	if (status == TOOL_GOOD)
		status = open_both(diff);
	free(diff->globs);
	free(diff);
	return status;
}

const struct tool tool_diff = {
	.name = "diff",
	.summary = "compare two checkpoints, by bytes or by values",
	.help = help,
	.run = run,
};
