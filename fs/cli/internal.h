/* SPDX-License-Identifier: Apache-2.0 */
/* What tool.c, open.c, print.c and work.c have with each other. */
#ifndef FS_CLI_INTERNAL_H
#define FS_CLI_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that decoded items may take; before anything is opened. */
void open_set_cache_size(uint64_t size);
/* Nothing that was opened is in use any more. */
void open_finish(void);

/* End the process by the signal that came. */
void work_end_by_signal(void);

/*
 * Does all of @name match @glob: *, ?, [a-z], [!a-z], and a backslash before
 * what is meant as it is? A ? is one character of UTF-8, or one byte of what
 * is not. At most size * strlen(glob) steps.
 */
bool glob_match(const char *glob, const char *name, size_t size);

#endif
