/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the n-th of some calls fail. The calls are wrapped by the linker, see
 * CMakeLists.txt; only those of our own objects are. */
#ifndef SUPPORT_FAIL_H
#define SUPPORT_FAIL_H

#include <stdbool.h>

enum fail_group {
	FAIL_MEMORY = 1,	/* ENOMEM */
	FAIL_READ = 2,		/* EIO */
	FAIL_OPEN = 4,		/* EMFILE */
	FAIL_STATUS = 8,	/* EIO */
	FAIL_JSON = 16,		/* NULL or -1: out of memory in json-c */
};

/* From now on call number @n (from 1) of the groups fails, and no other. */
void fail_arm(unsigned groups, unsigned n);
/* No call fails any more. True when one did. */
bool fail_disarm(void);
/* The name of the call that failed last. */
const char *fail_name(void);

#endif
