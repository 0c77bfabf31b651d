/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whoever adds bytes and finds that the line is a tenth of a second old writes
 * it anew; nobody waits for it. The time at which that is due is what the
 * threads compete for.
 */
#include "fs/cli/tool.h"
#include "shard/base/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PERIOD_NS = 100 * 1000 * 1000 };

static struct {
	bool shown;		/* const between begin and end */
	uint64_t size;		/* likewise, bytes */
	int64_t begin;		/* likewise, ns */
	_Atomic uint64_t done;	/* bytes */
	_Atomic int64_t due;	/* ns: when to write the line again */
	pthread_mutex_t lock;	/* of what is on the line */
	unsigned width;		/* characters on it; guarded by lock */
} progress = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Write @text over what is there. Blanks, and not an escape sequence, take
 * the rest away: every terminal knows them. */
static void put_locked(const char *text)
{
	unsigned width = (unsigned)strlen(text);
	unsigned old = progress.width > width ? progress.width : width;

	if (old == 0)
		return;
	fprintf(stderr, "\r%-*s%s", (int)old, text, width ? "" : "\r");
	fflush(stderr);
	progress.width = width;
}

static void format_time(double seconds, char *text, size_t size)
{
	unsigned s = seconds < 1e9 ? (unsigned)(seconds + 0.5) : 0;

	if (s >= 3600)
		snprintf(text, size, "%u:%02u:%02u", s / 3600, s / 60 % 60,
			 s % 60);
	else
		snprintf(text, size, "%u:%02u", s / 60, s % 60);
}

static void write_line(int64_t now)
{
	double elapsed = (double)(now - progress.begin) / 1e9;
	uint64_t done = atomic_load(&progress.done);
	double rate = (double)done / (elapsed > 0 ? elapsed : 1);
	char left[24], size[16], total[16], speed[16], line[128];

	if (done > progress.size)
		done = progress.size;
	tool_format_size(done, size);
	tool_format_size(progress.size, total);
	tool_format_size((uint64_t)rate, speed);
	format_time(rate > 0 ? (double)(progress.size - done) / rate : 0,
		    left, sizeof(left));
	snprintf(line, sizeof(line), "%s of %s, %u %%, %s/s, %s left", size,
		 total, (unsigned)((double)done * 100 /
				   (double)(progress.size ? progress.size : 1)),
		 speed, left);
	pthread_mutex_lock(&progress.lock);
	put_locked(line);
	pthread_mutex_unlock(&progress.lock);
}

void tool_progress_begin(uint64_t size)
{
	progress.shown = isatty(STDERR_FILENO);
	progress.size = size;
	progress.begin = (int64_t)clock_ns();
	atomic_store(&progress.done, 0);
	/* What is done at once needs no line. */
	atomic_store(&progress.due, progress.begin + 5 * (int64_t)PERIOD_NS);
}

void tool_progress_add(uint64_t size)
{
	int64_t now, due;

	if (!progress.shown)
		return;
	atomic_fetch_add(&progress.done, size);
	now = (int64_t)clock_ns();
	due = atomic_load(&progress.due);
	if (now >= due &&
	    atomic_compare_exchange_strong(&progress.due, &due,
					   now + PERIOD_NS))
		write_line(now);
}

void tool_progress_hide(void)
{
	if (!progress.shown)
		return;
	pthread_mutex_lock(&progress.lock);
	put_locked("");
	pthread_mutex_unlock(&progress.lock);
}

void tool_progress_end(void)
{
	tool_progress_hide();
	progress.shown = false;
}
