/* SPDX-License-Identifier: Apache-2.0 */
/* The main thread waits for signals, and for the word that the mount is gone. */
#define FUSE_USE_VERSION 314
#include "fs/fuse/mount.h"

#include "fs/fuse/ops.h"
#include "fs/fuse/workers.h"
#include "fs/log.h"
#include "fs/tree/view_inode.h"
#include "shard/base/mount_point.h"
#include "shard/store/lanes.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { READ_AHEAD_KIB = 4096 };
/* How long files that nobody uses stay open. */
enum { IDLE_MS = 5000 };
/* Threads of the pool, and of these how many may be of one lane at once. */
enum { POOL_MAX = 64, STORE_MAX = 16, PEER_MAX = 8 };

struct mount {
	struct requests requests;
	struct pool *pool;		/* owned */
	struct fuse_session *session;	/* owned */
	char *path, *source;		/* owned: of the mount point, and of
					 * what is mounted */
	bool attached;
	dev_t device;			/* of the mount; 0: not known */
	bool inside;			/* path is inside of source */
	bool watched;			/* what needs a fork before MPI has
					 * ended, the watcher does */
	struct workers workers;
	struct job sweep;
	atomic_bool sweeping;		/* that is under way */
	bool begun;			/* the first worker's: INIT was served */
	int ready, gone, failed;	/* owned eventfds */
};

static void signal_event(int fd)
{
	const uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) < 0)
		log_line(LOG_LEVEL_ERROR, "eventfd: %s", strerror(errno));
}

static void on_ready(void *context)
{
	struct mount *mount = context;

	mount->begun = true;
}

/* Not before the kernel has the answer to INIT, by which it makes the
 * read-ahead that settle() raises small. */
static void on_served(void *context)
{
	struct mount *mount = context;

	if (!mount->begun)
		return;
	mount->begun = false;
	signal_event(mount->ready);
}

static void on_ended(void *context)
{
	struct mount *mount = context;

	signal_event(mount->gone);
}

static void drop_pages(void *context, uint64_t inode)
{
	struct mount *mount = context;

	if (mount->session)
		fuse_lowlevel_notify_inval_inode(mount->session, inode, 0, 0);
}

/* Names that the kernel should forget. */
struct drop_job {
	struct job job;		/* first: passed as this */
	struct mount *mount;
	unsigned count;
};

static void run_drop(struct job *job)
{
	struct drop_job *drop = (struct drop_job *)job;
	struct mount *mount = drop->mount;
	char name[NAME_MAX + 1];
	uint64_t parent;

	for (; drop->count > 0 &&
	       view_named_oldest(mount->requests.ns, &parent, name); drop->count--)
		fuse_lowlevel_notify_inval_entry(mount->session, parent, name,
						 strlen(name));
	free(drop);
}

/* The kernel locks the folder for that, while it may be waiting for the answer
 * to a lookup: not on a thread that answers. */
static void drop_names(void *context, unsigned count)
{
	struct mount *mount = context;
	struct drop_job *drop = malloc(sizeof(*drop));

	if (!drop)
		return;
	*drop = (struct drop_job){
		.job = { .run = run_drop, .lane = LANE_STORE },
		.mount = mount, .count = count,
	};
	if (pool_submit(mount->pool, &drop->job))
		free(drop);
}

/* ---- the main thread ----------------------------------------------------- */

/* A buffered reader gains from the kernel reading further ahead than its 128
 * KiB; only root may ask for it. */
static void raise_read_ahead(dev_t device)
{
	char path[80], value[16];
	int fd, size;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb",
		 major(device), minor(device));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	size = snprintf(value, sizeof(value), "%d", READ_AHEAD_KIB);
	if (write(fd, value, (size_t)size) < 0)
		log_line(LOG_LEVEL_INFO, "%s: %s", path, strerror(errno));
	close(fd);
}

/* What can only be done when the mount answers. */
static void settle(struct mount *mount)
{
	struct store *store = mount->requests.ns->store;

	if (mount->device == 0)
		return;
	if (mount->inside)
		store->hide(store, mount->device);
	raise_read_ahead(mount->device);
}

static void run_sweep(struct job *job)
{
	struct mount *mount = (struct mount *)(void *)
			      ((char *)job - offsetof(struct mount, sweep));

	tree_close_idle(mount->requests.ns);
	atomic_store(&mount->sweeping, false);
}

