/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ckptfs --wait MOUNTPOINT: a thread asks the mount again and again, and may
 * hang in that as long as the mount does; the main thread only looks at what
 * was said last, and at the clock.
 */
#include "fs/cli/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TEXT_MAX = 1024 * 1024, AGAIN_MS = 50,
       NOTICE_TRIES = 3000 / AGAIN_MS };	/* until it is said */

struct mount_waiter {
	const char *point;
	pthread_mutex_t lock;
	pthread_cond_t news;
	char *text;		/* owned; what metrics said last; guarded by
				 * lock */
	bool asked;		/* something was found out; likewise */
};

static const char usage_text[] =
"usage: ckptfs --wait MOUNTPOINT [--timeout SECONDS]\n"
"\n"
"Wait until all ranks of the mount at MOUNTPOINT serve: then the exit status\n"
"is 0. After SECONDS, without end if it is not given, it is 1, and those that\n"
"are missing are named on standard error.\n";

/* The whole file; NULL: it is not there. */
static char *read_metrics(const char *point)
{
	char path[4200], *text = NULL;
	size_t size = 0;
	ssize_t got = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/.ckptfs/metrics", point);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	text = malloc(TEXT_MAX + 1);
	do {
		if (text)
			got = read(fd, text + size, TEXT_MAX - size);
		size += got > 0 ? (size_t)got : 0;
	} while (text && got > 0);
	close(fd);
	if (text && got == 0) {
		text[size] = '\0';
		return text;
	}
	free(text);
	return NULL;
}

static void *ask(void *context)
{
	const struct timespec pause = { 0, AGAIN_MS * 1000000 };
	struct mount_waiter *w = context;
	unsigned tries;

	for (tries = 1;; tries++) {
		char *text = read_metrics(w->point);

		if (!text && tries == NOTICE_TRIES)
			fprintf(stderr, "ckptfs: %s: no ckptfs is mounted there yet\n",
				w->point);

		pthread_mutex_lock(&w->lock);
		free(w->text);
		w->text = text;
		w->asked = true;
		pthread_cond_signal(&w->news);
		pthread_mutex_unlock(&w->lock);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

/* Ranks that do not serve; @say names them. -1: nobody knows any ranks. */
static int count_missing(const char *text, bool say)
{
	unsigned rank;
	char state[32];
	int missing = 0, found = 0, up, start, end;

	for (; text; text = strchr(text, '\n')) {
		text += *text == '\n';
		if (sscanf(text, "ckptfs_rank_up{rank=\"%u\",host=\"%n", &rank,
			   &start) < 1)
			continue;
		end = start + (int)strcspn(text + start, "\"");
		if (sscanf(text + end, "\",state=\"%31[^\"]\"} %d", state,
			   &up) != 2)
			continue;
		found++;
		missing += !up;
		if (!up && say)
			fprintf(stderr, "ckptfs: rank %u%s%.*s%s: %s\n",
				rank, end > start ? " (host " : "",
				end - start, text + start,
				end > start ? ")" : "", state);
	}
	return found ? missing : -1;
}

static int wait_for_ranks(struct mount_waiter *w, const struct timespec *until)
{
	int missing = -1, result = 0;

	pthread_mutex_lock(&w->lock);
	while (missing != 0 && result != ETIMEDOUT) {
		result = until ? pthread_cond_timedwait(&w->news, &w->lock,
							until) :
				 pthread_cond_wait(&w->news, &w->lock);
		if (w->text)
			missing = count_missing(w->text, false);
	}
	if (missing != 0) {
		missing = w->text ? count_missing(w->text, true) : -1;
		if (missing < 0)
			fprintf(stderr, w->asked ?
				"ckptfs: %s: no ckptfs is mounted there\n" :
				"ckptfs: %s: the mount does not answer\n",
				w->point);
	}
	pthread_mutex_unlock(&w->lock);
	return missing == 0 ? 0 : 1;
}

/* @seconds < 0: without an end. */
static int run(const char *point, double seconds)
{
	struct mount_waiter w = { .point = point };
	pthread_condattr_t monotonic;
	struct timespec until;
	pthread_t thread;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&w.lock, NULL);
	pthread_cond_init(&w.news, &monotonic);
	clock_gettime(CLOCK_MONOTONIC, &until);
	if (seconds >= 0) {
		/* Time for one answer. */
		seconds = seconds < 0.2 ? 0.2 : seconds;
		until.tv_sec += (time_t)seconds;
		until.tv_nsec += (long)((seconds - (double)(time_t)seconds) *
					1e9);
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
	}
	if (pthread_create(&thread, NULL, ask, &w)) {
		fprintf(stderr, "ckptfs: %s\n", strerror(EAGAIN));
		return 2;
	}
	/* The thread may hang in the mount: it ends with the process. */
	_exit(wait_for_ranks(&w, seconds >= 0 ? &until : NULL));
}

/* The value of the option @name at @argv[*i], there or in the next argument;
 * NULL: it is something else. */
static const char *value_of(const char *name, int argc, char **argv, int *i)
{
	size_t size = strlen(name);

	if (strncmp(argv[*i], name, size) != 0)
		return NULL;
	if (argv[*i][size] == '=')
		return argv[*i] + size + 1;
	return argv[*i][size] == '\0' && *i + 1 < argc ? argv[++*i] : NULL;
}

static bool parse_seconds(const char *text, double *ret_seconds)
{
	char *end;

	*ret_seconds = strtod(text, &end);
	return *end == '\0' && end != text && *ret_seconds >= 0 &&
	       *ret_seconds <= 1e9;
}

int tool_wait(int argc, char **argv)
{
	const char *point = NULL, *value;
	double seconds = -1;
	int i;

	for (i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 ||
		    strcmp(argv[i], "-h") == 0) {
			fputs(usage_text, stdout);
			return 0;
		}
		value = value_of("--timeout", argc, argv, &i);
		if (value) {
			if (parse_seconds(value, &seconds))
				continue;
			break;
		}
		if (strcmp(argv[i], "--wait") == 0)
			continue;
		value = value_of("--wait", argc, argv, &i);
		if (!value && argv[i][0] != '-')
			value = argv[i];
		if (!value || point)
			break;
		point = value;
	}
	if (i < argc || !point) {
		fputs(usage_text, stderr);
		return 2;
	}
	return run(point, seconds);
}
