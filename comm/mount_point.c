/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/mount_point.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK_MAX = 16 };

/* Undo the escapes of /proc/self/mountinfo: a backslash, three digits. */
static void unescape(char *text)
{
	char *to = text;

	while (*text) {
		unsigned code;

		if (*text == '\\' && sscanf(text + 1, "%3o", &code) == 1) {
			*to++ = (char)code;
			text += 4;
		} else {
			*to++ = *text++;
		}
	}
	*to = '\0';
}

/* The device of a line, if that is of @path; 0 otherwise. */
static dev_t line_device(char *line, const char *path)
{
	unsigned device_major, device_minor;
	int start, end;

	if (sscanf(line, "%*u %*u %u:%u %*s %n%*s%n", &device_major,
		   &device_minor, &start, &end) != 2)
		return 0;
	line[end] = '\0';
	unescape(line + start);
	return strcmp(line + start, path) == 0 ?
	       makedev(device_major, device_minor) : 0;
}

struct found {
	dev_t top;		/* 0: there is none */
	bool ours;		/* a mount of a ckptfs, of any process */
	bool has_device;	/* the wanted one is among them */
};

/* Of several, the last one is on top. */
static struct found look(const char *path, dev_t device)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	struct found found = { .top = 0 };
	char *line = NULL;
	size_t size = 0;

	while (file && getline(&line, &size, file) > 0) {
		bool ours = strstr(line, " - fuse.ckptfs ") != NULL;
		dev_t here = line_device(line, path);

		if (here == 0)
			continue;
		found.top = here;
		found.ours = ours;
		found.has_device |= here == device;
	}
	free(line);
	if (file)
		fclose(file);
	return found;
}

dev_t mount_point_device(const char *path)
{
	return look(path, 0).top;
}

enum mount_place mount_point_find(const char *path, dev_t device)
{
	struct found found = look(path, device);

	return !found.has_device ? MOUNT_NONE :
	       found.top == device ? MOUNT_ON_TOP : MOUNT_COVERED;
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void mount_point_detach(const char *path, bool may_fork)
{
	pid_t pid;

	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || !may_fork)
		return;
	pid = fork();
	if (pid == 0) {
		execlp("fusermount3", "fusermount3", "-uzq", "--", path,
		       (char *)NULL);
		_exit(1);
	}
	if (pid > 0)
		wait_for(pid);
}

/* Asking it may take forever when it is not: by a process that may be killed.
 * The kernel would answer a stat from its cache. */
static bool is_dead(const char *path)
{
	struct statfs status;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(1);
		_exit(statfs(path, &status) < 0 && errno == ENOTCONN);
	}
	return pid > 0 && wait_for(pid) == 1;
}

bool mount_point_clear(const char *path)
{
	bool any = false;
	unsigned i;

	for (i = 0; i < STACK_MAX && look(path, 0).ours && is_dead(path); i++) {
		mount_point_detach(path, true);
		any = true;
	}
	return any;
}
