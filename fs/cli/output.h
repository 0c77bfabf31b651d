/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file, or a folder of files, that is being made: under a temporary name
 * beside the place where it will be, until it is complete. Nobody ever sees
 * half of it, and what is not committed is removed.
 */
#ifndef FS_CLI_OUTPUT_H
#define FS_CLI_OUTPUT_H

#include "shard/checkpoint/checkpoint.h"

struct output;

/*
 * Start to make @path, which must not be a file of @checkpoint. 0, or -errno;
 * when what is there must not be replaced, @ret_reason is a constant string.
 * The caller destroys it.
 */
int output_create(const char *path, bool is_folder,
		  const struct checkpoint *checkpoint,
		  struct output **ret_output, const char **ret_reason);
/* Remove what was not committed. NULL is fine. */
void output_destroy(struct output *output);

/* Make the file @name, which is ignored when there is only one, with room for
 * @size bytes, so that a full disk is noticed early. 0 or -errno. */
int output_make(struct output *output, const char *name, uint64_t size);
/* Open it for writing. Thread safe. 0 with a descriptor that the caller
 * closes, or -errno. */
int output_open(struct output *output, const char *name, int *ret_fd);

/* See that everything that was written since is on the disk, also of files
 * that are closed. 0 or -errno. */
int output_sync(struct output *output);
/* All is written and on the disk: put it in its place, for good. 0 or
 * -errno. */
int output_commit(struct output *output);

#endif
