/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ckptfs SOURCE MOUNTPOINT: the command line, and the staircase up and down.
 * A first argument that is a command's name makes it that command instead.
 * In the background, the daemon is forked off before anything else exists,
 * and the parent waits for its word that the mount answers. Under mpirun it
 * stays in the foreground, and its parent is its watcher.
 */
#define FUSE_USE_VERSION 314
#include "comm/cluster.h"
#include "comm/server.h"
#include "fs/cli/tool.h"
#include "fs/fuse/mount.h"
#include "fs/log.h"
#include "fs/options.h"
#include "fs/tree/report.h"
#include "fs/tree/serve.h"
#include "fs/tree/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <fuse_opt.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };

static int usage(const char *what)
{
	fprintf(stderr, "ckptfs: %s; see ckptfs --help\n", what);
	return EXIT_USAGE;
}

static int explain(const char *what, int error)
{
	fprintf(stderr, "ckptfs: %s%s: %s\n", log_rank(), what,
		strerror(-error));
	return EXIT_FAILURE;
}

/* ---- the background ------------------------------------------------------ */

/*
 * In the child, 0 and the pipe to report on. In the parent, wait for the
 * report and return 1 with the exit status.
 */
static int go_to_background(int *ret_report, int *ret_status)
{
	int ends[2], result;
	char report;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		close(ends[0]);
		setsid();
		*ret_report = ends[1];
		return 0;
	}
	close(ends[1]);
	*ret_status = EXIT_SUCCESS;
	/* No report: it ended, and has said why. */
	if (read(ends[0], &report, 1) != 1)
		*ret_status = waitpid(pid, &result, 0) == pid &&
			      WIFEXITED(result) && WEXITSTATUS(result) ?
			      WEXITSTATUS(result) : EXIT_FAILURE;
	return 1;
}

