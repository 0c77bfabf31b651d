/* SPDX-License-Identifier: Apache-2.0 */
/* Bells on loopback. A datagram there has arrived when send returns. */
#include "support/test.h"

#include "comm/doorbell.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { COUNT = 3, NONCE = 4711 };

static struct doorbell *bells[COUNT];
static struct doorbell_address addresses[COUNT];

static int setup(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT; i++)
		assert_int_equal(doorbell_create(&bells[i], &addresses[i]), 0);
	for (i = 0; i < COUNT; i++)
		assert_int_equal(doorbell_connect(bells[i], NONCE, i, addresses,
						  COUNT),
				 0);
	return 0;
}

static int teardown(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT; i++)
		doorbell_destroy(bells[i]);
	return 0;
}

/* The next at @rank, which is awaited. */
static struct doorbell_event next(unsigned rank)
{
	struct pollfd fd = { .fd = doorbell_fd(bells[rank]), .events = POLLIN };
	struct doorbell_event event = { .rank = COUNT };

	assert_int_equal(poll(&fd, 1, 5000), 1);
	assert_true(doorbell_next(bells[rank], &event));
	return event;
}

static void check_next(unsigned rank, enum doorbell_kind kind, unsigned from)
{
	struct doorbell_event event = next(rank);

	assert_int_equal(event.kind, kind);
	assert_int_equal(event.rank, from);
}

static void drain(unsigned rank)
{
	struct doorbell_event event;

	while (doorbell_next(bells[rank], &event))
		;
}

/* Both have heard from each other, at one address. */
static void acquaint(unsigned a, unsigned b)
{
	doorbell_send(bells[a], b, DOORBELL_PING);
	check_next(b, DOORBELL_PING, a);
	check_next(a, DOORBELL_PONG, b);
	/* It came by each of the addresses. */
	drain(b);
	drain(a);
}

static void rings(void **state)
{
	struct doorbell_event event;

	(void)state;
	assert_false(doorbell_next(bells[1], &event));
	assert_false(doorbell_is_known(bells[1], 0));
	doorbell_send(bells[0], 1, DOORBELL_RING);
	check_next(1, DOORBELL_RING, 0);
	assert_true(doorbell_is_known(bells[1], 0));
	assert_true(doorbell_ip(bells[1], 0) != 0);
	assert_false(doorbell_is_known(bells[1], 2));
	assert_false(doorbell_is_known(bells[0], 1));
	drain(1);
	/* Where it was heard from, and nowhere else. */
	acquaint(0, 1);
	doorbell_send(bells[0], 1, DOORBELL_RING);
	check_next(1, DOORBELL_RING, 0);
	assert_false(doorbell_next(bells[1], &event));
}

static void a_ping_is_answered(void **state)
{
	struct doorbell_event event;

	(void)state;
	acquaint(0, 1);
	doorbell_send(bells[0], 1, DOORBELL_PING);
	assert_false(doorbell_next(bells[0], &event));
	check_next(1, DOORBELL_PING, 0);
	check_next(0, DOORBELL_PONG, 1);
	assert_false(doorbell_next(bells[1], &event));
	assert_false(doorbell_next(bells[0], &event));
}

static void a_goodbye(void **state)
{
	(void)state;
	doorbell_send(bells[2], 0, DOORBELL_BYE);
	check_next(0, DOORBELL_BYE, 2);
}

static void who_is_gone_is_refused(void **state)
{
	(void)state;
	acquaint(0, 1);
	doorbell_destroy(bells[1]);
	bells[1] = NULL;
	doorbell_send(bells[0], 1, DOORBELL_RING);
	check_next(0, DOORBELL_REFUSED, 1);
	/* What is sent to others goes out none the less. */
	doorbell_send(bells[0], 1, DOORBELL_RING);
	doorbell_send(bells[0], 2, DOORBELL_RING);
	check_next(2, DOORBELL_RING, 0);
	check_next(0, DOORBELL_REFUSED, 1);
}

/* That port may be one of another host's with the same address. */
static void who_was_never_heard_from_is_not_refused(void **state)
{
	struct doorbell_event event;

	(void)state;
	acquaint(0, 2);
	doorbell_destroy(bells[1]);
	bells[1] = NULL;
	doorbell_send(bells[0], 1, DOORBELL_RING);
	assert_false(doorbell_next(bells[0], &event));
	/* Known by another bell of this rank. */
	doorbell_know(bells[0], 1, htonl(INADDR_LOOPBACK));
	doorbell_send(bells[0], 1, DOORBELL_RING);
	check_next(0, DOORBELL_REFUSED, 1);
}

/* ---- strangers ----------------------------------------------------------- */

struct packet {
	uint64_t nonce;
	uint32_t rank, kind;
};

static void send_from(int fd, const void *data, size_t size)
{
	const struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = addresses[0].port,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};

	assert_int_equal(sendto(fd, data, size, 0, (const void *)&to,
				sizeof(to)), size);
}

static void send_bytes(const void *data, size_t size)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	send_from(fd, data, size);
	close(fd);
}

/* Even from where rank 1 is. */
static void check_ignored(struct packet packet, size_t size)
{
	unsigned char bytes[64] = { 0 };
	struct doorbell_event event;

	memcpy(bytes, &packet, sizeof(packet));
	send_from(doorbell_fd(bells[1]), bytes, size);
	assert_false(doorbell_next(bells[0], &event));
	assert_false(doorbell_is_known(bells[0], 1));
}

static void strangers_are_ignored(void **state)
{
	const struct packet good = { NONCE, 1, DOORBELL_RING };
	struct packet packet;
	struct doorbell_event event;
	size_t size;

	(void)state;
	for (size = 0; size < 64; size++)
		if (size != sizeof(good))
			check_ignored(good, size);
	packet = good;
	packet.nonce++;
	check_ignored(packet, sizeof(packet));
	packet = good;
	packet.rank = 0;
	check_ignored(packet, sizeof(packet));
	packet.rank = COUNT;
	check_ignored(packet, sizeof(packet));
	packet.rank = UINT32_MAX;
	check_ignored(packet, sizeof(packet));
	packet = good;
	packet.kind = 0;
	check_ignored(packet, sizeof(packet));
	packet.kind = DOORBELL_REFUSED;
	check_ignored(packet, sizeof(packet));
	packet.kind = UINT32_MAX;
	check_ignored(packet, sizeof(packet));
	/* Of the job, but of none of its bells. */
	send_bytes(&good, sizeof(good));
	assert_false(doorbell_next(bells[0], &event));
	assert_false(doorbell_is_known(bells[0], 1));
	send_from(doorbell_fd(bells[1]), &good, sizeof(good));
	check_next(0, DOORBELL_RING, 1);
}

/* The watcher of a rank asks from another port: what is answered tells. */
static void a_watcher_is_answered(void **state)
{
	const struct packet ping = { NONCE, 1, DOORBELL_PING };
	struct doorbell_event event;

	(void)state;
	send_bytes(&ping, sizeof(ping));
	assert_false(doorbell_next(bells[0], &event));
	check_next(1, DOORBELL_PONG, 0);
	doorbell_destroy(NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(rings),
		TEST(a_ping_is_answered),
		TEST(a_goodbye),
		TEST(who_is_gone_is_refused),
		TEST(who_was_never_heard_from_is_not_refused),
		TEST(strangers_are_ignored),
		TEST(a_watcher_is_answered),
	};

	return cmocka_run_group_tests_name("bell", tests, NULL, NULL);
}
