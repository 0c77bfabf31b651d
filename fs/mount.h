/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount of a namespace: the session with the kernel, and the threads that
 * serve it.
 */
#ifndef FS_MOUNT_H
#define FS_MOUNT_H

#include "fs/namespace.h"

struct mount;

struct mount_options {
	const char *source;	/* what is mounted, for /proc/mounts */
	const char *path;	/* of the mount point */
	char *const *args;	/* options of libfuse, "-oro", ... */
	int arg_count;
	bool debug;
};

/* Mount @ns, which is borrowed. 0 or -errno; libfuse says why on stderr. */
int mount_open(struct namespace *ns, const struct mount_options *options,
	       struct mount **ret_mount);

/* Serve until the mount is gone or a SIGTERM, SIGINT or SIGHUP comes; @ready is called when it
 * answers. 0 or -errno. */
int mount_serve(struct mount *mount, void (*ready)(void *context),
		void *context);

/* Unmount, also when files are open, and free. NULL is fine. */
void mount_close(struct mount *mount);

#endif
