/* SPDX-License-Identifier: Apache-2.0 */
#define FUSE_USE_VERSION 314
#include "support/kernel.h"

#include "support/test.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Of the number of an interrupt, which is otherwise that of its request. */
#define INTERRUPT_BIT UINT64_C(1)

enum { KERNELS_MAX = 16, PATIENCE_S = 20, ANSWER_MAX = 2 << 20 };

/* What the session wrote. */
struct written {
	struct written *next;
	struct fuse_out_header head;
	size_t size;
	unsigned char data[];
};

/* A request that has no answer yet. */
struct asked {
	struct asked *next;
	uint64_t unique;
};

struct kernel {
	int session_fd, fd;		/* the two ends */
	pthread_mutex_t lock;
	pthread_cond_t change;
	struct written *answers, *notices, **notices_end; /* guarded by lock,
							    * as is all below */
	unsigned notice_count;
	struct asked *asked;
	uint64_t last;			/* number of a request */
	pid_t pid;
	uint64_t dropped[8];		/* requests; 0: none */
	bool refused[8];
};

/* By the descriptor, which is all that libfuse tells. */
static pthread_mutex_t kernels_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kernel *kernels[KERNELS_MAX];

static struct kernel *find_kernel(int fd)
{
	struct kernel *kernel = NULL;
	unsigned i;

	pthread_mutex_lock(&kernels_lock);
	for (i = 0; i < KERNELS_MAX && !kernel; i++)
		if (kernels[i] && kernels[i]->session_fd == fd)
			kernel = kernels[i];
	pthread_mutex_unlock(&kernels_lock);
	assert_non_null(kernel);
	return kernel;
}

/* ---- what libfuse calls -------------------------------------------------- */

static ssize_t read_request(int fd, void *buffer, size_t size, void *context)
{
	(void)context;
	return read(fd, buffer, size);
}

static bool is_dropped_locked(struct kernel *kernel, uint64_t unique)
{
	unsigned i;

	for (i = 0; unique && i < 8; i++)
		if (kernel->dropped[i] == unique) {
			kernel->refused[i] = true;
			return true;
		}
	return false;
}

static struct asked **find_asked_locked(struct kernel *kernel, uint64_t unique)
{
	struct asked **at = &kernel->asked;

	while (*at && (*at)->unique != unique)
		at = &(*at)->next;
	return at;
}

/* It has its one answer. A thread of the daemon cannot fail the test: it ends
 * the program. */
static void end_asked_locked(struct kernel *kernel, uint64_t unique)
{
	struct asked **at = find_asked_locked(kernel, unique), *asked = *at;

	if (!asked) {
		fprintf(stderr, "request %llu was answered already\n",
			(unsigned long long)unique);
		abort();
	}
	*at = asked->next;
	free(asked);
}

/* libfuse says of an interrupt that it knows of no such request: as the kernel
 * does, tell it again if it should. */
static ssize_t take_unknown(struct kernel *kernel, uint64_t unique)
{
	bool waits;

	pthread_mutex_lock(&kernel->lock);
	waits = *find_asked_locked(kernel, unique);
	pthread_mutex_unlock(&kernel->lock);
	if (waits) {
		kernel_interrupt(kernel, unique);
		return sizeof(struct fuse_out_header);
	}
	errno = ENOENT;
	return -1;
}

static ssize_t take_written(int fd, struct iovec *iov, int count,
			    void *context)
{
	struct kernel *kernel = find_kernel(fd);
	struct written *written;
	size_t size = 0, done = 0;
	uint64_t unique;
	bool dropped;
	int i;

	(void)context;
	for (i = 0; i < count; i++)
		size += iov[i].iov_len;
	assert_true(size >= sizeof(written->head) && size < ANSWER_MAX);
	written = malloc(sizeof(*written) + size);
	assert_non_null(written);
	for (i = 0; i < count; i++) {
		memcpy(written->data + done, iov[i].iov_base, iov[i].iov_len);
		done += iov[i].iov_len;
	}
	memcpy(&written->head, written->data, sizeof(written->head));
	written->size = size - sizeof(written->head);
	memmove(written->data, written->data + sizeof(written->head),
		written->size);
	assert_int_equal(written->head.len, size);
	unique = written->head.unique;
	if (unique & INTERRUPT_BIT) {
		free(written);
		return take_unknown(kernel, unique & ~INTERRUPT_BIT);
	}
	pthread_mutex_lock(&kernel->lock);
	if (unique)
		end_asked_locked(kernel, unique);
	dropped = is_dropped_locked(kernel, unique);
	if (dropped) {
		free(written);
	} else if (unique) {
		written->next = kernel->answers;
		kernel->answers = written;
	} else {
		written->next = NULL;
		*kernel->notices_end = written;
		kernel->notices_end = &written->next;
		kernel->notice_count++;
	}
	pthread_cond_broadcast(&kernel->change);
	pthread_mutex_unlock(&kernel->lock);
	if (!dropped)
		return (ssize_t)size;
	errno = ENOENT;
	return -1;
}

