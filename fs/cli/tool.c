/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/tool.h"

#include "fs/cli/internal.h"

#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

const struct tool *const tools[] = {
	&tool_ls, &tool_verify, &tool_export, &tool_diff, &tool_stat, NULL,
};

static const char common_help[] =
"\n"
"All commands have these, too:\n"
"\n"
"    --decoded-cache=SIZE\n"
"                       memory for items behind stream extensions, which are\n"
"                       decoded as a whole: 1G, 512M\n"
"    -h, --help         this text\n";

/* ---- what a command says ------------------------------------------------- */

static void say(const struct tool *tool, const char *format, va_list args)
{
	/* The lines of what is being printed come first. */
	fflush(stdout);
	tool_progress_hide();
	flockfile(stderr);
	fprintf(stderr, "ckptfs %s: ", tool->name);
	vfprintf(stderr, format, args);
	putc('\n', stderr);
	funlockfile(stderr);
}

enum tool_status tool_fail(const struct tool *tool, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(tool, format, args);
	va_end(args);
	return TOOL_FAILED;
}

enum tool_status tool_usage(const struct tool *tool, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(tool, format, args);
	va_end(args);
	fprintf(stderr, "see ckptfs %s --help\n", tool->name);
	return TOOL_FAILED;
}

/* ---- sizes --------------------------------------------------------------- */

bool tool_parse_size(const char *text, uint64_t *ret_size)
{
	static const char letters[] = "KMGT";
	unsigned long long number;
	const char *letter;
	uint64_t unit = 1;
	char *end;
	int power;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno)
		return false;
	letter = *end ? strchr(letters, *end) : NULL;
	if (letter) {
		bool decimal = strcmp(end + 1, "B") == 0;

		if (!decimal && end[1] && strcmp(end + 1, "iB") != 0)
			return false;
		for (power = 0; power <= letter - letters; power++)
			unit *= decimal ? 1000 : 1024;
	} else if (*end && strcmp(end, "B") != 0) {
		return false;
	}
	return !__builtin_mul_overflow((uint64_t)number, unit, ret_size);
}

void tool_format_size(uint64_t size, char ret_text[16])
{
	static const char letters[] = "KMGTPE";
	double value = (double)size;
	int power = -1;

	if (size < 1024) {
		snprintf(ret_text, 16, "%u B", (unsigned)size);
		return;
	}
	/* What would be rounded to 1024.0 is the next unit's. */
	while (value >= 1023.95) {
		value /= 1024;
		power++;
	}
	snprintf(ret_text, 16, "%.1f %ciB", value, letters[power]);
}

void tool_raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* ---- running ------------------------------------------------------------- */

static const struct tool *find_tool(const char *name)
{
	unsigned i;

	for (i = 0; tools[i]; i++)
		if (strcmp(tools[i]->name, name) == 0)
			return tools[i];
	return NULL;
}

/* Take out of @argv what all commands have. True: help is wanted. */
static bool take_common(const struct tool *tool, int *argc, char **argv,
			bool *ret_bad)
{
	static const char cache[] = "--decoded-cache=";
	uint64_t size;
	int i, count = 1;
	bool help = false, ended = false;

	*ret_bad = false;
	for (i = 1; i < *argc; i++) {
		ended = ended || strcmp(argv[i], "--") == 0;
		if (ended || strncmp(argv[i], cache, strlen(cache)) != 0) {
			help = help || (!ended &&
					(strcmp(argv[i], "--help") == 0 ||
					 strcmp(argv[i], "-h") == 0));
			argv[count++] = argv[i];
		} else if (tool_parse_size(argv[i] + strlen(cache), &size)) {
			open_set_cache_size(size);
		} else {
			tool_usage(tool, "%s: no size", argv[i]);
			*ret_bad = true;
		}
	}
	argv[count] = NULL;
	*argc = count;
	return help;
}

/* Results that were lost are no success. */
static enum tool_status finish_output(const struct tool *tool,
				      enum tool_status status)
{
	int error;

	errno = 0;
	fflush(stdout);
	if (!ferror(stdout) && fclose(stdout) == 0)
		return status;
	error = errno ? errno : EIO;
	return tool_fail(tool, "standard output: %s", strerror(error));
}

bool tool_run(int argc, char **argv, int *ret_status)
{
	const struct tool *tool = find_tool(argv[0]);
	enum tool_status status = TOOL_GOOD;
	char name[32];
	bool help, bad;

	if (!tool)
		return false;
	/* Errors of a write, as any other. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	tool_raise_file_limit();
	/* For tool_matches: names are UTF-8 wherever we run. */
	setlocale(LC_CTYPE, "C.UTF-8");
	help = take_common(tool, &argc, argv, &bad);
	/* What getopt's messages start with. */
	snprintf(name, sizeof(name), "ckptfs %s", tool->name);
	argv[0] = name;
	optind = 1;
	if (bad) {
		status = TOOL_FAILED;
	} else if (help) {
		fputs(tool->help, stdout);
		fputs(common_help, stdout);
	} else {
		status = tool->run(argc, argv);
	}
	open_finish();
	status = finish_output(tool, status);
	if (tool_interrupted())
		work_end_by_signal();
	*ret_status = (int)status;
	return true;
}
