/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

static atomic_int file = -1;
static atomic_bool background;
static char who[24];		/* const once there are threads */

void log_set_rank(unsigned rank)
{
	snprintf(who, sizeof(who), "rank %u: ", rank);
}

const char *log_rank(void)
{
	return who;
}

int log_open(const char *path)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0)
		return -errno;
	atomic_store(&file, fd);
	return 0;
}

void log_background(void)
{
	openlog("ckptfs", LOG_PID, LOG_DAEMON);
	atomic_store(&background, true);
}

static void put(int fd, const char *text, size_t size)
{
	/* Nobody is left to hear about a log that cannot be written. */
	if (write(fd, text, size) < 0)
		return;
}

void log_line(enum log_level level, const char *format, ...)
{
	static const char *const names[] = { "error", "warning", "info" };
	static const int priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO };
	char line[1024];
	int size, prefix;
	va_list args;
	char *p;

	prefix = snprintf(line, sizeof(line), "ckptfs: %s: %s", names[level],
			  who);
	va_start(args, format);
	size = vsnprintf(line + prefix, sizeof(line) - (size_t)prefix - 1,
			 format, args);
	va_end(args);
	if (size < 0)
		return;
	size = (int)strlen(line);
	for (p = line; p < line + size; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	if (atomic_load(&background) && atomic_load(&file) < 0)
		syslog(priorities[level], "%s", line + strlen("ckptfs: "));
	line[size++] = '\n';
	if (atomic_load(&file) >= 0)
		put(atomic_load(&file), line, (size_t)size);
	if (!atomic_load(&background))
		put(STDERR_FILENO, line, (size_t)size);
}
