/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/mount_point.h"

#include <errno.h>
#include <fcntl.h>
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
		dev_t here = line_device(line, path);

		if (here == 0)
			continue;
		found.top = here;
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

/* ---- the one on top ------------------------------------------------------ */

/* What is on top of a path, and stays the same whatever is mounted there
 * meanwhile. */
struct top {
	int fd;			/* O_PATH: nobody is asked */
	dev_t device;
	bool ours;
};

/* The kernel's number of a descriptor's mount; 0: not known. */
static unsigned mount_number(int fd)
{
	char path[64], line[256];
	unsigned number = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "mnt_id: %u", &number) == 1)
			break;
	if (file)
		fclose(file);
	return number;
}

static bool find_mount(struct top *top, unsigned number)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	unsigned here, device_major, device_minor;
	char *line = NULL;
	size_t size = 0;
	bool found = false;

	while (file && !found && getline(&line, &size, file) > 0) {
		found = sscanf(line, "%u %*u %u:%u", &here, &device_major,
			       &device_minor) == 3 && here == number;
		if (!found)
			continue;
		top->device = makedev(device_major, device_minor);
		top->ours = strstr(line, " - fuse.ckptfs ") != NULL;
	}
	free(line);
	if (file)
		fclose(file);
	return found;
}

static bool open_top(const char *path, struct top *ret_top)
{
	ret_top->fd = open(path, O_PATH | O_CLOEXEC | O_NOFOLLOW);
	if (ret_top->fd < 0)
		return false;
	if (find_mount(ret_top, mount_number(ret_top->fd)))
		return true;
	close(ret_top->fd);
	return false;
}

static void unmount_by_path(const char *path)
{
	pid_t pid = fork();

	if (pid == 0) {
		execlp("fusermount3", "fusermount3", "-uzq", "--", path,
		       (char *)NULL);
		_exit(1);
	}
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* By the descriptor: no other than this. */
static void unmount_top(const struct top *top, const char *path, bool may_fork)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", top->fd);
	if (umount2(link, MNT_DETACH) < 0 && errno == EPERM && may_fork)
		unmount_by_path(path);
}

void mount_point_detach(const char *path, dev_t device, bool may_fork)
{
	struct top top;

	if (!open_top(path, &top))
		return;
	if (top.ours && (top.device == device || device == 0))
		unmount_top(&top, path, may_fork);
	close(top.fd);
}

/* ---- dead ones ----------------------------------------------------------- */

/* Asking a mount may take forever: a thread does that. */
struct question {
	pthread_mutex_t lock;
	pthread_cond_t change;
	unsigned references;		/* guarded by lock, as is what follows */
	bool answered, dead;
	int fd;				/* owned; const */
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
	close(question->fd);
	free(question);
}

static void *ask(void *context)
{
	struct question *question = context;
	struct statfs status;
	/* The kernel would answer a stat from its cache. */
	bool dead = fstatfs(question->fd, &status) < 0 && errno == ENOTCONN;

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

static bool is_dead(const struct top *top)
{
	struct question *question = calloc(1, sizeof(*question));
	pthread_t thread;
	bool dead = false;

	if (!question)
		return false;
	question->fd = fcntl(top->fd, F_DUPFD_CLOEXEC, 0);
	pthread_mutex_init(&question->lock, NULL);
	pthread_cond_init(&question->change, NULL);
	question->references = 2;
	if (question->fd >= 0 &&
	    pthread_create(&thread, NULL, ask, question) == 0) {
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
	struct top top;
	dev_t before = 0;
	bool any = false, dead = true;

	while (dead && open_top(path, &top)) {
		/* The same again: it cannot be unmounted. */
		dead = top.ours && top.device != before && is_dead(&top);
		if (dead)
			unmount_top(&top, path, may_fork);
		any |= dead;
		before = top.device;
		close(top.fd);
	}
	return any;
}
