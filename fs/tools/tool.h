/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands on a path, without a mount: what they have in common.
 *
 * Standard output has results, standard error all else. A command ends with
 * 0 good or same, 1 bad or different, 2 could not run.
 */
#ifndef FS_TOOLS_TOOL_H
#define FS_TOOLS_TOOL_H

#include "shard/array.h"
#include "shard/checkpoint.h"

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

/* "ckptfs NAME: MESSAGE" on standard error. Returns TOOL_FAILED. */
__attribute__((format(printf, 2, 3)))
enum tool_status tool_fail(const struct tool *tool, const char *format, ...);

/* ---- checkpoints ----------------------------------------------------------- */

/*
 * Open the checkpoint at @path: a folder, or one safetensors file. What is odd
 * in it, and why it is refused, goes to standard error. 0 or -errno; the
 * caller closes it.
 */
int tool_open(const struct tool *tool, const char *path,
	      struct checkpoint **ret_checkpoint);

/* Does the name of @entry match @glob (fnmatch; a star matches dots and
 * slashes, too)? NULL matches all. */
bool tool_matches(const struct catalog *catalog,
		  const struct catalog_entry *entry, const char *glob);

/* The name of @entry on one line of a terminal: control bytes and what is not
 * UTF-8 replaced. Terminated, appended to @out. 0 or -ENOMEM. */
int tool_print_name(const struct catalog *catalog,
		    const struct catalog_entry *entry, struct array *out);

/* ---- work on all cores ----------------------------------------------------- */

struct tool_job {
	/*
	 * Do unit @index of the work, on thread @thread. 0, or -errno, which
	 * ends the whole. Units are started in ascending order.
	 */
	int (*work)(void *context, unsigned thread, uint64_t index);
	void *context;
	uint64_t count;		/* of units */
};

/* Threads of a job: one for each core that we may use. */
unsigned tool_thread_count(void);
/* 0, the first -errno of a unit, or -EINTR after SIGINT or SIGTERM. */
int tool_work(const struct tool_job *job);
/* SIGINT or SIGTERM came: whoever has something to clean up stops. */
bool tool_interrupted(void);

/*
 * Progress, on standard error if that is a terminal and only then: a line
 * that is written over, with bytes done, rate and time left. Thread safe.
 */
void tool_progress_begin(uint64_t size);
void tool_progress_add(uint64_t size);
/* Takes the line away. */
void tool_progress_end(void);

#endif
