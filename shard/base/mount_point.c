/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/mount_point.h"

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

/* One line of /proc/self/mountinfo. */
struct mount_entry {
	unsigned number;
	dev_t device;
	const char *point;	/* real path, until the next line */
	bool ours;		/* of a ckptfs, in any process */
};

struct mount_table {
	FILE *file;
	char *line;
	size_t size;
};

static bool next_mount(struct mount_table *table, struct mount_entry *ret)
{
	while (table->file &&
	       getline(&table->line, &table->size, table->file) > 0) {
		unsigned device_major, device_minor;
		int start, end;

		if (sscanf(table->line, "%u %*u %u:%u %*s %n%*s%n",
			   &ret->number, &device_major, &device_minor, &start,
			   &end) != 3)
			continue;
		ret->device = makedev(device_major, device_minor);
		ret->ours = strstr(table->line, " - fuse.ckptfs ") != NULL;
		ret->point = table->line + start;
		table->line[end] = '\0';
		unescape(table->line + start);
		return true;
	}
	return false;
}

static void open_table(struct mount_table *table)
{
	*table = (struct mount_table){
		.file = fopen("/proc/self/mountinfo", "re"),
	};
}

static void close_table(struct mount_table *table)
{
	free(table->line);
	if (table->file)
		fclose(table->file);
}

enum mount_place mount_point_find(const char *path, dev_t device)
{
	enum mount_place place = MOUNT_NONE;
	struct mount_table table;
	struct mount_entry mounted;

	open_table(&table);
	while (next_mount(&table, &mounted)) {
		if (strcmp(mounted.point, path) != 0)
			continue;
		/* Of several, the last one is on top. */
		if (mounted.device == device)
			place = MOUNT_ON_TOP;
		else if (place == MOUNT_ON_TOP)
			place = MOUNT_COVERED;
	}
	close_table(&table);
	return place;
}

/* ---- the one on top ------------------------------------------------------ */

/* What is on top of a path, and stays the same whatever is mounted there
 * meanwhile. */
struct mount_top {
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

static bool find_mount(struct mount_top *top, unsigned number)
{
	struct mount_table table;
	struct mount_entry mounted = { .device = 0 };
	bool found = false;

	open_table(&table);
	while (!found && next_mount(&table, &mounted))
		found = mounted.number == number;
	close_table(&table);
	top->device = mounted.device;
	top->ours = mounted.ours;
	return found;
}

static bool open_top(const char *path, struct mount_top *ret_top)
{
	ret_top->fd = open(path, O_PATH | O_CLOEXEC | O_NOFOLLOW);
	if (ret_top->fd < 0)
		return false;
	if (find_mount(ret_top, mount_number(ret_top->fd)))
		return true;
	close(ret_top->fd);
	return false;
}

dev_t mount_point_device(const char *path)
{
	struct mount_top top;

	if (!open_top(path, &top))
		return 0;
	close(top.fd);
	return top.ours ? top.device : 0;
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
static void unmount_top(const struct mount_top *top, const char *path,
			bool may_fork)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", top->fd);
	if (umount2(link, MNT_DETACH) < 0 && errno == EPERM && may_fork)
		unmount_by_path(path);
}

void mount_point_detach(const char *path, dev_t device, bool may_fork)
{
	struct mount_top top;

	if (!open_top(path, &top))
		return;
	if (top.ours && (top.device == device || device == 0))
		unmount_top(&top, path, may_fork);
	close(top.fd);
}

/* ---- dead ones ----------------------------------------------------------- */

/* Asking a mount may take forever: a thread does that. */
struct mount_question {
	pthread_mutex_t lock;
	pthread_cond_t change;
	unsigned references;		/* guarded by lock, as is the rest */
	bool answered, dead;
	int fd;				/* owned; const */
};

static void put_question(struct mount_question *question)
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
	struct mount_question *question = context;
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

static bool wait_for_answer(struct mount_question *question)
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

static bool is_dead(const struct mount_top *top)
{
	struct mount_question *question = calloc(1, sizeof(*question));
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
	struct mount_top top;
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
