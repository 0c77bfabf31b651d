/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes images to the files of an output, on all cores. Constant memory,
 * but for some bytes for each file.
 */
#ifndef FS_CLI_WRITER_H
#define FS_CLI_WRITER_H

#include "fs/cli/output.h"
#include "shard/read/virtual_file.h"

#include <limits.h>

struct writer {
	const struct checkpoint *checkpoint;	/* borrowed, like all */
	struct output *output;
	uint64_t count;			/* of files */
	/*
	 * What file @index is to hold, a reference that the caller puts, and
	 * its name; called more than once for each. Thread safe. 0 or -errno.
	 */
	int (*open)(void *context, uint64_t index,
		    struct virtual_file **ret_content,
		    char ret_name[NAME_MAX + 1]);
	void *context;
};

/* How it went wrong. */
struct writer_failure {
	int error;		/* -errno; 0: it did not */
	bool reading;		/* the checkpoint is to blame */
	uint64_t file;		/* index */
	struct fault fault;	/* of a stored item; error 0: none */
	const char *fault_file;	/* borrowed from the catalog */
};

/*
 * Make all files, write them, and see that they are on the disk. 0; -EINTR
 * after a signal; or -errno with @failure filled, whose error is the same.
 * @ret_size is what was to be written, bytes, as soon as it is known.
 */
int writer_run(const struct writer *writer, uint64_t *ret_size,
	       struct writer_failure *ret_failure);

#endif
