/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines: `ckptfs: LEVEL: text`, or `ckptfs: LEVEL: rank N: text` when
 * there are several, one write each, from any thread. To stderr until
 * log_background, then to the file of log_open, or to syslog.
 */
#ifndef FS_LOG_H
#define FS_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO };

/* Also append to the file @path. 0 or -errno. */
int log_open(const char *path);

/* There are others: say which rank says it. Before there are threads. */
void log_set_rank(unsigned rank);
/* "rank N: ", or "". */
const char *log_rank(void);

/* Stderr goes away. */
void log_background(void);

/* Long texts are cut; unprintable bytes become '?'. */
__attribute__((format(printf, 2, 3)))
void log_line(enum log_level level, const char *format, ...);

#endif