/* ---- life ---------------------------------------------------------------- */

struct kernel *kernel_create(struct fuse_session *session)
{
	static const struct fuse_custom_io io = {
		.writev = take_written, .read = read_request,
	};
	struct kernel *kernel = calloc(1, sizeof(*kernel));
	pthread_condattr_t monotonic;
	int ends[2];
	unsigned i;

	assert_non_null(kernel);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
				    ends), 0);
	kernel->session_fd = ends[0];
	kernel->fd = ends[1];
	kernel->pid = getpid();
	kernel->notices_end = &kernel->notices;
	pthread_mutex_init(&kernel->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&kernel->change, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_mutex_lock(&kernels_lock);
	for (i = 0; i < KERNELS_MAX && kernels[i]; i++)
		;
	assert_true(i < KERNELS_MAX);
	kernels[i] = kernel;
	pthread_mutex_unlock(&kernels_lock);
	assert_int_equal(fuse_session_custom_io(session, &io, ends[0]), 0);
	return kernel;
}

void kernel_init(struct kernel *kernel)
{
	const struct fuse_init_in in = {
		.major = FUSE_KERNEL_VERSION, .minor = 38,
		.max_readahead = 128 * 1024,
		.flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES |
			 FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS |
			 FUSE_READDIRPLUS_AUTO | FUSE_PARALLEL_DIROPS |
			 FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS,
	};
	struct fuse_init_out out;
	size_t got;

	assert_int_equal(kernel_answer(kernel,
				       kernel_ask(kernel, FUSE_INIT, 0, &in,
						  sizeof(in), NULL),
				       &out, sizeof(out), &got), 0);
	assert_int_equal(got, sizeof(out));
	assert_int_equal(out.major, FUSE_KERNEL_VERSION);
}

void kernel_close(struct kernel *kernel)
{
	shutdown(kernel->fd, SHUT_RDWR);
}

static void free_written(struct written *written)
{
	while (written) {
		struct written *next = written->next;

		free(written);
		written = next;
	}
}

void kernel_destroy(struct kernel *kernel)
{
	unsigned i;

	assert_null(kernel->answers);
	assert_null(kernel->asked);
	pthread_mutex_lock(&kernels_lock);
	for (i = 0; i < KERNELS_MAX; i++)
		if (kernels[i] == kernel)
			kernels[i] = NULL;
	pthread_mutex_unlock(&kernels_lock);
	free_written(kernel->notices);
	close(kernel->fd);
	pthread_mutex_destroy(&kernel->lock);
	pthread_cond_destroy(&kernel->change);
	free(kernel);
}

void kernel_set_pid(struct kernel *kernel, pid_t pid)
{
	pthread_mutex_lock(&kernel->lock);
	kernel->pid = pid;
	pthread_mutex_unlock(&kernel->lock);
}

/* ---- one request --------------------------------------------------------- */

static void send_request(struct kernel *kernel, struct fuse_in_header *head,
			 const void *args, size_t size, const char *name)
{
	struct iovec iov[] = {
		{ head, sizeof(*head) }, { (void *)args, size },
		{ (void *)name, name ? strlen(name) + 1 : 0 },
	};
	const struct msghdr message = { .msg_iov = iov, .msg_iovlen = 3 };

	head->len = (uint32_t)(iov[0].iov_len + iov[1].iov_len +
			       iov[2].iov_len);
	assert_int_equal(sendmsg(kernel->fd, &message, MSG_NOSIGNAL),
			 head->len);
}

uint64_t kernel_ask(struct kernel *kernel, uint32_t opcode, uint64_t node,
		    const void *args, size_t size, const char *name)
{
	struct fuse_in_header head = { .opcode = opcode, .nodeid = node };
	bool answered = opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET;
	struct asked *asked = answered ? malloc(sizeof(*asked)) : NULL;

	pthread_mutex_lock(&kernel->lock);
	/* Even numbers, as the kernel's: an interrupt has the odd one. */
	kernel->last += 2;
	head.unique = kernel->last;
	if (asked) {
		*asked = (struct asked){ kernel->asked, head.unique };
		kernel->asked = asked;
	}
	head.pid = (uint32_t)kernel->pid;
	pthread_mutex_unlock(&kernel->lock);
	send_request(kernel, &head, args, size, name);
	return head.unique;
}

