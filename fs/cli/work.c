/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/tool.h"

#include "fs/cli/internal.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- signals ------------------------------------------------------------- */

static atomic_int caught;

static void catch(int signal_number)
{
	atomic_store(&caught, signal_number);
}

void tool_catch_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = { .sa_handler = catch,
				    .sa_flags = SA_RESTART };
	struct sigaction before;
	unsigned i;

	sigemptyset(&action.sa_mask);
	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		/* nohup(1), and shells for what is in the background. */
		if (sigaction(signals[i], NULL, &before) == 0 &&
		    before.sa_handler != SIG_IGN)
			sigaction(signals[i], &action, NULL);
	}
}

bool tool_interrupted(void)
{
	return atomic_load_explicit(&caught, memory_order_relaxed) != 0;
}

void work_end_by_signal(void)
{
	signal(atomic_load(&caught), SIG_DFL);
	raise(atomic_load(&caught));
}

/* ---- threads ------------------------------------------------------------- */

struct job_threads {
	const struct tool_job *job;
	atomic_uint threads;		/* that have a number */
	_Atomic uint64_t next;		/* unit to start */
	atomic_int error;		/* the first */
};

static unsigned count_threads(void)
{
	cpu_set_t set;
	long count;

	/* Over 1024 cores there are more than we want anyway. */
	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		count = CPU_COUNT(&set);
	else
		count = sysconf(_SC_NPROCESSORS_ONLN);
	if (count < 1)
		count = 1;
	return count > TOOL_THREADS_MAX ? TOOL_THREADS_MAX : (unsigned)count;
}

static void *run(void *context)
{
	struct job_threads *work = context;
	unsigned thread = atomic_fetch_add(&work->threads, 1);
	uint64_t index;
	int error = 0, none = 0;

	while (!error && !atomic_load(&work->error)) {
		index = atomic_fetch_add(&work->next, 1);
		if (index >= work->job->count)
			break;
		error = tool_interrupted() ? -EINTR :
			work->job->work(work->job->context, thread, index);
	}
	if (error)
		atomic_compare_exchange_strong(&work->error, &none, error);
	return NULL;
}

int tool_work(const struct tool_job *job)
{
	struct job_threads work = { .job = job };
	pthread_t threads[TOOL_THREADS_MAX];
	unsigned count = count_threads(), started = 0;

	if (count > job->count)
		count = (unsigned)job->count;
	/* With fewer threads than wanted it takes longer, that is all. */
	while (started + 1 < count &&
	       pthread_create(&threads[started], NULL, run, &work) == 0)
		started++;
	run(&work);
	while (started > 0)
		pthread_join(threads[--started], NULL);
	if (tool_interrupted())
		return -EINTR;
	return atomic_load(&work.error);
}
