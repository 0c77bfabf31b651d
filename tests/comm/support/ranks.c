/* SPDX-License-Identifier: Apache-2.0 */
#include "support/ranks.h"

#include "support/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000 };

uint64_t ranks_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- what engines tell --------------------------------------------------- */

static void serve(void *context, struct engine_request *request)
{
	struct rank *rank = context;

	request->next = NULL;
	pthread_mutex_lock(&rank->ranks->lock);
	*rank->queue_end = request;
	rank->queue_end = &request->next;
	pthread_cond_broadcast(&rank->ranks->change);
	pthread_mutex_unlock(&rank->ranks->lock);
}

static void changed(void *context, unsigned other, enum peer_state state)
{
	struct rank *rank = context;
	const struct ranks_options *options = &rank->ranks->options;

	if (options->changed)
		options->changed(options->context, rank, other, state);
	pthread_mutex_lock(&rank->ranks->lock);
	rank->changes++;
	pthread_cond_broadcast(&rank->ranks->change);
	pthread_mutex_unlock(&rank->ranks->lock);
}

static void known(void *context, unsigned other, uint32_t ip)
{
	struct rank *rank = context;

	(void)other;
	(void)ip;
	pthread_mutex_lock(&rank->ranks->lock);
	rank->known++;
	pthread_cond_broadcast(&rank->ranks->change);
	pthread_mutex_unlock(&rank->ranks->lock);
}

/* ---- threads ------------------------------------------------------------- */

static void *run_engine(void *argument)
{
	struct rank *rank = argument;

	engine_run(rank->engine);
	return NULL;
}

static struct engine_request *take_locked(struct rank *rank)
{
	struct engine_request *request = rank->queue;

	if (!request)
		return NULL;
	rank->queue = request->next;
	if (!rank->queue)
		rank->queue_end = &rank->queue;
	return request;
}

/* NULL: it is to end. */
static struct engine_request *next_request(struct rank *rank)
{
	struct ranks *ranks = rank->ranks;
	struct engine_request *request = NULL;

	pthread_mutex_lock(&ranks->lock);
	while (!rank->ending && (rank->held || !rank->queue))
		pthread_cond_wait(&ranks->change, &ranks->lock);
	if (!rank->ending)
		request = take_locked(rank);
	pthread_mutex_unlock(&ranks->lock);
	return request;
}

static void *run_worker(void *argument)
{
	struct rank *rank = argument;
	const struct ranks_options *options = &rank->ranks->options;
	struct engine_request *request;

	for (;;) {
		request = next_request(rank);
		if (!request)
			return NULL;
		options->work(options->context, rank, request);
	}
}

struct engine_request *ranks_take(struct ranks *ranks, unsigned rank)
{
	struct engine_request *request;

	pthread_mutex_lock(&ranks->lock);
	while (!ranks->rank[rank].queue)
		pthread_cond_wait(&ranks->change, &ranks->lock);
	request = take_locked(&ranks->rank[rank]);
	pthread_mutex_unlock(&ranks->lock);
	return request;
}

/* ---- life ---------------------------------------------------------------- */

static void start_rank(struct rank *rank,
		       const struct doorbell_address *addresses)
{
	const struct ranks_options *options = &rank->ranks->options;
	struct engine_options engine = {
		.transport = fake_net_transport(rank->ranks->net, rank->rank),
		.bell = rank->bell, .deadline_ms = options->deadline_ms,
		.serve = serve, .changed = changed, .known = known,
		.context = rank,
	};
	unsigned i;

	assert_int_equal(doorbell_connect(rank->bell, 4711, rank->rank,
					  addresses, options->count),
			 0);
	assert_int_equal(engine_create(&engine, &rank->engine), 0);
	assert_int_equal(pthread_create(&rank->thread, NULL, run_engine, rank),
			 0);
	rank->running = true;
	for (i = 0; i < options->workers; i++)
		assert_int_equal(pthread_create(&rank->workers[i], NULL,
						run_worker, rank), 0);
}

void ranks_start(struct ranks *ranks, const struct ranks_options *options)
{
	struct doorbell_address addresses[RANKS_MAX];
	pthread_condattr_t monotonic;
	unsigned i;

	memset(ranks, 0, sizeof(*ranks));
	ranks->options = *options;
	ranks->net = fake_net_create(options->count, options->seed);
	pthread_mutex_init(&ranks->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&ranks->change, &monotonic);
	pthread_condattr_destroy(&monotonic);
	for (i = 0; i < options->count; i++) {
		struct rank *rank = &ranks->rank[i];

		rank->ranks = ranks;
		rank->rank = i;
		rank->queue_end = &rank->queue;
		assert_int_equal(doorbell_create(&rank->bell, &addresses[i]),
				 0);
	}
	for (i = 0; i < options->count; i++)
		start_rank(&ranks->rank[i], addresses);
	pthread_mutex_lock(&ranks->lock);
	for (i = 0; i < options->count; i++)
		while (ranks->rank[i].known < options->count - 1)
			pthread_cond_wait(&ranks->change, &ranks->lock);
	pthread_mutex_unlock(&ranks->lock);
}

