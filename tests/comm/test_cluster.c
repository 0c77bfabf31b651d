/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clusters of several ranks in one process, from their start to their end.
 * What they load as MPI is a module of the test's own beside this program,
 * which gives them transports of a network in memory.
 */
#include "support/test.h"
#include "support/members.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- asking -------------------------------------------------------------- */

static int ask(unsigned asker, unsigned asked)
{
	struct peers *peers = members[asker].peers;
	struct array out = { .data = NULL };
	int error = peers->status(peers, asked, "path", &out);

	array_finish(&out);
	return error;
}

/* On a thread of its own: rank 0 waits until all have met, and asks rank 2. */
static struct {
	pthread_t thread;
	_Atomic pid_t tid;		/* 0: it has not begun */
	int ready_error, error;
	bool ready;
} waiter;

static void *wait_and_ask(void *unused)
{
	struct peers *peers = members[0].peers;

	(void)unused;
	waiter.tid = gettid();
	waiter.ready_error = peers->wait_ready(peers);
	waiter.ready = peers->is_ready(peers);
	waiter.error = ask(0, 2);
	return NULL;
}

static bool is_asleep(pid_t tid)
{
	char path[64], state = '?';
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	file = fopen(path, "re");
	/* Its number, its name, its state. */
	if (file && fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		state = '?';
	if (file)
		fclose(file);
	return state == 'S';
}

/* Until it waits; who is asleep tells nobody. */
static void await_asleep(const _Atomic pid_t *tid)
{
	const struct timespec moment = { 0, 1000000 };
	uint64_t began = members_now_ms();

	while (*tid == 0 || !is_asleep(*tid)) {
		assert_true(members_now_ms() - began < 20000);
		nanosleep(&moment, NULL);
	}
}

static void start_waiter(void)
{
	waiter.tid = 0;
	assert_int_equal(pthread_create(&waiter.thread, NULL, wait_and_ask,
					NULL), 0);
	await_asleep(&waiter.tid);
}

static void join_waiter(void)
{
	assert_int_equal(pthread_join(waiter.thread, NULL), 0);
	waiter.tid = 0;
}

static enum peer_state state_of(unsigned asker, unsigned rank)
{
	struct peer_info info;

	members[asker].peers->info(members[asker].peers, rank, &info);
	return info.state;
}

/* ---- meeting ------------------------------------------------------------- */

static void check_info(unsigned asker, unsigned rank, bool direct)
{
	struct peers *peers = members[asker].peers;
	char host[64] = "";
	struct peer_info info;

	gethostname(host, sizeof(host) - 1);
	peers->info(peers, rank, &info);
	assert_int_equal(info.state, rank == asker ? PEER_SELF : PEER_UP);
	assert_string_equal(info.host, host);
	assert_int_equal(info.pid, getpid());
	assert_int_equal(info.direct, rank == asker || direct);
}

static void check_store(unsigned asker, unsigned rank, bool direct)
{
	int fd = members[asker].peers->stores[rank];
	struct stat wanted, status;

	if (rank != asker && !direct) {
		assert_int_equal(fd, -1);
		return;
	}
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &status), 0);
	assert_int_equal(fstat(members[rank].store.fd, &wanted), 0);
	assert_int_equal(status.st_ino, wanted.st_ino);
}

static void check_met(bool direct)
{
	unsigned rank, other;

	for (rank = 0; rank < MEMBERS; rank++) {
		struct peers *peers = members[rank].peers;

		assert_int_equal(peers->wait_ready(peers), 0);
		assert_true(peers->is_ready(peers));
		members_await_started(rank);
		assert_null(members[rank].trouble);
		assert_int_equal(peers->rank, rank);
		assert_int_equal(peers->count, MEMBERS);
		for (other = 0; other < MEMBERS; other++) {
			check_info(rank, other, direct);
			check_store(rank, other, direct);
		}
		assert_int_equal(ask(rank, (rank + 1) % MEMBERS), -EXDEV);
	}
	for (rank = 0; rank < MEMBERS; rank++) {
		assert_int_equal(members_count_served(rank), 1);
		assert_int_equal(members_count_started(rank), 1);
	}
}

static void all_meet(void **state)
{
	unsigned rank;

	(void)state;
	for (rank = 0; rank < MEMBERS; rank++)
		members_start(rank);
	check_met(false);
	for (rank = 0; rank < MEMBERS; rank++)
		members_stop(rank);
}

