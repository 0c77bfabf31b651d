/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount of a namespace: the session with the kernel, and the threads that
 * serve it.
 */
#ifndef FS_FUSE_MOUNT_H
#define FS_FUSE_MOUNT_H

#include "fs/tree/namespace.h"

struct mount;

struct mount_options {
	const char *source;	/* the path of what is mounted */
	const char *path;	/* of the mount point */
	char *const *args;	/* options of libfuse, "-oro", ... */
	int arg_count;
	unsigned ranks;		/* of the job; 1: there are no others */
};

/* A mount to be, of @ns, which is borrowed and need not be there yet. 0;
 * -EINVAL for an option that libfuse does not know, which it says on stderr;
 * -errno. */
int mount_create(struct namespace *ns, const struct mount_options *options,
		 struct mount **ret_mount);

/* Mount it. 0; -EIO when libfuse has said why on stderr; -errno. */
int mount_attach(struct mount *mount);

/* Serve until the mount is gone or a SIGTERM, SIGINT or SIGHUP comes; @ready
 * is called when it answers. 0 or -errno. */
int mount_serve(struct mount *mount, void (*ready)(void *context),
		void *context);

/* Let mount_serve end with -ECANCELED. Thread safe. */
void mount_fail(struct mount *mount);

/* The threads for whatever may block; borrowed. */
struct pool *mount_pool(struct mount *mount);
/* The real paths of the mount point and of what is mounted, once it is
 * attached; borrowed. */
const char *mount_path(const struct mount *mount);
const char *mount_source(const struct mount *mount);

/* Its device, once it is attached; 0: not known. */
dev_t mount_device(const struct mount *mount);

/* Take it out of sight, unless something else is mounted over it: what is open
 * is still served. May be called again. */
void mount_detach(struct mount *mount);

/* Unmount, also when files are open, and free. NULL is fine. */
void mount_destroy(struct mount *mount);

#endif
