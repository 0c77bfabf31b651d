/* SPDX-License-Identifier: Apache-2.0 */
#include "support/members.h"

#include "support/test.h"
#include "support/fake_mpi.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PATIENCE_S = 20 };

struct member members[MEMBERS];
struct fake_net *members_net;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
/* Who is to have a transport, -1: nobody; and what happens instead. Guarded by
 * lock. */
static int next_rank = -1, mpi_error;

/* For a change. */
static void wait_locked(void)
{
	struct timespec until;
	int error;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	error = pthread_cond_timedwait(&change, &lock, &until);
	/* What ends the test needs the lock. */
	if (error)
		pthread_mutex_unlock(&lock);
	assert_int_equal(error, 0);
}

/* ---- what a cluster calls ------------------------------------------------ */

int fake_mpi_create(struct transport **ret_transport)
{
	int error;

	pthread_mutex_lock(&lock);
	error = mpi_error;
	if (!error)
		*ret_transport = fake_net_transport(members_net,
						    (unsigned)next_rank);
	next_rank = -1;
	pthread_cond_broadcast(&change);
	pthread_mutex_unlock(&lock);
	return error;
}

static void serve(void *context, struct engine_request *request)
{
	struct member *member = context;
	bool keep;

	pthread_mutex_lock(&lock);
	keep = member->keeps;
	member->served++;
	if (keep)
		member->kept = request;
	pthread_cond_broadcast(&change);
	pthread_mutex_unlock(&lock);
	/* An answer that nobody else gives. */
	if (!keep)
		engine_answer(request, -EXDEV, 0);
}

static void changed(void *context, unsigned rank, enum peer_state state)
{
	struct member *member = context;

	pthread_mutex_lock(&lock);
	member->states[rank] = state;
	pthread_cond_broadcast(&change);
	pthread_mutex_unlock(&lock);
}

static void started(void *context, const char *trouble, bool common)
{
	struct member *member = context;

	pthread_mutex_lock(&lock);
	member->started++;
	member->trouble = trouble ? strdup(trouble) : NULL;
	member->common = common;
	pthread_cond_broadcast(&change);
	while (member->busy)
		pthread_cond_wait(&change, &lock);
	pthread_mutex_unlock(&lock);
}

/* ---- life ---------------------------------------------------------------- */

int members_setup(void **state)
{
	unsigned rank;

	(void)state;
	mpi_error = 0;
	members_net = fake_net_create(MEMBERS, 1);
	for (rank = 0; rank < MEMBERS; rank++) {
		members[rank] = (struct member){ .cluster = NULL };
		folder_make(&members[rank].store);
	}
	return 0;
}

void members_create(unsigned rank, const char *settings, bool force_mpi)
{
	struct member *member = &members[rank];
	const struct cluster_options options = {
		.rank = rank, .count = MEMBERS,
		.mine = {
			.version = "1.0", .settings = settings,
			.store = member->store.path,
			.point = member->store.path,
			.store_fd = member->store.fd,
		},
		.deadline_ms = 10000, .force_mpi = force_mpi,
		.serve = serve, .server = member, .changed = changed, .started = started,
		.context = member,
	};

	assert_int_equal(cluster_create(&options, &member->cluster), 0);
	member->peers = cluster_peers(member->cluster);
}

/* One after the other: each has its own transport. */
void members_start_as(unsigned rank, unsigned mpi_rank)
{
	pthread_mutex_lock(&lock);
	next_rank = (int)mpi_rank;
	pthread_mutex_unlock(&lock);
	assert_int_equal(cluster_start(members[rank].cluster), 0);
	members[rank].running = true;
	pthread_mutex_lock(&lock);
	while (next_rank >= 0)
		wait_locked();
	pthread_mutex_unlock(&lock);
}

void members_fail_mpi(int error)
{
	pthread_mutex_lock(&lock);
	mpi_error = error;
	pthread_mutex_unlock(&lock);
}

void members_start(unsigned rank)
{
	members_create(rank, "settings", true);
	members_start_as(rank, rank);
}

void members_keep_busy(unsigned rank, bool busy)
{
	pthread_mutex_lock(&lock);
	members[rank].busy = busy;
	pthread_cond_broadcast(&change);
	pthread_mutex_unlock(&lock);
}

void members_await_started(unsigned rank)
{
	pthread_mutex_lock(&lock);
	while (!members[rank].started)
		wait_locked();
	pthread_mutex_unlock(&lock);
}

void members_await_request(unsigned rank)
{
	pthread_mutex_lock(&lock);
	while (!members[rank].kept)
		wait_locked();
	pthread_mutex_unlock(&lock);
}

void members_await_state(unsigned rank, unsigned other, enum peer_state state)
{
	pthread_mutex_lock(&lock);
	while (members[rank].states[other] != state)
		wait_locked();
	pthread_mutex_unlock(&lock);
}

static unsigned read_count(const unsigned *count)
{
	unsigned found;

	pthread_mutex_lock(&lock);
	found = *count;
	pthread_mutex_unlock(&lock);
	return found;
}

unsigned members_count_started(unsigned rank)
{
	return read_count(&members[rank].started);
}

unsigned members_count_served(unsigned rank)
{
	return read_count(&members[rank].served);
}

uint64_t members_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Of one that has met the others. */
void members_stop(unsigned rank)
{
	uint64_t began;

	members_await_started(rank);
	began = members_now_ms();
	assert_true(cluster_stop(members[rank].cluster));
	/* It says one second; others use this machine, too. */
	assert_true(members_now_ms() - began < 2000);
}

/* Also after a test that has failed: who still waits for others is let go. */
int members_teardown(void **state)
{
	unsigned rank;

	(void)state;
	fake_net_break_exchange(members_net, -ECONNABORTED);
	for (rank = 0; rank < MEMBERS; rank++) {
		struct member *member = &members[rank];

		members_keep_busy(rank, false);
		if (member->kept)
			engine_drop(member->kept);
		if (member->running)
			members_await_started(rank);
		if (member->cluster)
			cluster_stop(member->cluster);
		cluster_destroy(member->cluster);
		free(member->trouble);
		folder_remove(&member->store);
	}
	for (rank = 0; rank < MEMBERS; rank++) {
		struct transport *transport =
			fake_net_transport(members_net, rank);

		/* That of who was never started. */
		transport->destroy(transport);
	}
	fake_net_destroy(members_net);
	return 0;
}