/* Ranks of one host open each other's stores, unless told not to. */
static void stores_of_one_host(void **state)
{
	unsigned rank;

	(void)state;
	for (rank = 0; rank < MEMBERS; rank++) {
		members_create(rank, "settings", false);
		members_start_as(rank, rank);
	}
	check_met(true);
	for (rank = 0; rank < MEMBERS; rank++)
		members_stop(rank);
}

static void before_all_have_met(void **state)
{
	struct engine_counters counters;
	unsigned rank;

	(void)state;
	members_create(0, "settings", true);
	assert_false(members[0].peers->is_ready(members[0].peers));
	members_start_as(0, 0);
	members_start(1);
	fake_net_await_exchange(members_net, 2);
	start_waiter();
	assert_false(members[0].peers->is_ready(members[0].peers));
	assert_int_equal(state_of(0, 0), PEER_SELF);
	for (rank = 1; rank < MEMBERS; rank++)
		assert_int_equal(state_of(0, rank), PEER_STARTING);
	cluster_count(members[0].cluster, &counters);
	assert_int_equal(counters.slots, 0);
	/* Nobody is there to be pinged. */
	members[0].peers->probe(members[0].peers);
	assert_int_equal(members_count_started(0), 0);
	members_start(2);
	join_waiter();
	assert_int_equal(waiter.ready_error, 0);
	assert_true(waiter.ready);
	assert_int_equal(waiter.error, -EXDEV);
	for (rank = 0; rank < MEMBERS; rank++)
		members_stop(rank);
}

/* ---- not meeting --------------------------------------------------------- */

static void check_failed(unsigned rank, const char *trouble, bool common)
{
	struct peers *peers = members[rank].peers;
	unsigned other;

	members_await_started(rank);
	assert_int_equal(members_count_started(rank), 1);
	assert_non_null(members[rank].trouble);
	if (!strstr(members[rank].trouble, trouble))
		fail_msg("\"%s\" is not in \"%s\"", trouble,
			 members[rank].trouble);
	assert_int_equal(members[rank].common, common);
	assert_false(peers->is_ready(peers));
	assert_int_equal(peers->wait_ready(peers), -ESHUTDOWN);
	for (other = 0; other < MEMBERS; other++) {
		assert_int_equal(ask(rank, other), -ESHUTDOWN);
		assert_int_equal(state_of(rank, other), other == rank ?
				 PEER_SELF : PEER_STARTING);
	}
}

/* All say the same of it. */
static void settings_differ(void **state)
{
	unsigned rank;

	(void)state;
	for (rank = 0; rank < MEMBERS; rank++) {
		members_create(rank, rank == 2 ? "deadline=3" : "deadline=10",
			       true);
		members_start_as(rank, rank);
	}
	for (rank = 0; rank < MEMBERS; rank++) {
		check_failed(rank, "deadline=3", true);
		assert_string_equal(members[rank].trouble,
				    members[0].trouble);
	}
}

/* The first one has said it before any other ends. */
static void settings_differ_in_turn(void **state)
{
	unsigned rank;

	(void)state;
	members_keep_busy(0, true);
	for (rank = 0; rank < MEMBERS; rank++) {
		members_create(rank, rank == 1 ? "force_mpi" : "", true);
		members_start_as(rank, rank);
	}
	members_await_started(0);
	fake_net_await_exchange(members_net, 2 * MEMBERS - 1);
	for (rank = 1; rank < MEMBERS; rank++)
		assert_int_equal(members_count_started(rank), 0);
	members_keep_busy(0, false);
	for (rank = 0; rank < MEMBERS; rank++)
		check_failed(rank, "force_mpi", true);
}

/* Only the one says it whose MPI it is. */
static void mpi_fails(void **state)
{
	(void)state;
	members_fail_mpi(-ENODEV);
	members_start(0);
	check_failed(0, strerror(ENODEV), false);
	members_fail_mpi(0);
	members_create(1, "settings", true);
	members_start_as(1, 2);
	check_failed(1, "MPI says rank 2 of 3, mpirun rank 1 of 3", false);
}

