/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open file that must keep its bytes, whatever becomes of its name: it may
 * be removed, renamed or covered, get other links, another mode or owner. All
 * of these change its ctime, which is also all that tells of a file that was
 * rewritten and whose mtime was set back.
 *
 *	as pinned -> moved	its ctime is later, and something explains that
 *	either -> changed	for good
 */
#ifndef SHARD_BASE_SAME_BYTES_H
#define SHARD_BASE_SAME_BYTES_H

#include "shard/base/pin.h"

#include <pthread.h>
#include <stdatomic.h>

struct same_bytes {
	struct pin pin;		/* when it was first seen; const */
	atomic_bool moved, changed;
	struct pin later;	/* once it has moved; guarded by the lock that
				 * the functions are given */
};

/* Where its name is: a folder and a path below it. */
struct same_bytes_name {
	int folder;
	const char *path;
};

/* Does the open file @fd have its bytes still? Takes @lock only when it is not
 * as it was pinned. 0, -ESTALE, or -errno when it cannot be asked. */
int same_bytes_check(struct same_bytes *bytes, pthread_mutex_t *lock, int fd,
		     const struct same_bytes_name *name);
/* The same with the lock held. */
int same_bytes_check_locked(struct same_bytes *bytes, int fd,
			    const struct same_bytes_name *name);

#endif
