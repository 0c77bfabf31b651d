/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is mounted at a path. Mounts stand on one another there, and the
 * kernel unmounts by path, whatever is on top: whoever ends one looks first
 * whether that is his, in /proc/self/mountinfo: to ask the mount itself would
 * keep it busy, or hang.
 */
#ifndef SHARD_BASE_MOUNT_POINT_H
#define SHARD_BASE_MOUNT_POINT_H

#include <stdbool.h>
#include <sys/types.h>

enum mount_place {
	MOUNT_NONE,
	MOUNT_COVERED,		/* something else is mounted over it */
	MOUNT_ON_TOP,
};

/* The device of the mount of ours that is on top at the real path @path; 0:
 * there is none. */
dev_t mount_point_device(const char *path);

/* Where the mount with the device @device is at the real path @path. */
enum mount_place mount_point_find(const char *path, dev_t device);

/* Unmount the FUSE mount of ours with the device @device, 0: whichever it is,
 * if it is on top at the real path @path, also when files of it are open. Whom
 * the kernel does not let needs fusermount3, and is helped if he @may_fork: not
 * after MPI has started. */
void mount_point_detach(const char *path, dev_t device, bool may_fork);

/* Unmount what is on top at the real path @path as long as that is a mount of
 * a ckptfs which is gone, likewise. Was there one? May leave a thread behind
 * that waits for one that does not answer, and ends with the process. */
bool mount_point_clear(const char *path, bool may_fork);

#endif
