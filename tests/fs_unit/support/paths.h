/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests ask the first rank for again and again, by paths of its mount.
 * What goes wrong fails the test, unless the error is what is asked for. All
 * that is looked up stays looked up.
 */
#ifndef SUPPORT_PATHS_H
#define SUPPORT_PATHS_H

#include "support/kernel.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The inode of @path; "" is the mount itself. */
uint64_t paths_find(const char *path);
/* With all that is said of it. */
struct fuse_entry_out paths_entry(const char *path);
/* What looking for @path ends with: 0 or -errno. */
int paths_error(const char *path);

/* Does the daemon know an inode of this number? */
bool paths_is_known(uint64_t node);
/* It does not, when all that may still work on it has ended. */
void paths_check_gone(uint64_t node);

/* The names in the folder @path are @names, sorted, each with a line end. */
void paths_check_names(const char *path, const char *names);

/* Open a file that can be opened. */
struct fuse_open_out paths_open(uint64_t node);
/* All bytes of an open file, read in as few requests as can be, and a zero
 * behind them; the caller frees. @ret_size may be NULL. */
unsigned char *paths_read_open(uint64_t node, uint64_t handle,
			       size_t *ret_size);
/* The same of a file that is opened for that. */
unsigned char *paths_read(const char *path, size_t *ret_size);

/* A number in the text of MNT/.ckptfs/metrics, by the start of its line. */
uint64_t paths_metric(const char *text, const char *line);

#endif
