/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Children that block, handle or ignore signals, and are stopped when one is
 * sent to them: it stays pending, as while a client waits in the kernel.
 */
#include "support/test.h"

#include "fs/fuse/client.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum disposition { DEFAULT, BLOCKED, CAUGHT, IGNORED };

static void catch(int number)
{
	(void)number;
}

static pid_t start(int number, enum disposition disposition)
{
	pid_t pid = fork();
	sigset_t set;
	int status;

	if (pid == 0) {
		sigemptyset(&set);
		sigaddset(&set, number);
		if (disposition == BLOCKED)
			sigprocmask(SIG_BLOCK, &set, NULL);
		if (disposition == CAUGHT)
			signal(number, catch);
		if (disposition == IGNORED)
			signal(number, SIG_IGN);
		for (;;)
			raise(SIGSTOP);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void check(int number, enum disposition disposition, bool dying)
{
	pid_t pid = start(number, disposition);

	assert_false(client_is_dying(pid));
	kill(pid, number);
	assert_int_equal(client_is_dying(pid), dying);
	end(pid);
}

static void test_signals(void **state)
{
	static const int fatal[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGABRT,
				     SIGALRM, SIGPROF, SIGUSR1 };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(fatal); i++) {
		check(fatal[i], DEFAULT, true);
		check(fatal[i], BLOCKED, false);
		check(fatal[i], CAUGHT, false);
		check(fatal[i], IGNORED, false);
	}
	check(SIGRTMIN, DEFAULT, true);
	check(SIGRTMAX, DEFAULT, true);
	check(SIGRTMAX, CAUGHT, false);
}

static void test_harmless(void **state)
{
	static const int harmless[] = { SIGCHLD, SIGURG, SIGWINCH, SIGTSTP,
					SIGTTIN, SIGTTOU };
	size_t i;

	(void)state;
	for (i = 0; i < COUNT_OF(harmless); i++)
		check(harmless[i], DEFAULT, false);
}

static void test_unknown(void **state)
{
	pid_t pid = start(SIGTERM, DEFAULT);

	(void)state;
	assert_true(client_is_dying(0));
	end(pid);
	assert_true(client_is_dying(pid));
	assert_false(client_is_dying(getpid()));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_harmless),
		cmocka_unit_test(test_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
