/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a request to its one answer, while the store does not answer: what goes
 * on, what waits, and whose client need not wait since it is being killed.
 *
 * Clients are children that are stopped, so that a signal that is sent to them
 * stays pending, as while a client waits in the kernel.
 */
#include "support/test.h"
#include "support/mounts.h"
#include "support/paths.h"
#include "support/stall.h"
#include "support/variety.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define VIEWS ".ckptfs/views/step/"

static struct kernel *kernel;
static pid_t child;

static void survive(int number)
{
	(void)number;
}

/* It survives SIGUSR1, and no other signal. */
static void start_child(void)
{
	int status;

	child = fork();
	if (child == 0) {
		/* Not even a test that fails leaves it behind. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGUSR1, survive);
		for (;;)
			raise(SIGSTOP);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, WUNTRACED), child);
	assert_true(WIFSTOPPED(status));
}

static int start(void **state)
{
	const struct mounts_options options = { .count = 1 };
	struct test_folder step;

	(void)state;
	start_child();
	mounts_prepare(1);
	step = mounts_folder(0, "step");
	variety_write(&step, 1);
	close(step.fd);
	mounts_write(0, "step", "config.json", "{}");
	mounts_write(0, "plain", "file", "text");
	close(mounts_folder(0, "plain/folder").fd);
	mounts_start(&options);
	kernel = mounts_kernel(0);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	mounts_stop();
	return 0;
}

static int answer(uint64_t unique)
{
	static char out[1 << 20];

	return kernel_answer(kernel, unique, out, sizeof(out), NULL);
}

/* ---- requests that wait -------------------------------------------------- */

/* One of each kind that needs the store, or takes long. */
enum { LOOKUP, LOOKUP_PACKED, LOOKUP_HF, OPEN, OPENDIR, OPENDIR_HF, READ,
       WAITING };

/* What they are about. */
struct subjects {
	uint64_t folder, file, objects, hf, tensor, handle;
};

static void find_subjects(struct subjects *s)
{
	s->folder = paths_find("plain");
	s->file = paths_find("plain/file");
	s->objects = paths_find(VIEWS "objects");
	s->hf = paths_find(VIEWS "hf");
	s->tensor = paths_find(VIEWS "tensors/model.w[0:8]");
	s->handle = paths_open(s->tensor).fh;
}

static uint64_t ask_root(const char *name)
{
	return kernel_ask_lookup(kernel, FUSE_ROOT_ID, name);
}

static uint64_t ask(const struct subjects *s, unsigned kind)
{
	switch (kind) {
	case LOOKUP:
		return kernel_ask_lookup(kernel, s->folder, "folder");
	case LOOKUP_PACKED:
		return kernel_ask_lookup(kernel, s->objects, "packed.pt");
	case LOOKUP_HF:
		return kernel_ask_lookup(kernel, s->hf, "config.json");
	case OPEN:
		return kernel_ask_open(kernel, s->file);
	case OPENDIR:
		return kernel_ask_opendir(kernel, s->folder);
	case OPENDIR_HF:
		return kernel_ask_opendir(kernel, s->hf);
	default:
		return kernel_ask_read(kernel, s->tensor, s->handle, 0, 4096);
	}
}

static void what_needs_the_store_waits(void **state)
{
	uint64_t unique[WAITING];
	struct subjects subjects;
	unsigned i;

	(void)state;
	find_subjects(&subjects);
	stall_pool(0);
	for (i = 0; i < WAITING; i++)
		unique[i] = ask(&subjects, i);
	kernel_settle(kernel);
	for (i = 0; i < WAITING; i++)
		assert_false(kernel_has_answer(kernel, unique[i]));
	stall_pool_end();
	for (i = 0; i < WAITING; i++)
		assert_int_equal(answer(unique[i]), 0);
}

static void what_is_in_memory_does_not(void **state)
{
	uint64_t view = paths_find(VIEWS "tensors"), file, waiting;
	struct kernel_dirent entries[16];
	struct fuse_entry_out entry;
	struct fuse_attr_out attr;
	struct fuse_open_out open;
	char value[64], target[4096];
	size_t count;

	(void)state;
	file = paths_find("step/tensors");
	free(paths_read(".ckptfs/metrics", NULL));
	free(paths_read(VIEWS "objects/args.json", NULL));
	/* The files that it is in are open from then on. */
	free(paths_read(VIEWS "tensors/model.w", NULL));
	stall_pool(0);
	waiting = ask_root("plain");
	assert_int_equal(kernel_readlink(kernel, file, target), 0);
	assert_int_equal(kernel_lookup(kernel, view, "model.w", &entry), 0);
	file = entry.nodeid;
	assert_int_equal(kernel_lookup(kernel, view, "model.w[3]", &entry), 0);
	assert_int_equal(kernel_lookup(kernel, view, "nothing", &entry),
			 -ENOENT);
	assert_int_equal(kernel_getattr(kernel, file, &attr), 0);
	assert_int_equal(kernel_getxattr(kernel, file, "user.ckptfs.dtype",
					 value, sizeof(value), &count), 0);
	assert_int_equal(kernel_open(kernel, file, &open), 0);
	kernel_release(kernel, file, open.fh);
	assert_int_equal(kernel_opendir(kernel, view, &open), 0);
	assert_int_equal(kernel_readdir(kernel, view, open.fh, true, 4096,
					entries, COUNT_OF(entries), &count),
			 0);
	assert_int_equal(count, 2 + VARIETY_TENSORS);
	kernel_releasedir(kernel, view, open.fh);
	/* Who asks what is wrong is told. */
	free(paths_read(".ckptfs/status.json", NULL));
	assert_false(kernel_has_answer(kernel, waiting));
	stall_pool_end();
	assert_int_equal(answer(waiting), 0);
}

/* More than the pool has threads for. */
static void many_that_wait_are_all_answered(void **state)
{
	enum { MANY = 200 };
	uint64_t unique[MANY];
	unsigned i;

	(void)state;
	stall_pool(0);
	for (i = 0; i < MANY; i++)
		unique[i] = ask_root(i % 2 ? "plain" : "none");
	kernel_settle(kernel);
	stall_pool_end();
	for (i = 0; i < MANY; i++)
		assert_int_equal(answer(unique[i]), i % 2 ? 0 : -ENOENT);
}

/* ---- clients that get signals -------------------------------------------- */

/* Its read would fail: it is to have what it has asked for. */
static void a_client_that_lives_waits(void **state)
{
	uint64_t unique[WAITING];
	struct subjects subjects;
	unsigned i;

	(void)state;
	find_subjects(&subjects);
	kernel_set_pid(kernel, child);
	kill(child, SIGUSR1);
	stall_pool(0);
	for (i = 0; i < WAITING; i++) {
		unique[i] = ask(&subjects, i);
		kernel_interrupt(kernel, unique[i]);
	}
	kernel_settle(kernel);
	for (i = 0; i < WAITING; i++)
		assert_false(kernel_has_answer(kernel, unique[i]));
	stall_pool_end();
	for (i = 0; i < WAITING; i++)
		assert_int_equal(answer(unique[i]), 0);
}

static void a_client_that_dies_does_not_wait(void **state)
{
	uint64_t unique[WAITING], other;
	struct subjects subjects;
	unsigned i;

	(void)state;
	find_subjects(&subjects);
	stall_pool(0);
	other = ask_root("step");
	kernel_set_pid(kernel, child);
	for (i = 0; i < WAITING; i++)
		unique[i] = ask(&subjects, i);
	kernel_settle(kernel);
	kill(child, SIGTERM);
	for (i = 0; i < WAITING; i++) {
		kernel_interrupt(kernel, unique[i]);
		assert_int_equal(answer(unique[i]), -EINTR);
	}
	/* Others are not dying. */
	assert_false(kernel_has_answer(kernel, other));
	/* It is gone, and with it what it had open and knew. */
	kernel_release(kernel, subjects.tensor, subjects.handle);
	kernel_forget(kernel, subjects.tensor, 1);
	kernel_forget(kernel, subjects.file, 1);
	kernel_forget(kernel, subjects.folder, 2);
	kernel_settle(kernel);
	stall_pool_end();
	assert_int_equal(answer(other), 0);
}

/* The signal may be known before the request is. */
static void a_signal_may_come_first(void **state)
{
	uint64_t unique;

	(void)state;
	stall_pool(0);
	kernel_set_pid(kernel, child);
	unique = kernel_next(kernel);
	kernel_interrupt(kernel, unique);
	assert_int_equal(ask_root("plain"), unique);
	kernel_settle(kernel);
	assert_false(kernel_has_answer(kernel, unique));
	stall_pool_end();
	assert_int_equal(answer(unique), 0);
	kill(child, SIGTERM);
	stall_pool(0);
	unique = kernel_next(kernel);
	kernel_interrupt(kernel, unique);
	assert_int_equal(ask_root("plain"), unique);
	assert_int_equal(answer(unique), -EINTR);
	/* What needs not wait has its answer. */
	unique = kernel_next(kernel);
	kernel_interrupt(kernel, unique);
	assert_int_equal(ask_root(".ckptfs"), unique);
	assert_int_equal(answer(unique), 0);
}

/* The kernel tells of the first signal only: there is an answer when there
 * is one. */
static void a_survivor_may_be_killed_later(void **state)
{
	uint64_t first, second;

	(void)state;
	stall_pool(0);
	kernel_set_pid(kernel, child);
	first = ask_root("plain");
	second = ask_root("step");
	kill(child, SIGUSR1);
	kernel_interrupt(kernel, first);
	kernel_interrupt(kernel, second);
	kernel_settle(kernel);
	assert_false(kernel_has_answer(kernel, first));
	kill(child, SIGTERM);
	kernel_settle(kernel);
	assert_false(kernel_has_answer(kernel, first));
	stall_pool_end();
	assert_int_equal(answer(first), 0);
	assert_int_equal(answer(second), 0);
}

/* It is answered while somebody works for it: what that finds is undone, and
 * the folder it works in stays as long. */
static void a_client_may_die_while_it_is_worked_for(void **state)
{
	uint64_t folder = paths_find("plain"), found, unique, again;

	(void)state;
	found = paths_find("plain/folder");
	kernel_set_pid(kernel, child);
	stall_clock();
	unique = kernel_ask_lookup(kernel, folder, "folder");
	stall_clock_await();
	kill(child, SIGTERM);
	kernel_interrupt(kernel, unique);
	assert_int_equal(answer(unique), -EINTR);
	kernel_forget(kernel, folder, 2);
	kernel_settle(kernel);
	stall_clock_end();
	stall_settle(0);
	assert_true(paths_is_known(found));
	kernel_forget(kernel, found, 1);
	paths_check_gone(found);
	paths_check_gone(folder);
	kernel_set_pid(kernel, getpid());
	again = paths_find("plain/folder");
	assert_int_not_equal(again, found);
}

/* The answer and the signal meet: there is one answer, and the client knows
 * what it says. */
static void answers_and_signals_may_meet(void **state)
{
	enum { ROUNDS = 300 };
	uint64_t node = paths_find("plain"), unique;
	unsigned i, known = 1;
	int error;

	(void)state;
	kill(child, SIGTERM);
	kernel_set_pid(kernel, child);
	for (i = 0; i < ROUNDS; i++) {
		unique = ask_root("plain");
		kernel_interrupt(kernel, unique);
		error = answer(unique);
		assert_true(error == 0 || error == -EINTR);
		known += error == 0;
	}
	stall_settle(0);
	kernel_set_pid(kernel, getpid());
	if (known > 1)
		kernel_forget(kernel, node, known - 1);
	assert_true(paths_is_known(node));
	kernel_forget(kernel, node, 1);
	paths_check_gone(node);
}

/* ---- the end ------------------------------------------------------------- */

static void what_the_pool_does_not_take_fails(void **state)
{
	unsigned descriptors, i;
	struct subjects subjects;

	(void)state;
	find_subjects(&subjects);
	descriptors = folder_count_descriptors();
	mounts_stop_pool(0);
	for (i = 0; i < WAITING; i++)
		assert_int_equal(answer(ask(&subjects, i)), -ESHUTDOWN);
	assert_int_equal(folder_count_descriptors(), descriptors);
	/* The rest goes on. */
	assert_true(paths_is_known(subjects.tensor));
	free(paths_read(".ckptfs/status.json", NULL));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_needs_the_store_waits),
		TEST(what_is_in_memory_does_not),
		TEST(many_that_wait_are_all_answered),
		TEST(a_client_that_lives_waits),
		TEST(a_client_that_dies_does_not_wait),
		TEST(a_signal_may_come_first),
		TEST(a_survivor_may_be_killed_later),
		TEST(a_client_may_die_while_it_is_worked_for),
		TEST(answers_and_signals_may_meet),
		TEST(what_the_pool_does_not_take_fails),
	};

	return cmocka_run_group_tests_name("request", tests, NULL, NULL);
}
