/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads that wait for a rank which does not answer: how long, until when, and
 * who is answered meanwhile.
 */
#include "support/test.h"
#include "support/cat.h"
#include "support/sample.h"
#include "support/ways.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define W WAYS_VIEWS "tensors/w"

enum { RANKS = 2, SILENT = 1, DEADLINE_MS = 300 };

/* "w" as rank 0 has it open; the silent rank has its second half. */
static struct kernel *kernel;
static struct fuse_entry_out entry;
static struct fuse_open_out opened;

static void start(unsigned deadline_ms)
{
	const struct mounts_options options = {
		.count = RANKS, .deadline_ms = deadline_ms,
	};

	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	mounts_move(0, SILENT, "step", "__1_0.distcp");
	ways_put(0, "d", "file", "of rank 0");
	mounts_start(&options);
	/* What is in the folders is known, and stays so. */
	ways_check_sample(1, 1);
	cat_check_text(mounts_kernel(0), "d/file", "of rank 0");
	kernel = mounts_kernel(0);
	assert_int_equal(kernel_walk(kernel, W, &entry), 0);
	assert_int_equal(kernel_open(kernel, entry.nodeid, &opened), 0);
}

static int stop(void **state)
{
	kernel_release(kernel, entry.nodeid, opened.fh);
	kernel_forget(kernel, entry.nodeid, 1);
	return ways_stop(state);
}

/* Its bytes, or -errno. */
static int read_half(void)
{
	static char data[WAYS_HALF];
	size_t got;
	int error = kernel_read(kernel, entry.nodeid, opened.fh, WAYS_HALF,
				WAYS_HALF, data, &got);

	return error ? error : (int)got;
}

/* The first read waits for the deadline, and no other one does. */
static void waits_once(void **state)
{
	enum { COUNT = 20 };
	uint64_t began;
	unsigned i;

	(void)state;
	start(DEADLINE_MS);
	ranks_pause(&mounts_ranks, SILENT);
	began = ranks_now_ms();
	assert_int_equal(read_half(), -EIO);
	assert_true(ranks_now_ms() - began >= DEADLINE_MS);
	began = ranks_now_ms();
	for (i = 0; i < COUNT; i++)
		assert_int_equal(read_half(), -EIO);
	/* By far less than if each had waited. */
	assert_true(ranks_now_ms() - began < COUNT * DEADLINE_MS / 4);
	fake_net_resume(mounts_ranks.net, SILENT);
	ranks_await_state(&mounts_ranks, 0, SILENT, PEER_UP);
	assert_int_equal(read_half(), WAYS_HALF);
}

/* More reads wait than may wait for one rank at once: nothing else waits for
 * them. They go on when the rank does. */
static void go_on(void **state)
{
	enum { COUNT = 8, AT_ONCE = 4 };
	static char data[SAMPLE_SIZE];
	uint64_t unique[COUNT];
	unsigned i;
	size_t got;

	(void)state;
	start(0);
	ranks_hold(&mounts_ranks, SILENT, true);
	for (i = 0; i < COUNT; i++)
		unique[i] = kernel_ask_read(kernel, entry.nodeid, opened.fh, 0,
					    SAMPLE_SIZE);
	ranks_await_requests(&mounts_ranks, SILENT, AT_ONCE);
	cat_check_sample(kernel, W "[0:32]", 1, 0, WAYS_HALF);
	cat_check_text(kernel, "d/file", "of rank 0");
	for (i = 0; i < COUNT; i++)
		assert_false(kernel_has_answer(kernel, unique[i]));
	ranks_hold(&mounts_ranks, SILENT, false);
	for (i = 0; i < COUNT; i++) {
		assert_int_equal(kernel_answer(kernel, unique[i], data,
					       sizeof(data), &got), 0);
		assert_int_equal(got, SAMPLE_SIZE);
	}
}

/* ---- clients ------------------------------------------------------------- */

/* One that has stopped: what is sent to it stays pending. */
static pid_t start_client(void)
{
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			raise(SIGSTOP);
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
	return pid;
}

/* Two clients wait for the silent rank. One dies of a signal at once; the
 * other survives a first one, and waits for the answer then. */
static void clients_die(void **state)
{
	static unsigned char data[SAMPLE_SIZE];
	uint64_t unique[2];
	pid_t pids[2];
	unsigned i;
	size_t got;

	(void)state;
	/* Longer than anybody waits for an answer here. */
	start(60000);
	ranks_hold(&mounts_ranks, SILENT, true);
	for (i = 0; i < 2; i++) {
		pids[i] = start_client();
		kernel_set_pid(kernel, pids[i]);
		unique[i] = kernel_ask_read(kernel, entry.nodeid, opened.fh, 0,
					    SAMPLE_SIZE);
	}
	kernel_set_pid(kernel, getpid());
	ranks_await_requests(&mounts_ranks, SILENT, 2);
	kill(pids[0], SIGTERM);
	kernel_interrupt(kernel, unique[0]);
	assert_int_equal(kernel_answer(kernel, unique[0], NULL, 0, NULL),
			 -EINTR);
	kernel_interrupt(kernel, unique[1]);
	/* Nobody else has to wait for them. */
	cat_check_sample(kernel, W "[0:32]", 1, 0, WAYS_HALF);
	assert_false(kernel_has_answer(kernel, unique[1]));
	kill(pids[1], SIGKILL);
	ranks_hold(&mounts_ranks, SILENT, false);
	assert_int_equal(kernel_answer(kernel, unique[1], data, sizeof(data),
				       &got), 0);
	cat_check_sample(kernel, W, 1, 0, SAMPLE_SIZE);
	for (i = 0; i < 2; i++) {
		kill(pids[i], SIGKILL);
		assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(waits_once, stop),
		cmocka_unit_test_teardown(go_on, stop),
		cmocka_unit_test_teardown(clients_die, stop),
	};

	return cmocka_run_group_tests_name("union_waits", tests, NULL, NULL);
}
