/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that got a signal which they survive, while they wait for an answer.
 * The kernel says only once that a client has got a signal, so that whether
 * it is killed later must be looked at: ten times a second, by a thread that
 * sleeps while there is nobody to look at.
 */
#ifndef FS_FUSE_INTERRUPT_H
#define FS_FUSE_INTERRUPT_H

#include <stdbool.h>
#include <sys/queue.h>
#include <sys/types.h>

struct watch;

/* Embedded in what the client waits for, zeroed before. */
struct watched {
	/* Called at most once, by the watch's thread, with no lock held: the
	 * client is dying. */
	void (*dying)(struct watched *watched);
	pid_t tid;			/* of the client */
	bool linked;			/* guarded by the watch's lock */
	LIST_ENTRY(watched) link;	/* likewise */
};

/* NULL: out of memory. */
struct watch *watch_create(void);
/* When nobody is watched. NULL is fine. */
void watch_destroy(struct watch *watch);

/* Nothing if it is watched. Without memory for a thread nobody is. */
void watch_add(struct watch *watch, struct watched *watched);
/* It is not watched any more, and its `dying` does not run. Nothing if it is
 * not watched. */
void watch_remove(struct watch *watch, struct watched *watched);

#endif