/* Called when the mount answers. */
static void report_ready(void *context)
{
	int *report = context, null;

	if (*report < 0)
		return;
	log_background();
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (chdir("/") < 0 || null < 0 || dup2(null, STDIN_FILENO) < 0 ||
	    dup2(null, STDOUT_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0)
		log_line(LOG_LEVEL_WARNING, "detaching: %s", strerror(errno));
	if (null > STDERR_FILENO)
		close(null);
	if (write(*report, "", 1) < 0)
		log_line(LOG_LEVEL_WARNING, "reporting: %s", strerror(errno));
	close(*report);
	*report = -1;
}

/* ---- other ranks --------------------------------------------------------- */

/* All that serves; what ranks need is NULL without them. */
struct daemon {
	const struct options *options;
	struct namespace ns;
	struct mount *mount;
	struct cluster *cluster;
	struct supervisor *watch;
	struct server server;
	struct report report;
};

static void on_change(void *context, unsigned rank, enum peer_state state)
{
	static const char *const texts[] = {
		[PEER_UP] = "answers again",
		[PEER_SUSPECT] = "does not answer",
		[PEER_LOST] = "is gone",
		[PEER_LEFT] = "has left",
	};
	struct daemon *daemon = context;
	struct peers *peers = cluster_peers(daemon->cluster);
	struct peer_info info;

	if (state == PEER_LOST || state == PEER_LEFT)
		server_forget(&daemon->server, rank);
	peers->info(peers, rank, &info);
	if (texts[state])
		log_line(state == PEER_UP || state == PEER_LEFT ?
			 LOG_LEVEL_INFO : LOG_LEVEL_WARNING,
			 "rank %u (%s) %s%s", rank, info.host, texts[state],
			 state == PEER_UP ? "" : info.direct ?
			 ": its store is read directly" :
			 ": what only it has cannot be read");
}

static void on_start(void *context, const char *trouble, bool common)
{
	struct daemon *daemon = context;

	if (!trouble)
		return;
	if (!common || daemon->options->rank == 0)
		log_line(LOG_LEVEL_ERROR, "%s", trouble);
	mount_fail(daemon->mount);
}

static void count_slots(void *context, uint64_t *ret_slots,
			uint64_t *ret_quarantined)
{
	struct daemon *daemon = context;
	struct engine_counters counters;

	cluster_count(daemon->cluster, &counters);
	*ret_slots = counters.slots;
	*ret_quarantined = counters.quarantined;
}

/* What all ranks must have alike. The caller frees it; NULL: no memory. */
static char *make_settings(const struct options *options)
{
	char *text;

	if (asprintf(&text, "deadline=%g%s%s%s%s%s",
		     options->deadline_ms / 1000.0,
		     options->force_mpi ? ",force_mpi" : "",
		     options->hf_root ? ",hf_root=" : "",
		     options->hf_root ? options->hf_root : "",
		     options->hf_assets ? ",hf_assets=" : "",
		     options->hf_assets ? options->hf_assets : "") < 0)
		return NULL;
	return text;
}

static void set_server(struct daemon *daemon)
{
	struct namespace *ns = &daemon->ns;
	struct answering from = {
		.own = ns->root, .rank = daemon->options->rank,
		.store = ns->store,
		.counters = &ns->counters.reads[COUNTERS_SERVED],
	};

	serve_hooks(ns, &from.checkpoints);
	server_init(&daemon->server, mount_pool(daemon->mount), &from);
}

static int join_ranks(struct daemon *daemon)
{
	const struct options *options = daemon->options;
	char *settings = make_settings(options);
	struct cluster_options cluster = {
		.rank = options->rank, .count = options->count,
		.mine = {
			.version = CKPTFS_VERSION, .settings = settings,
			.store = mount_source(daemon->mount),
			.point = mount_path(daemon->mount),
			.store_fd = daemon->ns.root,
		},
		.deadline_ms = options->deadline_ms,
		.force_mpi = options->force_mpi, .watch = daemon->watch,
		.serve = server_submit, .server = &daemon->server,
		.changed = on_change,
		.started = on_start, .context = daemon,
	};
	int error;

	if (!settings)
		return -ENOMEM;
	error = cluster_create(&cluster, &daemon->cluster);
	free(settings);
	if (!error)
		error = tree_join(&daemon->ns, cluster_peers(daemon->cluster));
	if (error)
		return error;
	set_server(daemon);
	return cluster_start(daemon->cluster);
}

/* mpirun binds what it starts to a core, if that is one or two processes. A
 * daemon has threads, unless somebody wants it otherwise. */
static void undo_binding(void)
{
	cpu_set_t all;

	if (getenv("OMPI_MCA_hwloc_base_binding_policy"))
		return;
	memset(&all, 0xff, sizeof(all));
	sched_setaffinity(0, sizeof(all), &all);
}

/* ---- up and down --------------------------------------------------------- */

static void set_report(struct daemon *daemon)
{
	daemon->report = (struct report){
		.ns = &daemon->ns, .version = CKPTFS_VERSION,
		.source = mount_source(daemon->mount),
		.path = mount_path(daemon->mount),
		.count = daemon->cluster ? count_slots : NULL,
		.context = daemon,
	};
	daemon->ns.report_context = &daemon->report;
	daemon->ns.report = report_make;
}

/* Serve until the end; what the kernel holds refers to the namespace until
 * the mount is destroyed. */
static int run_daemon(struct daemon *daemon, int report)
{
	int status = EXIT_SUCCESS, error = 0;

	if (daemon->options->count > 1)
		error = join_ranks(daemon);
	set_report(daemon);
	if (!error)
		error = mount_serve(daemon->mount, report_ready, &report);
	if (error) {
		if (error != -ECANCELED)
			log_line(LOG_LEVEL_ERROR, "serving: %s",
				 strerror(-error));
		status = EXIT_FAILURE;
	}
	/* Nobody shall wait for MPI to see the mount gone. */
	mount_detach(daemon->mount);
	if (daemon->cluster && !cluster_stop(daemon->cluster)) {
		/* MPI is hung in a call: nothing of it may be freed, nor
		 * waited for. */
		mount_detach(daemon->mount);
		_exit(EXIT_FAILURE);
	}
	mount_destroy(daemon->mount);
	if (daemon->cluster)
		server_finish(&daemon->server);
	tree_finish(&daemon->ns);
	cluster_destroy(daemon->cluster);
	return status;
}

static int serve(const struct options *options, struct fuse_args *args,
		 struct supervisor *watch, int report)
{
	const struct mount_options mount_options = {
		.source = options->source, .path = options->path,
		.args = args->argv, .arg_count = args->argc,
		.ranks = options->count,
	};
	const struct tree_options tree_options = {
		.decoded_cache = options->decoded_size,
		.hf_root = options->hf_root, .hf_assets = options->hf_assets,
		.ranks = options->count > 1,
	};
	struct daemon daemon = { .options = options, .watch = watch };
	const char *bad;
	int error, status = EXIT_FAILURE;

	tool_raise_file_limit();
	error = mount_create(&daemon.ns, &mount_options, &daemon.mount);
	if (error == -EINVAL)
		return usage("bad options");
	if (error)
		return explain("starting", error);
	error = tree_init(&daemon.ns, options->source,
			       &tree_options, &bad);
	if (error) {
		status = explain(bad, error);
		goto destroy_mount;
	}
	error = mount_attach(daemon.mount);
	if (!error && watch)
		supervisor_mounted(watch, mount_path(daemon.mount),
				   mount_device(daemon.mount));
	if (!error)
		return run_daemon(&daemon, report);
	/* Else libfuse has said it, but not of which rank. */
	if (error != -EIO || options->count > 1)
		explain(options->path, error);
	tree_finish(&daemon.ns);
destroy_mount:
	mount_destroy(daemon.mount);
	return status;
}

/* Who else there is: a parent that waits, or one that watches. 0: go on, 1:
 * that parent has ended, with @ret_status. */
static int split(const struct options *options, struct supervisor **watch,
		 int *report, int *ret_status)
{
	if (options->count > 1) {
		undo_binding();
		return supervisor_fork(options->path, options->argc,
				       options->argv, watch, ret_status);
	}
	if (options->foreground || options->debug || options->under_mpirun)
		return 0;
	return go_to_background(report, ret_status);
}

static int run(struct options *options, struct fuse_args *args)
{
	int report = -1, status = EXIT_FAILURE, error;
	struct supervisor *watch = NULL;
	const char *trouble;

	if (options->help) {
		options_print_help();
		return EXIT_SUCCESS;
	}
	if (options->version) {
		printf("ckptfs %s (libfuse %s)\n", CKPTFS_VERSION,
		       fuse_pkgversion());
		return EXIT_SUCCESS;
	}
	if (!options->source || !options->path)
		return usage("SOURCE and MOUNTPOINT are needed");
	if (!options_check(options, &trouble))
		return usage(trouble);
	error = options_find_ranks(options);
	if (error)
		return explain("starting", error);
	if (options->count > 1)
		log_set_rank(options->rank);
	if (options->log) {
		error = log_open(options->log);
		if (error)
			return explain(options->log, error);
	}
	error = options_add_libfuse(options, args);
	if (!error)
		error = split(options, &watch, &report, &status);
	if (error < 0)
		fprintf(stderr, "ckptfs: %s\n", strerror(-error));
	if (error)
		return status;
	return serve(options, args, watch, report);
}

/* Descriptors 0 to 2 are never files of ours, also when we were started
 * without them. Writing to them fails, as it would have. */
static void fill_standard_streams(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDONLY);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct options options = { .argc = argc, .argv = argv };
	int status;

	fill_standard_streams();
	/* Large arrays come and go, such as the list of a folder: their memory
	 * goes back to the system, and leaves no holes between what stays. */
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	if (argc > 1 && (strncmp(argv[1], "--wait", 6) == 0 ||
			 strncmp(argv[1], "--timeout", 9) == 0))
		return tool_wait(argc, argv);
	if (argc > 1 && tool_run(argc - 1, argv + 1, &status))
		return status;
	if (options_parse(&args, &options))
		status = usage("bad arguments");
	else
		status = run(&options, &args);
	fuse_opt_free_args(&args);
	options_finish(&options);
	return status;
}
