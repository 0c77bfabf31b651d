/* SPDX-License-Identifier: Apache-2.0 */
/*
 *	starting -> running -> stopped
 *	    |
 *	    +-> failed -> stopped
 *	    |
 *	    +-> stopped
 *
 * One thread starts MPI, meets the others, and is then the engine's. Stopped
 * is what cluster_stop makes of all others; the thread may take longer to see
 * it: who is stopped while it starts runs only to say goodbye.
 */
#include "comm/cluster.h"

#include "comm/client.h"
#include "comm/source_peer.h"
#include "comm/transport_mpi.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How long MPI may take to end: where a rank is lost it never does, and who
 * still starts may wait for one that never comes. */
enum { FINISH_MS = 3000, FINISH_LOST_MS = 600, FINISH_LOOK_MS = 50 };

enum state { STARTING, RUNNING, FAILED, STOPPED };

struct cluster {
	struct client client;		/* has the peers */
	struct cluster_options options;	/* const; of mine only its store_fd */
	struct hello mine;		/* const but for its bell */
	pthread_t thread;
	bool started;			/* there is a thread */
	bool differ;			/* the ranks do; the thread's */
	struct hello *hellos;		/* owned; const once running */
	pid_t parent;			/* const */
	pthread_mutex_t lock;
	pthread_cond_t change;
	enum state state;		/* guarded by lock */
	bool met;			/* once it was running; likewise */
	bool over;			/* the thread has ended; likewise */
};

/* ---- starting ------------------------------------------------------------ */

/* The thread's. True: it was stopped meanwhile, and that it stays. */
static bool set_state(struct cluster *c, enum state state)
{
	bool stopped;

	pthread_mutex_lock(&c->lock);
	c->met = state == RUNNING;
	stopped = c->state == STOPPED;
	if (!stopped)
		c->state = state;
	pthread_cond_broadcast(&c->change);
	pthread_mutex_unlock(&c->lock);
	return stopped;
}

/* Beside the program, as it is built, or where it is installed. */
static void *open_module(void)
{
	static const char *const places[] = {
		"ckptfs_mpi.so", CKPTFS_MODULE_PLACE "/ckptfs_mpi.so",
	};
	char path[4096 + 256];
	void *module = NULL;
	ssize_t size = readlink("/proc/self/exe", path, 4096);
	char *name;
	size_t i;

	if (size < 0)
		size = 0;
	path[size] = '\0';
	name = strrchr(path, '/');
	name = name ? name + 1 : path;
	for (i = 0; i < sizeof(places) / sizeof(places[0]) && !module; i++) {
		snprintf(name, sizeof(path) - (size_t)(name - path), "%s",
			 places[i]);
		module = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
	}
	return module;
}

/* MPI comes as a module: who has no ranks does without. It is never closed:
 * MPI's own threads may be in it. */
static int load_transport(struct transport **ret_transport, char *trouble)
{
	int (*create)(struct transport **) = NULL;
	void *module = open_module();

	if (module)
		*(void **)&create = dlsym(module, "transport_mpi_create");
	if (!create) {
		snprintf(trouble, 1024, "no MPI: %s", dlerror());
		return -ENOENT;
	}
	return create(ret_transport);
}

/* What the others are; opens the stores of those on this host. */
static int look_at_others(struct cluster *c)
{
	struct peers *peers = &c->client.peers;
	unsigned i;

	for (i = 0; i < peers->count; i++)
		if (i != peers->rank && !c->options.force_mpi)
			peers->stores[i] =
				handshake_open_store(&c->mine, &c->hellos[i]);
	return 0;
}

static void known(void *context, unsigned rank, uint32_t ip)
{
	struct cluster *c = context;

	if (c->options.watch)
		supervisor_known(c->options.watch, rank, ip);
}

static void serve(void *context, struct engine_request *request)
{
	struct cluster *c = context;

	c->options.serve(c->options.server, request);
}

static void changed(void *context, unsigned rank, enum peer_state state)
{
	struct cluster *c = context;

	c->options.changed(c->options.context, rank, state);
}

static int connect_bell(struct cluster *c, struct doorbell *bell)
{
	unsigned count = c->client.peers.count, i;
	struct doorbell_address *addresses = calloc(count, sizeof(*addresses));
	int error;

	if (!addresses)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		addresses[i] = c->hellos[i].bell;
	error = doorbell_connect(bell, c->hellos[0].nonce, c->client.peers.rank,
				 addresses, count);
	if (!error && c->options.watch)
		supervisor_started(c->options.watch, c->hellos[0].nonce,
				   c->client.peers.rank, addresses, count);
	free(addresses);
	return error;
}