/* Not here: signals must not wait for a disk. */
static void sweep(struct mount *mount)
{
	if (atomic_exchange(&mount->sweeping, true))
		return;
	mount->sweep = (struct job){ .run = run_sweep, .lane = LANE_STORE };
	if (pool_submit(mount->pool, &mount->sweep))
		atomic_store(&mount->sweeping, false);
}

/* Wait for one of the descriptors; returns its index, or -errno. */
static int wait_for(struct mount *mount, const int *fds, unsigned count)
{
	struct pollfd polled[4];
	unsigned i;
	int found;

	for (i = 0; i < count; i++)
		polled[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
	while ((found = poll(polled, count, IDLE_MS)) <= 0)
		if (found == 0)
			sweep(mount);
		else if (errno != EINTR)
			return -errno;
	for (i = 0; i < count && !polled[i].revents; i++)
		;
	return (int)i;
}

int mount_serve(struct mount *mount, void (*ready)(void *context),
		void *context)
{
	int signals, error, event;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	/* Before any thread starts, so that none of them gets one. */
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (signals < 0)
		return -errno;
	error = workers_start(&mount->workers);
	if (!error) {
		const int fds[] = { signals, mount->gone, mount->failed,
				    mount->ready };

		event = wait_for(mount, fds, 4);
		if (event == 3) {
			settle(mount);
			ready(context);
			event = wait_for(mount, fds, 3);
		}
		error = event < 0 ? event : event == 2 ? -ECANCELED : 0;
	}
	close(signals);
	return error;
}

/* Is @inner below @outer, or the same? Both are real paths. */
static bool is_inside(const char *inner, const char *outer)
{
	size_t size = strlen(outer);

	return strcmp(outer, "/") == 0 ||
	       (strncmp(inner, outer, size) == 0 &&
		(inner[size] == '/' || inner[size] == '\0'));
}

static struct pool *make_pool(unsigned ranks)
{
	unsigned count = lane_count(ranks), i;
	unsigned *lane_max = malloc(count * sizeof(*lane_max));
	struct pool *pool;

	if (!lane_max)
		return NULL;
	for (i = 0; i < count; i++)
		lane_max[i] = i == LANE_STORE ? STORE_MAX : PEER_MAX;
	pool = pool_create(POOL_MAX, lane_max, count);
	free(lane_max);
	return pool;
}

int mount_create(struct namespace *ns, const struct mount_options *options,
		 struct mount **ret_mount)
{
	struct fuse_args args = FUSE_ARGS_INIT(options->arg_count,
					       (char **)options->args);
	struct mount *mount = calloc(1, sizeof(*mount));
	const void *table;
	size_t table_size;
	int error = -ENOMEM;

	if (!mount)
		return -ENOMEM;
	mount->ready = eventfd(0, EFD_CLOEXEC);
	mount->gone = eventfd(0, EFD_CLOEXEC);
	mount->failed = eventfd(0, EFD_CLOEXEC);
	workers_init(&mount->workers);
	mount->workers.served = on_served;
	mount->workers.ended = on_ended;
	mount->workers.context = mount;
	mount->watched = options->ranks > 1;
	mount->path = strdup(options->path);
	mount->source = strdup(options->source);
	mount->pool = make_pool(options->ranks);
	if (mount->ready < 0 || mount->gone < 0 || mount->failed < 0 ||
	    !mount->path || !mount->source || !mount->pool)
		goto destroy_mount;
	mount->requests = (struct requests){ .ns = ns, .pool = mount->pool,
				   .interruptible = options->ranks > 1,
				   .lane = options->ranks > 1 ?
					   LANE_FOLDERS : LANE_STORE,
				   .ready = on_ready,
				   .ready_context = mount };
	table = ops_table(&table_size);
	mount->session = fuse_session_new(&args, table, table_size,
					  &mount->requests);
	fuse_opt_free_args(&args);
	error = -EINVAL;
	if (!mount->session)
		goto destroy_mount;
	mount->workers.session = mount->session;
	*ret_mount = mount;
	return 0;
destroy_mount:
	mount_destroy(mount);
	return error;
}

/* A mount there of a daemon that is gone is of no use to anybody. */
static void clear_dead(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash ? strndup(path, (size_t)(slash + 1 - path)) :
			       strdup(".");
	char *real = folder ? realpath(folder, NULL) : NULL, *whole = NULL;

	if (real && asprintf(&whole, "%s/%s", strcmp(real, "/") ? real : "",
			     slash ? slash + 1 : path) > 0 &&
	    mount_point_clear(whole, true))
		log_line(LOG_LEVEL_WARNING,
			 "%s: the mount of a daemon that is gone was taken away",
			 path);
	free(whole);
	free(real);
	free(folder);
}

int mount_attach(struct mount *mount)
{
	char *path = NULL, *source = NULL;
	struct stat status;
	int error = 0;

	clear_dead(mount->path);
	if (stat(mount->path, &status) < 0)
		return -errno;
	path = realpath(mount->path, NULL);
	if (!path)
		return -errno;
	source = realpath(mount->source, NULL);
	if (!source)
		error = -errno;
	else if (!S_ISDIR(status.st_mode))
		error = -ENOTDIR;
	else if (fuse_session_mount(mount->session, path))
		error = -EIO;
	if (error)
		goto free_paths;
	mount->attached = true;
	mount->device = mount_point_device(path);
	mount->inside = is_inside(path, source) && strcmp(path, source) != 0;
	mount->requests.ns->drop_pages = drop_pages;
	mount->requests.ns->drop_names = drop_names;
	mount->requests.ns->drop_context = mount;
	free(mount->path);
	mount->path = path;
	path = NULL;
	free(mount->source);
	mount->source = source;
	source = NULL;
free_paths:
	free(path);
	free(source);
	return error;
}

void mount_fail(struct mount *mount)
{
	signal_event(mount->failed);
}

struct pool *mount_pool(struct mount *mount)
{
	return mount->pool;
}

const char *mount_path(const struct mount *mount)
{
	return mount->path;
}

const char *mount_source(const struct mount *mount)
{
	return mount->source;
}

dev_t mount_device(const struct mount *mount)
{
	return mount->device;
}

/* Has the kernel let go of it? Its device may be another's then. */
static bool is_gone(const struct mount *mount)
{
	struct pollfd fd = { .fd = fuse_session_fd(mount->session) };

	return poll(&fd, 1, 0) == 1 && fd.revents & POLLERR;
}

/* Not by libfuse, which unmounts whatever is on top. */
void mount_detach(struct mount *mount)
{
	if (!mount->attached)
		return;
	if (!is_gone(mount))
		mount_point_detach(mount->path, mount->device,
				   !mount->watched);
	/* Of one that has ended before, below this one. */
	mount_point_clear(mount->path, !mount->watched);
}

/*
 * Close the device, which fails whatever is still open, and let libfuse free
 * what it has. It would unmount by path, unless its descriptor says that the
 * mount is gone: as one of a pipe that nobody reads does.
 */
static void finish_session(struct fuse_session *session)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) == 0) {
		close(ends[0]);
		if (dup2(ends[1], fuse_session_fd(session)) >= 0)
			fuse_session_unmount(session);
		close(ends[1]);
	}
}

/* Whoever ends later clears what is dead: this mount, if it was covered until
 * just now, or one below it. */
static void clear_point(const struct mount *mount)
{
	mount_point_clear(mount->path, !mount->watched);
	if (mount->device &&
	    mount_point_find(mount->path, mount->device) == MOUNT_COVERED)
		log_line(LOG_LEVEL_WARNING,
			 "%s: something else is mounted over this mount, which stays below it, dead",
			 mount->path);
}

void mount_destroy(struct mount *mount)
{
	if (!mount)
		return;
	/* The pool ends while the workers still serve: dropping pages waits
	 * for reads. The workers end before the session: unmounting closes
	 * what they read from, and thereby fails whatever is still open. */
	if (mount->pool)
		pool_stop(mount->pool);
	workers_stop(&mount->workers);
	mount_detach(mount);
	if (mount->attached) {
		finish_session(mount->session);
		clear_point(mount);
	}
	if (mount->session)
		fuse_session_destroy(mount->session);
	pool_destroy(mount->pool);
	workers_finish(&mount->workers);
	close(mount->ready);
	close(mount->gone);
	close(mount->failed);
	free(mount->path);
	free(mount->source);
	free(mount);
}
