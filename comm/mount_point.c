/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/mount_point.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How long a mount may take to say whether it is alive. */
enum { ASK_S = 1 };

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
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* ---- dead ones ----------------------------------------------------------- */

/* Asking a mount may take forever: a thread does that. */
struct question {
	pthread_mutex_t lock;
	pthread_cond_t change;
	unsigned references;		/* guarded by lock, as is what follows */
	bool answered, dead;
	char path[];			/* const */
};

static void put_question(struct question *question)
{
	unsigned references;

	pthread_mutex_lock(&question->lock);
	references = --question->references;
	pthread_mutex_unlock(&question->lock);
	if (references > 0)
		return;
	pthread_mutex_destroy(&question->lock);
	pthread_cond_destroy(&question->change);
	free(question);
}

static void *ask(void *context)
{
	struct question *question = context;
	struct statfs status;
	/* The kernel would answer a stat from its cache. */
	bool dead = statfs(question->path, &status) < 0 && errno == ENOTCONN;

	pthread_mutex_lock(&question->lock);
	question->answered = true;
	question->dead = dead;
	pthread_cond_signal(&question->change);
	pthread_mutex_unlock(&question->lock);
	put_question(question);
	return NULL;
}

static bool wait_for_answer(struct question *question)
{
	struct timespec until;
	bool dead;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ASK_S;
	pthread_mutex_lock(&question->lock);
	while (!question->answered)
		if (pthread_cond_timedwait(&question->change, &question->lock,
					   &until) == ETIMEDOUT)
			break;
	dead = question->dead;
	pthread_mutex_unlock(&question->lock);
	return dead;
}

static bool is_dead(const char *path)
{
	size_t size = strlen(path) + 1;
	struct question *question = calloc(1, sizeof(*question) + size);
	pthread_t thread;
	bool dead = false;

	if (!question)
		return false;
	memcpy(question->path, path, size);
	pthread_mutex_init(&question->lock, NULL);
	pthread_cond_init(&question->change, NULL);
	question->references = 2;
	if (pthread_create(&thread, NULL, ask, question) == 0) {
		pthread_detach(thread);
		dead = wait_for_answer(question);
	} else {
		question->references = 1;
	}
	put_question(question);
	return dead;
}

bool mount_point_clear(const char *path, bool may_fork)
{
	dev_t before = 0;
	bool any = false;

	for (;;) {
		struct found found = look(path, 0);

		/* The same again: it cannot be unmounted. */
		if (!found.ours || found.top == before || !is_dead(path))
			return any;
		mount_point_detach(path, may_fork);
		any = true;
		before = found.top;
	}
}