static int meet_all(struct cluster *c, struct transport *transport,
		    struct doorbell *bell, char *trouble)
{
	struct engine_options options = {
		.transport = transport, .bell = bell,
		.deadline_ms = c->options.deadline_ms,
		.serve = serve, .changed = changed, .known = known,
		.context = c,
	};
	int error;

	if (transport->rank != c->client.peers.rank ||
	    transport->count != c->client.peers.count) {
		snprintf(trouble, 1024, "MPI says rank %u of %u, mpirun rank %u of %u",
			 transport->rank, transport->count,
			 c->client.peers.rank, c->client.peers.count);
		return -EPROTO;
	}
	error = meet(transport, &c->mine, c->hellos, trouble);
	/* Else an exchange has failed, of which others may know nothing. */
	c->differ = error == -EPROTO && *trouble;
	if (!error)
		error = look_at_others(c);
	if (!error)
		error = connect_bell(c, bell);
	if (!error)
		error = engine_create(&options, &c->client.engine);
	return error;
}

/* The transport is the engine's, unless there is an error. */
static int start(struct cluster *c, struct transport **ret_transport,
		 char *trouble)
{
	struct doorbell *bell = NULL;
	int error = load_transport(ret_transport, trouble);

	if (!error)
		error = doorbell_create(&bell, &c->mine.bell);
	if (!error)
		error = meet_all(c, *ret_transport, bell, trouble);
	if (error)
		doorbell_destroy(bell);
	if (error && !*trouble)
		snprintf(trouble, 1024, "starting MPI: %s", strerror(-error));
	return error;
}

/*
 * Where all say the same, rank 0 may be the only one that is heard, and mpirun
 * ends all ranks when the first one has ended: rank 0 is told first, and the
 * others when it was.
 */
static void tell_in_turn(struct cluster *c, struct transport *transport,
			 const char *trouble)
{
	const bool first = c->client.peers.rank == 0;
	const char mine = 0;

	if (first)
		c->options.started(c->options.context, trouble, true);
	/* There is room in what they have said, which nobody needs now. */
	transport->exchange(transport, &mine, sizeof(mine), c->hellos);
	if (!first)
		c->options.started(c->options.context, trouble, true);
}

static void run(struct cluster *c)
{
	bool stopped = set_state(c, RUNNING);

	c->options.started(c->options.context, NULL, false);
	if (stopped)
		engine_stop(c->client.engine);
	engine_run(c->client.engine);
}

static void fail(struct cluster *c, struct transport *transport,
		 const char *trouble)
{
	set_state(c, FAILED);
	if (c->differ)
		tell_in_turn(c, transport, trouble);
	else
		c->options.started(c->options.context, trouble, false);
	if (transport)
		transport->destroy(transport);
}

