/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call is tried on the thread that received it, which must not block; when
 * the namespace says -EAGAIN, the same function runs again on the pool, where
 * it may. A client that is killed meanwhile must not wait for that: it is
 * answered at once, and what the pool finds is thrown away. A client that
 * gets a signal which it survives is not, since its read would fail.
 *
 *	HERE		tried by the thread that received it
 *	REGISTERING	libfuse is being told whom to call at an interrupt
 *	EARLY		it has called meanwhile
 *	ARMED		the first to set ANSWERED is the one who replies
 *	ANSWERED
 *
 *	HERE -> REGISTERING	the call would block
 *	REGISTERING -> EARLY	on_interrupt
 *	REGISTERING -> ARMED	registered
 *	EARLY -> ARMED		registered; then the client is looked at
 *	ARMED -> ANSWERED	the pool, with the result (call_claim);
 *				on_interrupt or the watch, with EINTR, when the
 *				client is dying; or go_to_pool, with EINTR or
 *				what the pool says
 *
 * libfuse calls on_interrupt with a lock of the request held: from within the
 * registration, if the interrupt came before it, where a reply would free the
 * request and its lock; or from the thread that received the interrupt, which
 * holds the request by a count, where a reply is fine. Hence EARLY. Taking the
 * registration back waits for an on_interrupt that runs: whoever else has set
 * ANSWERED does so before the reply, so that none is left when the request,
 * or the call, goes. After on_interrupt has set it, it leaves the call alone.
 *
 * The kernel sends one interrupt for a request, whatever else comes later: a
 * client that survived its signal is watched from then on.
 *
 * While the kernel waits for an answer, it keeps the inode and does not close
 * what is open. When it has one, it does not, although the call may still run:
 * what goes to the pool has its own hold on these. It is let go, and the call
 * freed, where it has run, whoever replied.
 */
#define FUSE_USE_VERSION 314
#include "fs/fuse/request.h"

#include "fs/fuse/client.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

enum { HERE, REGISTERING, EARLY, ARMED, ANSWERED };

struct call call_make(struct fuse_req *request, uint64_t inode,
		      int (*run)(struct call *, bool))
{
	return (struct call){ .run = run, .ops = fuse_req_userdata(request),
			      .request = request, .inode = inode };
}

/* ---- who replies --------------------------------------------------------- */

static bool advance(struct call *call, int from, int to)
{
	return atomic_compare_exchange_strong(&call->state, &from, to);
}

bool call_claim(struct call *call)
{
	if (atomic_load_explicit(&call->state, memory_order_relaxed) == HERE)
		return true;
	if (!advance(call, ARMED, ANSWERED))
		return false;
	fuse_req_interrupt_func(call->request, NULL, NULL);
	return true;
}

static void on_dying(struct watched *watched)
{
	struct call *call = (struct call *)((char *)watched -
					    offsetof(struct call, watched));

	if (call_claim(call))
		fuse_reply_err(call->request, EINTR);
}

static void on_interrupt(fuse_req_t request, void *context)
{
	struct call *call = context;

	if (advance(call, REGISTERING, EARLY) ||
	    atomic_load(&call->state) != ARMED)
		return;
	if (!client_is_dying(call->watched.tid))
		watch_add(call->ops->watch, &call->watched);
	else if (advance(call, ARMED, ANSWERED))
		fuse_reply_err(request, EINTR);
}

/* From now on the call may be answered without its having run. */
static void arm(struct call *call)
{
	call->watched.tid = fuse_req_ctx(call->request)->pid;
	call->watched.dying = on_dying;
	atomic_store(&call->state, REGISTERING);
	fuse_req_interrupt_func(call->request, on_interrupt, call);
	if (advance(call, REGISTERING, ARMED))
		return;
	atomic_store(&call->state, ARMED);
	if (client_is_dying(call->watched.tid))
		on_dying(&call->watched);
	else
		watch_add(call->ops->watch, &call->watched);
}

/* ---- the pool ------------------------------------------------------------ */

static void hold(struct call *call)
{
	if (call->handle)
		handle_hold(call->handle);
	else if (call->listing)
		listing_hold(call->listing);
	else
		namespace_hold(call->ops->ns, call->inode);
}

/* It has run, or will not. */
static void finish(struct call *call)
{
	struct namespace *ns = call->ops->ns;

	watch_remove(call->ops->watch, &call->watched);
	if (call->handle)
		namespace_close(ns, call->handle);
	else if (call->listing)
		namespace_close_listing(ns, call->listing);
	else
		namespace_forget(ns, call->inode, 1);
	free(call);
}

static void run_on_pool(struct job *job)
{
	struct call *call = (struct call *)job;

	/* Nobody waits for it any more: others should not have to. */
	if (atomic_load(&call->state) != ANSWERED)
		call->run(call, false);
	finish(call);
}

static void go_to_pool(struct call *call)
{
	int error = 0;

	hold(call);
	arm(call);
	call->job.run = run_on_pool;
	if (atomic_load(&call->state) != ANSWERED) {
		error = pool_submit(call->ops->pool, &call->job);
		if (!error)
			return;
	}
	if (error && call_claim(call))
		fuse_reply_err(call->request, -error);
	finish(call);
}

void call_start(const struct call *call, const char *name)
{
	size_t name_size = name ? strlen(name) + 1 : 0;
	struct call *copy = malloc(sizeof(*copy) + name_size);

	if (!copy) {
		fuse_reply_err(call->request, ENOMEM);
		return;
	}
	*copy = *call;
	if (name)
		memcpy(copy->name, name, name_size);
	copy->job.lane = call->ops->lane;
	if (copy->run(copy, true) != -EAGAIN) {
		free(copy);
		return;
	}
	go_to_pool(copy);
}
