/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's side of a FUSE session, without a kernel: requests as
 * linux/fuse.h has them go to a session, and its answers come back. What is
 * asked is what a real kernel could ask; what it would refuse by itself (a name
 * that is too long, a write to a read-only mount) is not refused here. A second
 * answer to a request, or one to none, fails the test.
 *
 * Waiting fails the test after 20 seconds.
 */
#ifndef SUPPORT_KERNEL_H
#define SUPPORT_KERNEL_H

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fuse_session;
struct kernel;

/* That of @session, which must not be mounted. Say hello with kernel_init when
 * somebody serves it. */
struct kernel *kernel_create(struct fuse_session *session);
void kernel_init(struct kernel *kernel);
/* No more requests: who serves the session sees its end. */
void kernel_close(struct kernel *kernel);
/* After the session is destroyed. Each request that has an answer must have
 * had it, and been asked for it. */
void kernel_destroy(struct kernel *kernel);

/* The process that asks from now on; that of the test otherwise. */
void kernel_set_pid(struct kernel *kernel, pid_t pid);

/* ---- one request --------------------------------------------------------- */

/* Send it: @args, then @name and its end unless that is NULL. Returns its
 * number. */
uint64_t kernel_ask(struct kernel *kernel, uint32_t opcode, uint64_t node,
		    const void *args, size_t size, const char *name);
/* Wait for its answer: 0 or -errno, and up to @size bytes. */
int kernel_answer(struct kernel *kernel, uint64_t unique, void *out,
		  size_t size, size_t *ret_got);
/* Some to be waited for so. */
uint64_t kernel_ask_lookup(struct kernel *kernel, uint64_t parent,
			   const char *name);
uint64_t kernel_ask_open(struct kernel *kernel, uint64_t node);
uint64_t kernel_ask_opendir(struct kernel *kernel, uint64_t node);
uint64_t kernel_ask_read(struct kernel *kernel, uint64_t node, uint64_t handle,
			 uint64_t offset, size_t size);
/* Until the daemon has seen all that was sent before: what has no answer, and
 * what must not have one yet. */
void kernel_settle(struct kernel *kernel);
/* Has it come? */
bool kernel_has_answer(struct kernel *kernel, uint64_t unique);
/* The number of the next request: its client may get a signal before a thread
 * of the daemon has read it. */
uint64_t kernel_next(struct kernel *kernel);
/* The client of @unique has got a signal. */
void kernel_interrupt(struct kernel *kernel, uint64_t unique);
/* It has forgotten about the request: its answer will be refused. */
void kernel_drop(struct kernel *kernel, uint64_t unique);
/* Until the answer to a dropped one has been refused. */
void kernel_await_refused(struct kernel *kernel, uint64_t unique);

/* ---- whole operations ---------------------------------------------------- */

int kernel_lookup(struct kernel *kernel, uint64_t parent, const char *name,
		  struct fuse_entry_out *ret_entry);
/* Part by part from the root. All parts but the last stay looked up, as the
 * folders above what a kernel knows do. */
int kernel_walk(struct kernel *kernel, const char *path,
		struct fuse_entry_out *ret_entry);
void kernel_forget(struct kernel *kernel, uint64_t node, uint64_t count);
/* Several in one request. */
void kernel_forget_multi(struct kernel *kernel,
			 const struct fuse_forget_one *forgets,
			 uint32_t count);
int kernel_getattr(struct kernel *kernel, uint64_t node,
		   struct fuse_attr_out *ret_attr);
/* The target, terminated. */
int kernel_readlink(struct kernel *kernel, uint64_t node, char ret[4096]);
/* @size 0 asks for the size. */
int kernel_getxattr(struct kernel *kernel, uint64_t node, const char *name,
		    void *out, size_t size, size_t *ret_got);
int kernel_listxattr(struct kernel *kernel, uint64_t node, void *out,
		     size_t size, size_t *ret_got);
int kernel_statfs(struct kernel *kernel, uint64_t node,
		  struct fuse_statfs_out *ret_status);

int kernel_open(struct kernel *kernel, uint64_t node,
		struct fuse_open_out *ret_open);
int kernel_read(struct kernel *kernel, uint64_t node, uint64_t handle,
		uint64_t offset, size_t size, void *out, size_t *ret_got);
void kernel_release(struct kernel *kernel, uint64_t node, uint64_t handle);

int kernel_opendir(struct kernel *kernel, uint64_t node,
		   struct fuse_open_out *ret_open);
void kernel_releasedir(struct kernel *kernel, uint64_t node, uint64_t handle);

/* An entry of a folder. Lookups that a listing gives are the caller's. */
struct kernel_dirent {
	char name[256];
	uint32_t type;			/* DT_REG, ... */
	uint64_t ino;
	struct fuse_entry_out entry;	/* of readdirplus; nodeid 0: none */
};

/* At most @max entries of an open folder, by requests of @size bytes; their
 * number goes to @ret_count. */
int kernel_readdir(struct kernel *kernel, uint64_t node, uint64_t handle,
		   bool plus, size_t size, struct kernel_dirent *entries,
		   size_t max, size_t *ret_count);
/* The names of a folder that is opened for that, sorted, each with a line end
 * behind it, without . and ..; the caller frees them. */
int kernel_list(struct kernel *kernel, const char *path, char **ret_names);

/* ---- what the session says by itself ------------------------------------- */

struct kernel_notice {
	enum fuse_notify_code code;	/* of an inode, or of a name in it */
	uint64_t node;
	char name[256];
};

/* The next one, in their order; waits. */
void kernel_next_notice(struct kernel *kernel, struct kernel_notice *ret);
/* So far. */
unsigned kernel_count_notices(struct kernel *kernel);

#endif
