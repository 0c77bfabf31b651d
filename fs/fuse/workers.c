/* SPDX-License-Identifier: Apache-2.0 */
#define FUSE_USE_VERSION 314
#include "fs/fuse/workers.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool more_is_waiting(const struct workers *workers)
{
	struct pollfd fd = { .fd = fuse_session_fd(workers->session),
			     .events = POLLIN };

	return poll(&fd, 1, 0) > 0;
}

static void wake_spare(struct workers *workers)
{
	unsigned asleep = atomic_load(&workers->asleep);

	while (asleep > 0)
		if (atomic_compare_exchange_weak(&workers->asleep, &asleep,
						 asleep - 1)) {
			sem_post(&workers->spare);
			return;
		}
}

/* Only reads take long enough for somebody else to be worth waking. */
static bool is_read(const struct fuse_buf *buffer)
{
	struct fuse_in_header header;

	if (buffer->flags & FUSE_BUF_IS_FD || buffer->size < sizeof(header))
		return false;
	memcpy(&header, buffer->mem, sizeof(header));
	return header.opcode == FUSE_READ;
}

/* Receive and serve one request. False: there will be no more. */
static bool serve_one(struct workers *workers, struct fuse_buf *buffer)
{
	int size;

	/* Only here may a worker be ended. */
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	size = fuse_session_receive_buf(workers->session, buffer);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	if (size == -EINTR || size == -EAGAIN)
		return true;
	if (size <= 0)
		return false;
	if (is_read(buffer) && atomic_load(&workers->asleep) > 0 &&
	    more_is_waiting(workers))
		wake_spare(workers);
	fuse_session_process_buf(workers->session, buffer);
	return !fuse_session_exited(workers->session);
}

static bool serve_waiting(struct workers *workers, struct fuse_buf *buffer)
{
	while (more_is_waiting(workers))
		if (!serve_one(workers, buffer))
			return false;
	return true;
}

static void finish_worker(void *context)
{
	struct fuse_buf *buffer = context;

	free(buffer->mem);
}

static void *first_main(void *context)
{
	struct workers *workers = context;
	struct fuse_buf buffer = { .mem = NULL };

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_cleanup_push(finish_worker, &buffer);
	while (serve_one(workers, &buffer))
		workers->served(workers->context);
	workers->ended(workers->context);
	pthread_cleanup_pop(1);
	return NULL;
}

static void sleep_spare(struct workers *workers)
{
	atomic_fetch_add(&workers->asleep, 1);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	while (sem_wait(&workers->spare) < 0 && errno == EINTR)
		;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
}

static void *spare_main(void *context)
{
	struct workers *workers = context;
	struct fuse_buf buffer = { .mem = NULL };

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_cleanup_push(finish_worker, &buffer);
	do
		sleep_spare(workers);
	while (serve_waiting(workers, &buffer));
	pthread_cleanup_pop(1);
	return NULL;
}

void workers_init(struct workers *workers)
{
	sem_init(&workers->spare, 0, 0);
}

void workers_finish(struct workers *workers)
{
	sem_destroy(&workers->spare);
}

int workers_start(struct workers *workers)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned count = cores < 2 ? 2 :
			 cores > WORKERS_MAX ? WORKERS_MAX : (unsigned)cores;
	int error = 0;

	while (workers->count < count && !error) {
		error = pthread_create(&workers->threads[workers->count],
				       NULL, workers->count ? spare_main :
							      first_main,
				       workers);
		workers->count += !error;
	}
	/* One is enough to serve. */
	return workers->count > 0 ? 0 : -error;
}

void workers_stop(struct workers *workers)
{
	unsigned i;

	for (i = 0; i < workers->count; i++)
		pthread_cancel(workers->threads[i]);
	for (i = 0; i < workers->count; i++)
		pthread_join(workers->threads[i], NULL);
	workers->count = 0;
}
