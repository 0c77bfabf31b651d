/* SPDX-License-Identifier: Apache-2.0 */
/* The threads of other processes that wait for an answer. */
#ifndef FS_FUSE_CLIENT_H
#define FS_FUSE_CLIENT_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Is thread @tid, which waits in the kernel, about to end without ever coming
 * back to its program? A signal that it handles or ignores is not the end of
 * it. Also true when that cannot be found out: @tid is 0, which is how the
 * kernel says that it lives in another pid namespace, or it is gone.
 */
bool client_is_dying(pid_t tid);

#endif
