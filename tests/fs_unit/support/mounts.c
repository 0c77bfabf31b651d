/* SPDX-License-Identifier: Apache-2.0 */
#define FUSE_USE_VERSION 314
#include "support/mounts.h"

#include "support/test.h"
#include "support/stall.h"

#include "comm/client.h"
#include "comm/server.h"
#include "comm/source_peer.h"
#include "fs/fuse/ops.h"
#include "fs/fuse/workers.h"
#include "fs/log.h"
#include "fs/tree/report.h"
#include "fs/tree/serve.h"
#include "fs/tree/view_inode.h"
#include "shard/base/pool.h"
#include "shard/store/lanes.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct test_folder mounts_stores[MOUNTS_MAX];
struct ranks mounts_ranks;

/* One daemon. */
struct daemon {
	struct namespace ns;
	struct requests requests;
	struct pool *pool;
	struct fuse_session *session;
	struct workers workers;
	struct kernel *kernel;
	struct client client;
	struct server server;
	struct report report;
	bool running, pool_stopped;
};

static struct daemon daemons[MOUNTS_MAX];
static unsigned daemon_count, store_count, descriptors;

/* ---- the clock ----------------------------------------------------------- */

static _Atomic uint64_t now_ms = 1000000;

int __real_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);

/* Only looks use this clock. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
	uint64_t ms;

	if (clock != CLOCK_MONOTONIC_COARSE)
		return __real_clock_gettime(clock, time);
	stall_pass_clock();
	ms = atomic_load(&now_ms);
	*time = (struct timespec){ (time_t)(ms / 1000),
				   (long)(ms % 1000) * 1000000 };
	return 0;
}

void mounts_later(unsigned ms)
{
	atomic_fetch_add(&now_ms, ms);
}

/* ---- the log ------------------------------------------------------------- */

/* One file of the program: a log is opened once. */
static int log_fd = -1;
static off_t log_begin;

static void begin_log(void)
{
	char path[] = "/tmp/ckptfs-log.XXXXXX";

	if (log_fd < 0) {
		log_fd = mkostemp(path, O_CLOEXEC);
		assert_true(log_fd >= 0);
		assert_int_equal(log_open(path), 0);
		unlink(path);
	}
	log_begin = lseek(log_fd, 0, SEEK_END);
}

unsigned mounts_count_log(const char *text)
{
	size_t size = (size_t)(lseek(log_fd, 0, SEEK_END) - log_begin);
	char *log = malloc(size + 1), *line, *rest;
	unsigned count = 0;

	assert_non_null(log);
	assert_int_equal(pread(log_fd, log, size, log_begin), size);
	log[size] = '\0';
	for (line = strtok_r(log, "\n", &rest); line;
	     line = strtok_r(NULL, "\n", &rest))
		count += strstr(line, text) != NULL;
	free(log);
	return count;
}

/* ---- stores -------------------------------------------------------------- */

void mounts_prepare(unsigned count)
{
	unsigned i;

	assert_true(count <= MOUNTS_MAX);
	begin_log();
	descriptors = folder_count_descriptors();
	store_count = count;
	for (i = 0; i < count; i++)
		folder_make(&mounts_stores[i]);
}

struct test_folder mounts_folder(unsigned rank, const char *path)
{
	struct test_folder folder;
	char part[64];
	size_t size;

	for (size = strcspn(path, "/"); ; size += 1 + strcspn(path + size + 1,
							      "/")) {
		assert_true(size < sizeof(part));
		memcpy(part, path, size);
		part[size] = '\0';
		if (size > 0 &&
		    mkdirat(mounts_stores[rank].fd, part, 0755) < 0)
			assert_int_equal(errno, EEXIST);
		if (!path[size])
			break;
	}
	assert_true(snprintf(folder.path, sizeof(folder.path), "%s/%s",
			     mounts_stores[rank].path, path) <
		    (int)sizeof(folder.path));
	folder.fd = open(folder.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(folder.fd >= 0);
	return folder;
}

void mounts_write(unsigned rank, const char *path, const char *name,
		  const char *text)
{
	struct test_folder folder = mounts_folder(rank, path);

	folder_write(&folder, name, text, strlen(text));
	close(folder.fd);
}

void mounts_move(unsigned from, unsigned to, const char *path,
		 const char *name)
{
	struct test_folder source = mounts_folder(from, path);
	struct test_folder target = mounts_folder(to, path);

	assert_int_equal(renameat(source.fd, name, target.fd, name), 0);
	close(source.fd);
	close(target.fd);
}

/* ---- peers --------------------------------------------------------------- */

static int wait_ready(struct peers *peers)
{
	(void)peers;
	return 0;
}

static bool is_ready(struct peers *peers)
{
	(void)peers;
	return true;
}

static void info(struct peers *peers, unsigned rank,
		 struct peer_info *ret_info)
{
	const struct engine *engine = daemons[peers->rank].client.engine;