uint64_t kernel_next(struct kernel *kernel)
{
	uint64_t unique;

	pthread_mutex_lock(&kernel->lock);
	unique = kernel->last + 2;
	pthread_mutex_unlock(&kernel->lock);
	return unique;
}

static struct written **find_answer_locked(struct kernel *kernel,
					   uint64_t unique)
{
	struct written **at = &kernel->answers;

	while (*at && (*at)->head.unique != unique)
		at = &(*at)->next;
	return at;
}

/* A test that fails keeps no lock that the daemon needs to end. */
static void wait_locked(struct kernel *kernel, const struct timespec *until)
{
	if (pthread_cond_timedwait(&kernel->change, &kernel->lock, until) ==
	    0)
		return;
	pthread_mutex_unlock(&kernel->lock);
	fail_msg("nothing came for %d seconds", PATIENCE_S);
}

static struct timespec patience(void)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += PATIENCE_S;
	return until;
}

int kernel_answer(struct kernel *kernel, uint64_t unique, void *out,
		  size_t size, size_t *ret_got)
{
	const struct timespec until = patience();
	struct written *answer, **at;
	int error;

	pthread_mutex_lock(&kernel->lock);
	for (at = find_answer_locked(kernel, unique); !*at;
	     at = find_answer_locked(kernel, unique))
		wait_locked(kernel, &until);
	answer = *at;
	*at = answer->next;
	pthread_mutex_unlock(&kernel->lock);
	error = answer->head.error;
	assert_true(error <= 0 && error > -4096);
	assert_true(answer->size <= size);
	if (!error && answer->size > 0)
		memcpy(out, answer->data, answer->size);
	if (ret_got)
		*ret_got = answer->size;
	free(answer);
	return error;
}

bool kernel_has_answer(struct kernel *kernel, uint64_t unique)
{
	bool has;

	pthread_mutex_lock(&kernel->lock);
	has = *find_answer_locked(kernel, unique) != NULL;
	pthread_mutex_unlock(&kernel->lock);
	return has;
}

void kernel_interrupt(struct kernel *kernel, uint64_t unique)
{
	const struct fuse_interrupt_in in = { .unique = unique };
	struct fuse_in_header head = {
		.opcode = FUSE_INTERRUPT, .unique = unique | INTERRUPT_BIT,
	};

	send_request(kernel, &head, &in, sizeof(in), NULL);
}

void kernel_drop(struct kernel *kernel, uint64_t unique)
{
	unsigned i;

	pthread_mutex_lock(&kernel->lock);
	for (i = 0; i < 8 && kernel->dropped[i]; i++)
		;
	assert_true(i < 8);
	kernel->dropped[i] = unique;
	pthread_mutex_unlock(&kernel->lock);
}

void kernel_await_refused(struct kernel *kernel, uint64_t unique)
{
	const struct timespec until = patience();
	unsigned i;

	pthread_mutex_lock(&kernel->lock);
	for (i = 0; i < 8 && kernel->dropped[i] != unique; i++)
		;
	assert_true(i < 8);
	while (!kernel->refused[i])
		wait_locked(kernel, &until);
	pthread_mutex_unlock(&kernel->lock);
}

/* ---- what the session says by itself ------------------------------------- */

void kernel_next_notice(struct kernel *kernel, struct kernel_notice *ret)
{
	const struct timespec until = patience();
	struct written *written;

	pthread_mutex_lock(&kernel->lock);
	while (!kernel->notices)
		wait_locked(kernel, &until);
	written = kernel->notices;
	kernel->notices = written->next;
	if (!kernel->notices)
		kernel->notices_end = &kernel->notices;
	pthread_mutex_unlock(&kernel->lock);
	memset(ret, 0, sizeof(*ret));
	ret->code = (enum fuse_notify_code)written->head.error;
	/* Both begin with the number of an inode. */
	memcpy(&ret->node, written->data, sizeof(ret->node));
	if (ret->code == FUSE_NOTIFY_INVAL_ENTRY)
		snprintf(ret->name, sizeof(ret->name), "%s",
			 written->data +
			 sizeof(struct fuse_notify_inval_entry_out));
	free(written);
}

unsigned kernel_count_notices(struct kernel *kernel)
{
	unsigned count;

	pthread_mutex_lock(&kernel->lock);
	count = kernel->notice_count;
	pthread_mutex_unlock(&kernel->lock);
	return count;
}
