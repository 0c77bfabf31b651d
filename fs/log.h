/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines: `ckptfs: LEVEL: text`, one write each, from any thread. To
 * stderr until log_background, then to the file of log_open, or to syslog.
 */
#ifndef FS_LOG_H
#define FS_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO };

/* Also append to the file @path. 0 or -errno. */
int log_open(const char *path);

/* Stderr goes away. */
void log_background(void);

/* Long texts are cut; unprintable bytes become '?'. */
__attribute__((format(printf, 2, 3)))
void log_line(enum log_level level, const char *format, ...);

#endif
