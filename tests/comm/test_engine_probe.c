/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When an engine pings for a probe: one without its thread, whose time is the
 * test's, and the bells of all ranks.
 */
#include "support/test.h"
#include "support/fake_net.h"

#include "comm/engine_parts.h"

enum { RANKS = 3, NONCE = 4711 };

static struct fake_net *net;
static struct engine *engine;		/* of rank 0, and its bell */
static struct doorbell *bells[RANKS];

static int setup(void **state)
{
	struct doorbell_address addresses[RANKS];
	unsigned i;

	(void)state;
	net = fake_net_create(RANKS, 1);
	for (i = 0; i < RANKS; i++)
		assert_int_equal(doorbell_create(&bells[i], &addresses[i]), 0);
	for (i = 0; i < RANKS; i++)
		assert_int_equal(doorbell_connect(bells[i], NONCE, i,
						  addresses, RANKS), 0);
	assert_int_equal(engine_create(&(struct engine_options){
		.transport = fake_net_transport(net, 0), .bell = bells[0],
		.deadline_ms = 10000,
	}, &engine), 0);
	engine->now_ns = clock_ns();
	return 0;
}

static int teardown(void **state)
{
	unsigned i;

	(void)state;
	engine_destroy(engine);
	for (i = 1; i < RANKS; i++)
		doorbell_destroy(bells[i]);
	for (i = 0; i < RANKS; i++) {
		struct transport *transport = fake_net_transport(net, i);

		transport->destroy(transport);
	}
	fake_net_destroy(net);
	return 0;
}

/* What has rung at each of the others since. */
static void check_pinged(bool pinged)
{
	unsigned i;

	for (i = 1; i < RANKS; i++) {
		struct doorbell_event event;
		bool found = false;

		while (doorbell_next(bells[i], &event)) {
			assert_int_equal(event.kind, DOORBELL_PING);
			assert_int_equal(event.rank, 0);
			found = true;
		}
		assert_int_equal(found, pinged);
	}
}

/* They have answered. */
static void hear_all(void)
{
	struct doorbell_event event;

	while (doorbell_next(bells[0], &event))
		engine_hear_bell(engine, event.rank);
}

static void check_times(unsigned later_ms)
{
	engine->now_ns += later_ms * UINT64_C(1000000);
	engine_check_times(engine);
}

/* Also in a millisecond whose times were looked at: a sleep may follow. */
static void at_once(void **state)
{
	(void)state;
	check_times(0);
	/* Greetings. */
	check_pinged(true);
	hear_all();
	engine_begin_probe(engine);
	check_times(0);
	check_pinged(true);
}

/* One that finds them answering says nothing of the moment after it. */
static void at_once_again(void **state)
{
	(void)state;
	check_times(0);
	check_pinged(true);
	hear_all();
	check_times(10);
	engine_begin_probe(engine);
	check_times(0);
	check_pinged(true);
	hear_all();
	check_times(1);
	check_pinged(false);
	engine_begin_probe(engine);
	check_times(0);
	check_pinged(true);
}

/* While one is under way there is no second one, but pings now and then. */
static void until_answered(void **state)
{
	(void)state;
	check_times(0);
	check_pinged(true);
	hear_all();
	engine_begin_probe(engine);
	check_pinged(true);
	engine_begin_probe(engine);
	check_times(PING_MS - 1);
	check_pinged(false);
	check_times(1);
	check_pinged(true);
	hear_all();
	check_times(PING_MS);
	check_pinged(false);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(at_once), TEST(at_once_again), TEST(until_answered),
	};

	return cmocka_run_group_tests_name("engine_probe", tests, NULL, NULL);
}