static void *thread_main(void *context)
{
	struct transport *transport = NULL;
	struct cluster *c = context;
	char trouble[1024] = "";

	if (start(c, &transport, trouble))
		fail(c, transport, trouble);
	else
		run(c);
	pthread_mutex_lock(&c->lock);
	c->over = true;
	pthread_cond_broadcast(&c->change);
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* ---- for the client ------------------------------------------------------ */

static struct cluster *from_peers(struct peers *peers)
{
	return (struct cluster *)(void *)((char *)peers -
		offsetof(struct cluster, client.peers));
}

static int wait_ready(struct peers *peers)
{
	struct cluster *c = from_peers(peers);
	int error;

	pthread_mutex_lock(&c->lock);
	while (c->state == STARTING)
		pthread_cond_wait(&c->change, &c->lock);
	error = c->state == RUNNING ? 0 : -ESHUTDOWN;
	pthread_mutex_unlock(&c->lock);
	return error;
}

static bool is_ready(struct peers *peers)
{
	struct cluster *c = from_peers(peers);
	bool ready;

	pthread_mutex_lock(&c->lock);
	ready = c->state == RUNNING;
	pthread_mutex_unlock(&c->lock);
	return ready;
}

static void info(struct peers *peers, unsigned rank,
		 struct peer_info *ret_info)
{
	struct cluster *c = from_peers(peers);
	bool met;

	*ret_info = (struct peer_info){
		.state = rank == peers->rank ? PEER_SELF : PEER_STARTING,
	};
	pthread_mutex_lock(&c->lock);
	met = c->met;
	pthread_mutex_unlock(&c->lock);
	if (!met)
		return;
	ret_info->state = engine_state(c->client.engine, rank);
	ret_info->pid = c->hellos[rank].pid;
	ret_info->direct = peers->stores[rank] >= 0;
	memcpy(ret_info->host, c->hellos[rank].host, sizeof(ret_info->host));
}

static void probe(struct peers *peers)
{
	if (is_ready(peers))
		engine_probe(from_peers(peers)->client.engine);
}

/* ---- life ---------------------------------------------------------------- */

static int init(struct cluster *c, const struct cluster_options *options)
{
	pthread_condattr_t monotonic;
	int error;

	c->options = *options;
	c->parent = getppid();
	handshake_hello(&options->mine, &c->mine);
	/* Its texts are the caller's. */
	c->options.mine = (struct handshake_options){
		.store_fd = options->mine.store_fd,
	};
	c->hellos = calloc(options->count, sizeof(*c->hellos));
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->change, &monotonic);
	pthread_condattr_destroy(&monotonic);
	error = client_init(&c->client, options->rank, options->count);
	if (!error)
		c->client.peers.stores[options->rank] = options->mine.store_fd;
	c->client.peers.wait_ready = wait_ready;
	c->client.peers.is_ready = is_ready;
	c->client.peers.info = info;
	c->client.peers.probe = probe;
	c->client.peers.source = source_peer_create;
	return c->hellos ? error : -ENOMEM;
}

int cluster_create(const struct cluster_options *options,
		   struct cluster **ret_cluster)
{
	struct cluster *c = calloc(1, sizeof(*c));
	int error = c ? init(c, options) : -ENOMEM;

	if (error)
		cluster_destroy(c);
	else
		*ret_cluster = c;
	return error;
}

int cluster_start(struct cluster *cluster)
{
	int error = -pthread_create(&cluster->thread, NULL, thread_main,
				    cluster);

	cluster->started = !error;
	return error;
}

static unsigned finish_ms(const struct cluster *c, enum state state)
{
	unsigned i;

	if (state != RUNNING)
		return state == FAILED ? FINISH_MS : FINISH_LOST_MS;
	for (i = 0; i < c->client.peers.count; i++)
		if (engine_state(c->client.engine, i) == PEER_LOST)
			return FINISH_LOST_MS;
	return FINISH_MS;
}

/* Has the thread ended? At most @timeout_ms, and not when who has started us
 * is gone: MPI ends never, then. */
static bool wait_until_over(struct cluster *c, unsigned timeout_ms)
{
	struct timespec until;
	unsigned waited;
	bool over;

	pthread_mutex_lock(&c->lock);
	for (waited = 0; !c->over && waited < timeout_ms &&
			 getppid() == c->parent; waited += FINISH_LOOK_MS) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += FINISH_LOOK_MS * 1000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		while (!c->over &&
		       pthread_cond_timedwait(&c->change, &c->lock,
					      &until) != ETIMEDOUT)
			;
	}
	over = c->over;
	pthread_mutex_unlock(&c->lock);
	return over;
}

bool cluster_stop(struct cluster *cluster)
{
	enum state before;

	pthread_mutex_lock(&cluster->lock);
	before = cluster->state;
	cluster->state = STOPPED;
	pthread_cond_broadcast(&cluster->change);
	pthread_mutex_unlock(&cluster->lock);
	if (!cluster->started)
		return true;
	if (before == RUNNING)
		engine_stop(cluster->client.engine);
	return wait_until_over(cluster, finish_ms(cluster, before));
}

void cluster_destroy(struct cluster *cluster)
{
	if (!cluster)
		return;
	if (cluster->started)
		pthread_join(cluster->thread, NULL);
	client_finish(&cluster->client);
	pthread_mutex_destroy(&cluster->lock);
	pthread_cond_destroy(&cluster->change);
	free(cluster->hellos);
	free(cluster);
}

struct peers *cluster_peers(struct cluster *cluster)
{
	return &cluster->client.peers;
}

void cluster_count(struct cluster *cluster, struct engine_counters *ret)
{
	*ret = (struct engine_counters){ .slots = 0 };
	if (is_ready(&cluster->client.peers))
		engine_count(cluster->client.engine, ret);
}
