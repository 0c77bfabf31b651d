/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/supervisor.h"

#include "shard/base/mount_point.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Ranks whose end is waited for; of more, these. */
enum { RANKS_MAX = 4096, PROBE_MS = 500, LOOK_MS = 1000,
       CLEAR_TRIES = 10, CLEAR_MS = 50 };

struct supervisor {
	char point[4096];		/* const once there is a device */
	_Atomic uint64_t device;	/* of the mount; 0: there is none yet */
	atomic_bool started;		/* the rest is filled in */
	uint64_t nonce;
	unsigned rank, count;
	struct doorbell_address bells[RANKS_MAX];
	_Atomic uint32_t ips[RANKS_MAX];	/* where it was heard from */
};

/* ---- the daemon's side --------------------------------------------------- */

void supervisor_mounted(struct supervisor *watch, const char *path,
			dev_t device)
{
	/* It was not known before where a mount was in the way. */
	snprintf(watch->point, sizeof(watch->point), "%s", path);
	atomic_store(&watch->device, device);
}

void supervisor_started(struct supervisor *watch, uint64_t nonce, unsigned rank,
			const struct doorbell_address *addresses,
			unsigned count)
{
	watch->nonce = nonce;
	watch->rank = rank;
	watch->count = count < RANKS_MAX ? count : RANKS_MAX;
	memcpy(watch->bells, addresses, watch->count * sizeof(*addresses));
	atomic_store(&watch->started, true);
}

void supervisor_known(struct supervisor *watch, unsigned rank, uint32_t ip)
{
	if (rank < RANKS_MAX)
		atomic_store(&watch->ips[rank], ip);
}

/* ---- the watcher's side -------------------------------------------------- */

struct parent {
	struct supervisor *watch;
	pid_t child;
	int signals, child_fd, parent_fd;	/* to poll; -1: none */
	bool told;				/* the child, to end */
};

