/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/fuse/client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A set of signals as /proc prints it: bit n - 1 is signal n. */
#define BIT(number) ((uint64_t)1 << ((number)-1))

/* Those that end nobody by default. */
#define HARMLESS \
	(BIT(SIGCHLD) | BIT(SIGCONT) | BIT(SIGSTOP) | BIT(SIGTSTP) | \
	 BIT(SIGTTIN) | BIT(SIGTTOU) | BIT(SIGURG) | BIT(SIGWINCH))

/* /proc/TID/status, or its start: the lines that matter come behind the one of
 * the groups, of which there may be thousands. */
static bool read_status(pid_t tid, char *text, size_t size)
{
	char path[40];
	size_t done = 0;
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	do {
		got = read(fd, text + done, size - 1 - done);
		if (got > 0)
			done += (size_t)got;
	} while (got > 0 || (got < 0 && errno == EINTR));
	close(fd);
	text[done] = '\0';
	return got == 0;
}

/* The signals in the line that starts with @name. */
static bool find_set(const char *text, const char *name, uint64_t *ret_set)
{
	const char *line = strstr(text, name);

	return line && sscanf(line + strlen(name), "%" SCNx64, ret_set) == 1;
}

bool client_is_dying(pid_t tid)
{
	uint64_t own, shared, blocked, ignored, caught;
	char text[16384];
	const char *tracer;

	if (tid <= 0 || !read_status(tid, text, sizeof(text)) ||
	    !find_set(text, "\nSigPnd:", &own) ||
	    !find_set(text, "\nShdPnd:", &shared) ||
	    !find_set(text, "\nSigBlk:", &blocked) ||
	    !find_set(text, "\nSigIgn:", &ignored) ||
	    !find_set(text, "\nSigCgt:", &caught))
		return true;
	/* Most signals that end a process are made this one on the way. */
	if (own & BIT(SIGKILL))
		return true;
	/* Not those that leave a core, nor of who is traced; and a debugger
	 * may take a signal away. */
	tracer = strstr(text, "\nTracerPid:\t");
	if (tracer && strncmp(tracer, "\nTracerPid:\t0\n", 14) != 0)
		return false;
	return (own | shared) & ~(HARMLESS | blocked | ignored | caught);
}
