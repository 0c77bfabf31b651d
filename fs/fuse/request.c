/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request is tried on the thread that received it, which must not block; when
 * the tree says -EAGAIN, its operation runs again on the pool, where it may.
 * A client that is killed meanwhile must not wait for that: it is answered at
 * once, and what the pool finds is thrown away. A client that gets a signal
 * which it survives is not, since its read would fail. What changes something
 * runs on the pool only, once, and to its end.
 *
 *	HERE		tried by the thread that received it, or never given up
 *	REGISTERING	libfuse is being told whom to call at an interrupt
 *	EARLY		it has called meanwhile
 *	ARMED		the first to set ANSWERED is the one who replies
 *	ANSWERED
 *
 *	HERE -> REGISTERING	the request would block
 *	REGISTERING -> EARLY	on_interrupt
 *	REGISTERING -> ARMED	registered
 *	EARLY -> ARMED		registered; then the client is looked at
 *	ARMED -> ANSWERED	the pool, with the result; or on_interrupt, with
 *				EINTR, when the client is dying; or go_to_pool,
 *				with EINTR or what the pool says
 *
 * libfuse calls on_interrupt with a lock of the request held: from within the
 * registration, if the interrupt came before it, where a reply would free the
 * request and its lock; or from the thread that received the interrupt, which
 * holds the request by a count, where a reply is fine. Hence EARLY. Taking the
 * registration back waits for an on_interrupt that runs: whoever else has set
 * ANSWERED does so before the reply, so that none is left when the request
 * goes. After on_interrupt has set it, it leaves the request alone.
 *
 * The kernel sends one interrupt for a request, whatever else comes later: a
 * client that has survived its first signal and is killed then has its answer
 * when there is one, at the latest after the deadline of ranks.
 *
 * While the kernel waits for an answer, it keeps the inode and does not close
 * what is open. When it has one, it does not, although the request may still
 * run: what goes to the pool has its own hold on these. It is let go, and the
 * request freed, where it has run, whoever replied.
 */
#define FUSE_USE_VERSION 314
#include "fs/fuse/request.h"

#include "fs/fuse/client.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

enum { HERE, REGISTERING, EARLY, ARMED, ANSWERED };

/* ---- who replies --------------------------------------------------------- */

static bool advance(struct request *request, int from, int to)
{
	return atomic_compare_exchange_strong(&request->state, &from, to);
}

/* To be asked before the reply. False: the client was killed and has been
 * answered, and libfuse's request is gone. */
static bool claim(struct request *request)
{
	if (atomic_load_explicit(&request->state, memory_order_relaxed) == HERE)
		return true;
	if (!advance(request, ARMED, ANSWERED))
		return false;
	fuse_req_interrupt_func(request->fuse, NULL, NULL);
	return true;
}

static void on_interrupt(fuse_req_t fuse, void *context)
{
	struct request *request = context;

	if (advance(request, REGISTERING, EARLY) ||
	    atomic_load(&request->state) != ARMED)
		return;
	if (client_is_dying(request->tid) && advance(request, ARMED, ANSWERED))
		fuse_reply_err(fuse, EINTR);
}

/* From now on the request may be answered without its having run. */
static void arm(struct request *request)
{
	request->tid = fuse_req_ctx(request->fuse)->pid;
	atomic_store(&request->state, REGISTERING);
	fuse_req_interrupt_func(request->fuse, on_interrupt, request);
	if (advance(request, REGISTERING, ARMED))
		return;
	atomic_store(&request->state, ARMED);
	if (client_is_dying(request->tid) && claim(request))
		fuse_reply_err(request->fuse, EINTR);
}

/* ---- running ------------------------------------------------------------- */

/* 0, or -EAGAIN if @nowait and nothing has happened. */
static int run(struct request *request, bool nowait)
{
	const struct operation *operation = request->operation;
	int error = operation->run(request, nowait);
	bool again = error == -EAGAIN && nowait, taken = false;

	if (!again && claim(request)) {
		if (error)
			fuse_reply_err(request->fuse, -error);
		else
			taken = operation->answer(request) == 0;
	}
	if (!error && !taken && operation->undo)
		operation->undo(request);
	if (operation->finish)
		operation->finish(request);
	return again ? error : 0;
}

static void hold(struct request *request)
{
	if (request->file)
		open_file_hold(request->file);
	else if (request->folder)
		open_folder_hold(request->folder);
	else
		inode_table_hold(&request->all->ns->inodes, request->number);
}

/* It has run, or will not. */
static void let_go(struct request *request)
{
	if (request->file)
		open_file_put(request->file);
	else if (request->folder)
		open_folder_put(request->folder);
	else
		inode_table_put(&request->all->ns->inodes, request->number);
	free(request);
}

static void run_on_pool(struct job *job)
{
	struct request *request = (struct request *)job;

	/* Nobody waits for it any more: others should not have to. */
	if (atomic_load(&request->state) != ANSWERED)
		run(request, false);
	let_go(request);
}

static struct request *copy_request(const struct request *request)
{
	size_t size = request->name ? strlen(request->name) + 1 : 0;
	struct request *copy = malloc(sizeof(*copy) + size);

	if (!copy)
		return NULL;
	*copy = *request;
	if (size > 0)
		copy->name = memcpy(copy->room, request->name, size);
	copy->job.run = run_on_pool;
	copy->job.lane = request->lane;
	return copy;
}

static void go_to_pool(const struct request *request)
{
	struct request *copy = copy_request(request);
	int error = 0;

	if (!copy) {
		fuse_reply_err(request->fuse, ENOMEM);
		return;
	}
	hold(copy);
	if (!copy->operation->mutates)
		arm(copy);
	if (atomic_load(&copy->state) != ANSWERED) {
		error = pool_submit(copy->all->pool, &copy->job);
		if (!error)
			return;
	}
	if (error && claim(copy))
		fuse_reply_err(copy->fuse, -error);
	let_go(copy);
}

void request_start(const struct request *request)
{
	struct request here = *request;

	here.lane = request->all->lane;
	if (here.operation->mutates || run(&here, true) == -EAGAIN)
		go_to_pool(&here);
}