/* Who waits for it is let go when this rank is to end. */
static void one_never_comes(void **state)
{
	(void)state;
	members_start(0);
	members_start(1);
	fake_net_await_exchange(members_net, 2);
	start_waiter();
	assert_false(cluster_stop(members[0].cluster));
	join_waiter();
	assert_int_equal(waiter.ready_error, -ESHUTDOWN);
	assert_int_equal(waiter.error, -ESHUTDOWN);
	assert_int_equal(members_count_started(0), 0);
	/* MPI gives up, some day. */
	fake_net_break_exchange(members_net, -ECONNRESET);
	check_failed(0, strerror(ECONNRESET), false);
	check_failed(1, strerror(ECONNRESET), false);
}

/* ---- stopping while it starts -------------------------------------------- */

/* On a thread of its own: rank 0 is stopped. */
static struct {
	pthread_t thread;
	_Atomic pid_t tid;		/* 0: it has not begun */
	bool over;
} stopper;

static void *stop_first(void *unused)
{
	(void)unused;
	stopper.tid = gettid();
	stopper.over = cluster_stop(members[0].cluster);
	return NULL;
}

/* Until it waits for the end. */
static void start_stopper(void)
{
	stopper.tid = 0;
	assert_int_equal(pthread_create(&stopper.thread, NULL, stop_first,
					NULL), 0);
	await_asleep(&stopper.tid);
}

static void join_stopper(void)
{
	assert_int_equal(pthread_join(stopper.thread, NULL), 0);
}

/* It is over as soon as it has said so. */
static void stopped_when_it_has_failed(void **state)
{
	(void)state;
	members_fail_mpi(-ENODEV);
	members_keep_busy(0, true);
	members_start(0);
	members_await_started(0);
	start_stopper();
	members_keep_busy(0, false);
	join_stopper();
	assert_true(stopper.over);
}

/* It meets the others, and leaves them. */
static void stopped_before_all_have_met(void **state)
{
	unsigned rank;

	(void)state;
	members_start(0);
	members_start(1);
	fake_net_await_exchange(members_net, 2);
	start_stopper();
	members_start(2);
	for (rank = 1; rank < MEMBERS; rank++)
		members_await_state(rank, 0, PEER_LEFT);
	join_stopper();
	assert_int_equal(ask(0, 1), -ESHUTDOWN);
	for (rank = 1; rank < MEMBERS; rank++)
		members_stop(rank);
}

/* ---- ending -------------------------------------------------------------- */

/* Calls that wait fail, and all that follow; others see that it has left. */
static void one_leaves(void **state)
{
	struct engine_counters counters;
	unsigned rank;

	(void)state;
	members[2].keeps = true;
	for (rank = 0; rank < MEMBERS; rank++)
		members_start(rank);
	start_waiter();
	members_await_request(2);
	cluster_count(members[0].cluster, &counters);
	assert_int_equal(counters.slots, 1);
	members_stop(0);
	join_waiter();
	assert_int_equal(waiter.error, -ESHUTDOWN);
	assert_false(members[0].peers->is_ready(members[0].peers));
	assert_int_equal(members[0].peers->wait_ready(members[0].peers),
			 -ESHUTDOWN);
	assert_int_equal(ask(0, 1), -ESHUTDOWN);
	members[0].peers->probe(members[0].peers);
	cluster_count(members[0].cluster, &counters);
	assert_int_equal(counters.slots, 0);
	/* The others go on without it. */
	for (rank = 1; rank < MEMBERS; rank++) {
		members_await_state(rank, 0, PEER_LEFT);
		assert_int_equal(state_of(rank, 0), PEER_LEFT);
		assert_int_equal(ask(rank, 0), -EIO);
	}
	assert_int_equal(ask(2, 1), -EXDEV);
	members_stop(2);
	members_await_state(1, 2, PEER_LEFT);
	members_stop(1);
}

/* One that was never started has nothing to wait for. */
static void never_started(void **state)
{
	struct peers *peers;

	(void)state;
	members_create(0, "settings", true);
	peers = members[0].peers;
	assert_true(cluster_stop(members[0].cluster));
	assert_int_equal(peers->wait_ready(peers), -ESHUTDOWN);
	assert_int_equal(ask(0, 1), -ESHUTDOWN);
	cluster_destroy(NULL);
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, members_setup, members_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(all_meet), TEST(stores_of_one_host),
		TEST(before_all_have_met), TEST(settings_differ),
		TEST(settings_differ_in_turn),
		TEST(mpi_fails), TEST(one_never_comes),
		TEST(stopped_when_it_has_failed),
		TEST(stopped_before_all_have_met), TEST(one_leaves),
		TEST(never_started),
	};

	return cmocka_run_group_tests_name("cluster", tests, NULL, NULL);
}
