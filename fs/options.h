/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of a mount. */
#ifndef FS_OPTIONS_H
#define FS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct fuse_args;

struct options {
	int argc;		/* the words that the process was started with; */
	char **argv;		/* borrowed */
	char *source, *path;	/* owned, as are all texts */
	char *log;
	char *name;		/* fsname= */
	char *decoded_cache;	/* a size */
	char *hf_root, *hf_assets;
	char *deadline;		/* seconds */
	int foreground, debug, help, version, force_mpi;
	/* What follows from them: */
	uint64_t decoded_size;	/* bytes */
	unsigned deadline_ms;
	/* And from mpirun: */
	unsigned rank, count;	/* of this process, of all; 0 of 1 */
	bool under_mpirun;
};

/* 0, or -EINVAL. What is left in @args is for libfuse. */
int options_parse(struct fuse_args *args, struct options *ret_options);
void options_finish(struct options *options);

/* False: the text says what is wrong. */
bool options_check(struct options *options, const char **ret_trouble);
/* Which rank this is; replaces %r and %h. 0 or -ENOMEM. */
int options_find_ranks(struct options *options);
/* What libfuse is to be told besides. 0 or -ENOMEM. */
int options_add_libfuse(const struct options *options, struct fuse_args *args);

void options_print_help(void);

#endif
