/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where and why an input was refused. Filled by whoever refuses it, printed
 * by whoever has the log; libraries are silent.
 */
#ifndef SHARD_BASE_FAULT_H
#define SHARD_BASE_FAULT_H

#include <stdint.h>

struct fault {
	int error;		/* -errno; 0: no fault */
	const char *reason;	/* constant string */
	uint64_t offset;	/* bytes from the start of the file */
	char detail[160];	/* a name from the input, printable; or "" */
};

/* What of the input a fault is about: borrowed, with anything in it. */
struct fault_detail {
	const char *text;
	uint64_t size;		/* bytes */
};

/*
 * Fill @fault, which may be NULL, and return @error, so that a parser can
 * end with `return fault_set(...)`. @detail is copied with everything
 * unprintable replaced.
 */
int fault_set(struct fault *fault, int error, uint64_t offset,
	      const char *reason);
int fault_set_detail(struct fault *fault, int error, uint64_t offset,
		     const char *reason, struct fault_detail detail);

#endif
