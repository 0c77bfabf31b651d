/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands on a path, without a mount: what they have in common.
 *
 * Standard output has results, standard error all else. A command ends with
 * 0 good or same, 1 bad or different, 2 could not run.
 *
 * A command reads its command line with getopt_long, optind being 1, and
 * writes its results with stdio; that they could be written is checked by
 * tool_run in the end.
 */
#ifndef FS_CLI_TOOL_H
#define FS_CLI_TOOL_H

#include "shard/base/array.h"
#include "shard/checkpoint/checkpoint.h"
#include "shard/read/source.h"

#include <stdbool.h>

enum tool_status { TOOL_GOOD, TOOL_BAD, TOOL_FAILED };

/* A command: its name, one line of help, what --help prints, what runs it. */
struct tool {
	const char *name, *summary, *help;
	enum tool_status (*run)(int argc, char **argv);
};

extern const struct tool tool_ls, tool_verify, tool_export, tool_diff,
	tool_stat;
/* All of them; the last is NULL. */
extern const struct tool *const tools[];

/*
 * Run the command that argv[0] names. False: there is none of that name.
 * @ret_status is the exit status.
 */
bool tool_run(int argc, char **argv, int *ret_status);

/* Each open file of a store costs a descriptor: as many as may be. */
void tool_raise_file_limit(void);

/* Bytes from "512", "4K", "4KiB", "4KB" (K to T; with a B alone they are
 * powers of 1000). False: it is none of these, or too large. */
bool tool_parse_size(const char *text, uint64_t *ret_size);

/* "ckptfs NAME: MESSAGE" on standard error. Returns TOOL_FAILED. */
__attribute__((format(printf, 2, 3)))
enum tool_status tool_fail(const struct tool *tool, const char *format, ...);
/* The same, and where to find help. */
__attribute__((format(printf, 2, 3)))
enum tool_status tool_usage(const struct tool *tool, const char *format, ...);

/* ---- checkpoints --------------------------------------------------------- */

/*
 * Open the checkpoint at @path: a folder, or one safetensors file. What is odd
 * in it, and why it is refused, goes to standard error. 0 or -errno; the
 * caller closes it. -EINPROGRESS: a folder with shards and without a marker.
 */
int tool_open(const struct tool *tool, const char *path,
	      struct checkpoint **ret_checkpoint);
/* The same, and *@ret_report is what was found while opening; it was all zeros
 * before. */
int tool_open_report(const struct tool *tool, const char *path,
		     struct checkpoint **ret_checkpoint,
		     struct checkpoint_report *ret_report);
/* How a command ends when tool_open failed with @error: a damaged checkpoint
 * is bad, and what could not be read says nothing. */
enum tool_status tool_open_status(int error);

/* Does the name of @entry match @glob, as fnmatch without flags: a star matches
 * dots and slashes, too? NULL matches all. What stands behind a NUL is not
 * looked at. */
bool tool_matches(const struct catalog *catalog,
		  const struct catalog_entry *entry, const char *glob);

/* The name of @entry on one line of a terminal: control characters and what
 * is not UTF-8 replaced. Appended to @out, and terminated behind its end. 0 or
 * -ENOMEM. */
int tool_print_name(const struct catalog *catalog,
		    const struct catalog_entry *entry, struct array *out);
/* Likewise any text. */
int tool_print_text(const char *text, size_t size, struct array *out);
/* @box as a slice, [0:4,:], a whole axis of @shape being a colon. */
int tool_print_box(const struct box *box, const struct box *shape,
		   struct array *out);
/* Append as printf, and terminate behind the end. 0 or -ENOMEM. */
__attribute__((format(printf, 2, 3)))
int tool_print(struct array *out, const char *format, ...);

/* "12.3 MiB"; "512 B" below 1 KiB. */
void tool_format_size(uint64_t size, char ret_text[16]);

/* ---- work on all cores --------------------------------------------------- */

/* Threads of a job at most: more do not make a store faster, and each has
 * buffers of its own. */
enum { TOOL_THREADS_MAX = 64 };

struct tool_job {
	/*
	 * Do unit @index of the work, on thread @thread. 0, or -errno, which
	 * ends the whole. Units are started in ascending order.
	 */
	int (*work)(void *context, unsigned thread, uint64_t index);
	void *context;
	uint64_t count;		/* of units */
};

/* On a thread for each core that we may use. 0, the first -errno of a unit, or
 * -EINTR after SIGINT or SIGTERM. */
int tool_work(const struct tool_job *job);

/*
 * From now on SIGINT, SIGTERM and SIGHUP do not end the process at once, but
 * tool_work, and then the command: for who has something to clean up.
 * tool_run ends the process by the signal in the end.
 */
void tool_catch_signals(void);
/* Such a signal came. */
bool tool_interrupted(void);

/*
 * Progress, on standard error if that is a terminal and only then: a line
 * that is written over, with bytes done, rate and time left. Thread safe but
 * for begin and end.
 */
void tool_progress_begin(uint64_t size);
void tool_progress_add(uint64_t size);
/* Takes the line away until more is added: before something is printed. */
void tool_progress_hide(void);
/* Takes the line away. */
void tool_progress_end(void);

/* ckptfs --wait MOUNTPOINT [--timeout SECONDS]; its exit status. @argv[0] is
 * the option. */
int tool_wait(int argc, char **argv);

#endif