void ranks_stop(struct ranks *ranks, unsigned rank)
{
	uint64_t began = ranks_now_ms();

	if (!ranks->rank[rank].running)
		return;
	fake_net_resume(ranks->net, rank);
	engine_stop(ranks->rank[rank].engine);
	assert_int_equal(pthread_join(ranks->rank[rank].thread, NULL), 0);
	ranks->rank[rank].running = false;
	/* It says one second; others use this machine, too. */
	assert_true(ranks_now_ms() - began < 2000);
}

static void finish_rank(struct ranks *ranks, struct rank *rank)
{
	struct engine_request *request;
	unsigned i;

	pthread_mutex_lock(&ranks->lock);
	rank->ending = true;
	pthread_cond_broadcast(&ranks->change);
	pthread_mutex_unlock(&ranks->lock);
	for (i = 0; i < ranks->options.workers; i++)
		assert_int_equal(pthread_join(rank->workers[i], NULL), 0);
	while (rank->queue) {
		request = take_locked(rank);
		engine_drop(request);
	}
	engine_destroy(rank->engine);
}

void ranks_finish(struct ranks *ranks)
{
	unsigned i;

	for (i = 0; i < ranks->options.count; i++)
		ranks_stop(ranks, i);
	for (i = 0; i < ranks->options.count; i++)
		finish_rank(ranks, &ranks->rank[i]);
	fake_net_destroy(ranks->net);
	pthread_mutex_destroy(&ranks->lock);
	pthread_cond_destroy(&ranks->change);
}

/* ---- faults -------------------------------------------------------------- */

void ranks_pause(struct ranks *ranks, unsigned rank)
{
	fake_net_pause(ranks->net, rank);
	/* Wake it, that it may wait. */
	engine_probe(ranks->rank[rank].engine);
	fake_net_await_pause(ranks->net, rank);
}

void ranks_kill(struct ranks *ranks, unsigned rank)
{
	int other = open("/dev/null", O_RDWR | O_CLOEXEC);

	ranks_pause(ranks, rank);
	assert_true(other >= 0);
	/* Its thread does not use the descriptor just now. */
	assert_true(dup2(other, doorbell_fd(ranks->rank[rank].bell)) >= 0);
	close(other);
}

void ranks_hold(struct ranks *ranks, unsigned rank, bool held)
{
	pthread_mutex_lock(&ranks->lock);
	ranks->rank[rank].held = held;
	pthread_cond_broadcast(&ranks->change);
	pthread_mutex_unlock(&ranks->lock);
}

/* ---- waiting ------------------------------------------------------------- */

static struct timespec patience(void)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += PATIENCE_MS / 1000;
	return until;
}

static unsigned count_requests_locked(const struct rank *rank)
{
	const struct engine_request *request;
	unsigned count = 0;

	for (request = rank->queue; request; request = request->next)
		count++;
	return count;
}

void ranks_await_requests(struct ranks *ranks, unsigned rank, unsigned count)
{
	const struct timespec until = patience();
	unsigned found;
	int error = 0;

	pthread_mutex_lock(&ranks->lock);
	while (count_requests_locked(&ranks->rank[rank]) < count && !error)
		error = pthread_cond_timedwait(&ranks->change, &ranks->lock,
					       &until);
	found = count_requests_locked(&ranks->rank[rank]);
	pthread_mutex_unlock(&ranks->lock);
	assert_int_equal(found, count);
}

void ranks_await_state(struct ranks *ranks, unsigned rank, unsigned other,
		       enum peer_state state)
{
	const struct engine *engine = ranks->rank[rank].engine;
	const struct timespec until = patience();
	int error = 0;

	pthread_mutex_lock(&ranks->lock);
	while (engine_state(engine, other) != state && !error)
		error = pthread_cond_timedwait(&ranks->change, &ranks->lock,
					       &until);
	pthread_mutex_unlock(&ranks->lock);
	assert_int_equal(engine_state(engine, other), state);
}

/* Nobody is told of slots. */
static void nap(uint64_t began_ms)
{
	const struct timespec short_time = { 0, 1000000 };

	assert_true(ranks_now_ms() - began_ms < PATIENCE_MS);
	nanosleep(&short_time, NULL);
}

void ranks_await_quarantined(struct ranks *ranks, unsigned rank,
			     unsigned count)
{
	uint64_t began = ranks_now_ms();
	struct engine_counters counters;

	for (;;) {
		engine_count(ranks->rank[rank].engine, &counters);
		if (counters.quarantined == count)
			return;
		nap(began);
	}
}

void ranks_await_free(struct ranks *ranks, unsigned rank)
{
	uint64_t began = ranks_now_ms();
	struct engine_counters counters;

	for (;;) {
		engine_count(ranks->rank[rank].engine, &counters);
		if (counters.slots == 0)
			return;
		nap(began);
	}
}

unsigned ranks_count_changes(struct ranks *ranks, unsigned rank)
{
	unsigned changes;

	pthread_mutex_lock(&ranks->lock);
	changes = ranks->rank[rank].changes;
	pthread_mutex_unlock(&ranks->lock);
	return changes;
}