static int open_process(pid_t pid)
{
	return pid > 1 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

static void tell_child(struct parent *w)
{
	kill(w->child, SIGTERM);
	/* One that is stopped could not hear it. */
	kill(w->child, SIGCONT);
	w->told = true;
}

/* Sleep until something happens, or @timeout_ms; -1: without an end. Returns
 * whether it is time to end. */
static bool wait_for_word(struct parent *w, int timeout_ms)
{
	struct pollfd fds[] = {
		{ .fd = w->signals, .events = POLLIN },
		{ .fd = w->parent_fd, .events = POLLIN },
		{ .fd = w->child_fd, .events = POLLIN },
	};
	struct signalfd_siginfo info;

	if (poll(fds, 3, timeout_ms) <= 0)
		return false;
	if (fds[0].revents &&
	    read(w->signals, &info, sizeof(info)) != sizeof(info))
		return false;
	if (fds[1].revents)
		/* It stays readable: look at it once. */
		w->parent_fd = -1;
	return fds[0].revents || fds[1].revents;
}

/* Killed, but a thread of it is still in the kernel? */
static bool is_half_dead(pid_t pid)
{
	char path[64], text[512];
	const char *end;
	ssize_t size;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	size = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (size <= 0)
		return false;
	text[size] = '\0';
	/* The state stands behind the name, which is in brackets. */
	end = strrchr(text, ')');
	return end && strncmp(end, ") Z", 3) == 0;
}

static enum mount_place find_mount(const struct supervisor *watch)
{
	dev_t device = (dev_t)atomic_load(&watch->device);

	return device ? mount_point_find(watch->point, device) : MOUNT_NONE;
}

/*
 * A thread that drops pages of a file waits for those that are being read,
 * whatever signal comes: a daemon that is killed then is never gone, and the
 * kernel goes on waiting for its answers. Unless its mount is broken off.
 * One that has ended and is about to be waited for looks the same: only one
 * that is still so after a whole look is broken off.
 */
static int wait_for_child(struct parent *w)
{
	bool half_dead = false;
	int status;

	for (;;) {
		bool told = wait_for_word(w, LOOK_MS);

		if (waitpid(w->child, &status, WNOHANG) == w->child)
			break;
		if (told)
			tell_child(w);
		else if (!is_half_dead(w->child))
			half_dead = false;
		else if (!half_dead)
			half_dead = true;
		else if (find_mount(w->watch) == MOUNT_ON_TOP)
			umount2(w->watch->point, MNT_FORCE | UMOUNT_NOFOLLOW);
	}
	w->child_fd = -1;
	return status;
}

/*
 * What the daemon's end has left, a mount that nobody answers for. What is
 * mounted over it may be about to go, and what mounts on behalf of a daemon
 * that was killed may be later than its death. By its device alone it is not
 * known: what is there may be new, and have that again.
 */
static void clear_point(struct parent *w, bool killed)
{
	unsigned tries;

	for (tries = 0; tries < CLEAR_TRIES; tries++) {
		if (mount_point_clear(w->watch->point, true) ||
		    (!killed && find_mount(w->watch) != MOUNT_COVERED))
			return;
		w->told |= wait_for_word(w, CLEAR_MS);
	}
}

/* Is a rank still there? As long as it does not refuse, it may be. */
static bool others_live(struct doorbell *bell, bool *gone,
			const struct supervisor *w)
{
	struct doorbell_event event;
	bool live = false;
	unsigned i;

	while (doorbell_next(bell, &event))
		if (event.kind == DOORBELL_REFUSED ||
		    event.kind == DOORBELL_BYE)
			gone[event.rank] = true;
	for (i = 0; i < w->count; i++)
		if (i != w->rank && !gone[i]) {
			live = true;
			doorbell_send(bell, i, DOORBELL_PING);
		}
	return live;
}

/* mpirun must not see an end before all others have theirs. */
static void linger(struct parent *w)
{
	const struct supervisor *watch = w->watch;
	struct doorbell_address ours;
	bool *gone = calloc(watch->count + 1, sizeof(*gone));
	struct doorbell *bell = NULL;
	unsigned i;

	if (w->told || !gone || doorbell_create(&bell, &ours) ||
	    doorbell_connect(bell, watch->nonce, watch->rank, watch->bells,
			     watch->count))
		goto out;
	for (i = 0; i < watch->count; i++)
		doorbell_know(bell, i, atomic_load(&watch->ips[i]));
	while (others_live(bell, gone, watch))
		if (wait_for_word(w, PROBE_MS))
			break;
out:
	doorbell_destroy(bell);
	free(gone);
}

/* What `ps` shows of the watcher. */
static void rename_process(const char *point, int argc, char **argv)
{
	size_t size = (size_t)(argv[argc - 1] - argv[0]) +
		      strlen(argv[argc - 1]) + 1;
	char title[256];

	prctl(PR_SET_NAME, "ckptfs-watcher");
	snprintf(title, sizeof(title), "ckptfs-watcher %s", point);
	memset(argv[0], 0, size);
	memcpy(argv[0], title, strlen(title) < size ? strlen(title) : size - 1);
}

static int run_watcher(struct parent *w)
{
	const struct supervisor *watch = w->watch;
	int status = wait_for_child(w), code;

	code = WIFEXITED(status) ? WEXITSTATUS(status) :
				   128 + WTERMSIG(status);
	clear_point(w, WIFSIGNALED(status));
	if (code != 0 && atomic_load(&watch->started))
		linger(w);
	return code;
}

static int block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

int supervisor_fork(const char *point, int argc, char **argv,
		    struct supervisor **ret_supervisor, int *ret_status)
{
	struct parent w = { .child_fd = -1 };
	pid_t parent = getppid(), self = getpid();
	char *real = realpath(point, NULL);

	w.watch = mmap(NULL, sizeof(*w.watch), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (w.watch == MAP_FAILED) {
		free(real);
		return -errno;
	}
	/* Before there is a mount: the daemon may be killed at once. */
	snprintf(w.watch->point, sizeof(w.watch->point), "%s",
		 real ? real : point);
	free(real);
	/* Before the fork: a signal must find somebody who hands it on. */
	w.signals = block_signals();
	if (w.signals < 0)
		return -errno;
	w.child = fork();
	if (w.child < 0)
		return -errno;
	if (w.child == 0) {
		close(w.signals);
		/* mpirun kills the group of what it has started soon after it
		 * told it to end: unmounting may take longer. */
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != self)
			_exit(1);
		*ret_supervisor = w.watch;
		return 0;
	}
	w.child_fd = open_process(w.child);
	w.parent_fd = open_process(parent);
	rename_process(point, argc, argv);
	*ret_status = run_watcher(&w);
	return 1;
}