	*ret_info = (struct peer_info){
		.state = engine_state(engine, rank),
		.direct = peers->stores[rank] >= 0,
	};
	snprintf(ret_info->host, sizeof(ret_info->host), "host%u", rank);
}

static void probe(struct peers *peers)
{
	engine_probe(daemons[peers->rank].client.engine);
}

static void work(void *context, struct rank *rank,
		 struct engine_request *request)
{
	(void)context;
	server_run(&daemons[rank->rank].server, request);
}

static void changed(void *context, struct rank *rank, unsigned other,
		    enum peer_state state)
{
	(void)context;
	if (state == PEER_LOST || state == PEER_LEFT)
		server_forget(&daemons[rank->rank].server, other);
}

unsigned mounts_count_holds(unsigned rank)
{
	struct holds *holds = &daemons[rank].server.holds;
	struct hold *hold;
	unsigned count = 0;

	pthread_mutex_lock(&holds->lock);
	LIST_FOREACH(hold, &holds->all, link)
		count++;
	pthread_mutex_unlock(&holds->lock);
	return count;
}

static void join(unsigned rank, const struct mounts_options *options)
{
	struct daemon *daemon = &daemons[rank];
	struct peers *peers = &daemon->client.peers;
	struct answering from;
	unsigned i;

	assert_int_equal(client_init(&daemon->client, rank, options->count),
			 0);
	peers->wait_ready = wait_ready;
	peers->is_ready = is_ready;
	peers->info = info;
	peers->probe = probe;
	peers->source = source_peer_create;
	daemon->client.engine = mounts_ranks.rank[rank].engine;
	for (i = 0; i < options->count; i++)
		if (i == rank)
			peers->stores[i] = daemon->ns.root;
		else if (options->direct)
			peers->stores[i] = fcntl(mounts_stores[i].fd,
						 F_DUPFD_CLOEXEC, 0);
	assert_int_equal(tree_join(&daemon->ns, peers), 0);
	from = (struct answering){
		.own = daemon->ns.root, .rank = rank,
		.store = daemon->ns.store,
		.counters = &daemon->ns.counters.reads[COUNTERS_SERVED],
	};
	serve_hooks(&daemon->ns, &from.checkpoints);
	server_init(&daemon->server, daemon->pool, &from);
}

/* ---- daemons ------------------------------------------------------------- */

static void ignore(void *context)
{
	(void)context;
}

static void drop_pages(void *context, uint64_t inode)
{
	struct daemon *daemon = context;

	fuse_lowlevel_notify_inval_inode(daemon->session, inode, 0, 0);
}

static void drop_names(void *context, unsigned count)
{
	struct daemon *daemon = context;
	char name[NAME_MAX + 1];
	uint64_t parent;

	for (; count > 0 && view_named_oldest(&daemon->ns, &parent, name);
	     count--)
		fuse_lowlevel_notify_inval_entry(daemon->session, parent, name,
						 strlen(name));
}

static void make_session(struct daemon *daemon, unsigned ranks)
{
	char name[] = "test", max_read[] = "-omax_read=1048576";
	char *argv[] = { name, max_read, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(2, argv);
	unsigned lane_max[LANE_RANKS + 2 * MOUNTS_MAX], i;
	const void *table;
	size_t size;

	for (i = 0; i < lane_count(ranks); i++)
		lane_max[i] = MOUNTS_LANE_MAX;
	daemon->pool = pool_create(16, lane_max, lane_count(ranks));
	assert_non_null(daemon->pool);
	daemon->requests = (struct requests){
		.ns = &daemon->ns, .pool = daemon->pool,
		.interruptible = ranks > 1,
		.lane = ranks > 1 ? LANE_FOLDERS : LANE_STORE,
		.ready = ignore,
	};
	table = ops_table(&size);
	daemon->session = fuse_session_new(&args, table, size, &daemon->requests);
	fuse_opt_free_args(&args);
	assert_non_null(daemon->session);
	daemon->kernel = kernel_create(daemon->session);
	daemon->ns.drop_pages = drop_pages;
	daemon->ns.drop_names = drop_names;
	daemon->ns.drop_context = daemon;
}

static void make_report(struct daemon *daemon, unsigned rank)
{
	daemon->report = (struct report){
		.ns = &daemon->ns, .version = "test",
		.source = mounts_stores[rank].path, .path = "/mnt",
	};
	daemon->ns.report_context = &daemon->report;
	daemon->ns.report = report_make;
}

static void start(unsigned rank, const struct mounts_options *options)
{
	const struct tree_options tree_options = {
		.decoded_cache = 16 << 20, .hf_root = options->hf_root,
		.hf_assets = options->hf_assets, .ranks = options->count > 1,
	};
	struct daemon *daemon = &daemons[rank];
	const char *bad;

	memset(daemon, 0, sizeof(*daemon));
	assert_int_equal(tree_init(&daemon->ns, mounts_stores[rank].path,
					&tree_options, &bad), 0);
	make_session(daemon, options->count);
	make_report(daemon, rank);
}

static void serve(struct daemon *daemon)
{
	workers_init(&daemon->workers);
	daemon->workers.session = daemon->session;
	daemon->workers.served = ignore;
	daemon->workers.ended = ignore;
	assert_int_equal(workers_start(&daemon->workers), 0);
	daemon->running = true;
	kernel_init(daemon->kernel);
}

void mounts_start(const struct mounts_options *options)
{
	const struct ranks_options ranks = {
		.count = options->count, .workers = RANKS_WORKERS,
		.deadline_ms = options->deadline_ms ? options->deadline_ms :
						      10000,
		.work = work, .changed = changed,
	};
	unsigned i;

	assert_int_equal(options->count, store_count);
	daemon_count = options->count;
	for (i = 0; i < options->count; i++)
		start(i, options);
	if (options->count > 1) {
		ranks_start(&mounts_ranks, &ranks);
		for (i = 0; i < options->count; i++)
			join(i, options);
	}
	for (i = 0; i < options->count; i++)
		serve(&daemons[i]);
}

void mounts_stop_pool(unsigned rank)
{
	if (!daemons[rank].pool_stopped)
		pool_stop(daemons[rank].pool);
	daemons[rank].pool_stopped = true;
}

void mounts_leave(unsigned rank)
{
	struct daemon *daemon = &daemons[rank];

	if (!daemon->running)
		return;
	daemon->running = false;
	if (daemon_count > 1)
		ranks_stop(&mounts_ranks, rank);
	mounts_stop_pool(rank);
	workers_stop(&daemon->workers);
	kernel_close(daemon->kernel);
}

static void finish(struct daemon *daemon)
{
	fuse_session_destroy(daemon->session);
	kernel_destroy(daemon->kernel);
	workers_finish(&daemon->workers);
	pool_destroy(daemon->pool);
	/* It is gone with the ranks. */
	daemon->client.engine = NULL;
	if (daemon_count > 1)
		server_finish(&daemon->server);
	tree_finish(&daemon->ns);
	if (daemon_count > 1)
		client_finish(&daemon->client);
}

void mounts_stop(void)
{
	unsigned i;

	stall_end_all();
	for (i = 0; i < daemon_count; i++)
		mounts_leave(i);
	/* Requests of others are worked on until then. */
	if (daemon_count > 1)
		ranks_finish(&mounts_ranks);
	for (i = 0; i < daemon_count; i++)
		finish(&daemons[i]);
	for (i = 0; i < store_count; i++)
		folder_remove(&mounts_stores[i]);
	assert_int_equal(folder_count_descriptors(), descriptors);
	daemon_count = store_count = 0;
}

struct kernel *mounts_kernel(unsigned rank)
{
	return daemons[rank].kernel;
}

struct pool *mounts_pool(unsigned rank, unsigned *ret_lane)
{
	*ret_lane = daemons[rank].requests.lane;
	return daemons[rank].pool;
}

struct peers *mounts_peers(unsigned rank)
{
	return &daemons[rank].client.peers;
}

uint64_t mounts_signature(unsigned rank, const char *path)
{
	struct store *store = daemons[rank].ns.store;
	struct metadata_files markers;
	struct store_folder *folder;
	uint64_t signature = 0;

	assert_int_equal(store->open_folder(store, store_path_in(NULL, path),
					    &folder), 0);
	if (metadata_files_read(folder, NULL, &markers) == 0) {
		metadata_files_pin(&markers, folder);
		signature = metadata_files_signature(&markers);
		metadata_files_finish(&markers);
	}
	store_folder_put(folder);
	return signature;
}
