/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/doorbell.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/errqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct packet {
	uint64_t nonce;
	uint32_t rank;
	uint32_t kind;
};

struct place {
	struct doorbell_address address;
	uint32_t ip;		/* where it was heard from; 0: never */
};

struct doorbell {
	int fd;
	uint64_t nonce;
	unsigned rank, count;
	struct place *places;	/* owned; of each rank */
};

/* ---- addresses ----------------------------------------------------------- */

/* Loopback last: it is right for ranks on one host, and where there is no
 * network. */
static void list_addresses(struct doorbell_address *address)
{
	struct ifaddrs *list, *entry;
	unsigned count = 0;

	if (getifaddrs(&list) == 0) {
		for (entry = list; entry; entry = entry->ifa_next) {
			const struct sockaddr_in *in =
				(const void *)entry->ifa_addr;

			if (!in || in->sin_family != AF_INET ||
			    entry->ifa_flags & IFF_LOOPBACK ||
			    !(entry->ifa_flags & IFF_UP) ||
			    count == DOORBELL_ADDRESS_MAX - 1)
				continue;
			address->ip[count++] = in->sin_addr.s_addr;
		}
		freeifaddrs(list);
	}
	address->ip[count] = htonl(INADDR_LOOPBACK);
}

int doorbell_create(struct doorbell **ret_doorbell,
		    struct doorbell_address *ret_address)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	socklen_t size = sizeof(any);
	const int on = 1;
	struct doorbell *bell = calloc(1, sizeof(*bell));
	int error;

	if (!bell)
		return -ENOMEM;
	bell->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			  0);
	if (bell->fd < 0 ||
	    bind(bell->fd, (struct sockaddr *)&any, sizeof(any)) < 0 ||
	    getsockname(bell->fd, (struct sockaddr *)&any, &size) < 0 ||
	    setsockopt(bell->fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)) < 0) {
		error = -errno;
		doorbell_destroy(bell);
		return error;
	}
	*ret_address = (struct doorbell_address){ .port = any.sin_port };
	list_addresses(ret_address);
	*ret_doorbell = bell;
	return 0;
}

void doorbell_destroy(struct doorbell *bell)
{
	if (!bell)
		return;
	if (bell->fd >= 0)
		close(bell->fd);
	free(bell->places);
	free(bell);
}

int doorbell_connect(struct doorbell *bell, uint64_t nonce, unsigned rank,
		     const struct doorbell_address *addresses, unsigned count)
{
	unsigned i;

	bell->places = calloc(count, sizeof(*bell->places));
	if (!bell->places)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		bell->places[i].address = addresses[i];
	bell->nonce = nonce;
	bell->rank = rank;
	bell->count = count;
	return 0;
}

void doorbell_know(struct doorbell *bell, unsigned rank, uint32_t ip)
{
	bell->places[rank].ip = ip;
}

int doorbell_fd(const struct doorbell *bell)
{
	return bell->fd;
}

/* ---- sending ------------------------------------------------------------- */

static void send_to(const struct doorbell *bell, uint32_t ip, uint16_t port,
		    const struct packet *packet)
{
	const struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = port, .sin_addr = { ip },
	};
	int tries = 3;

	/* An error may be that of an earlier datagram, to anybody: it also
	 * waits in the error queue, and this one was not sent. */
	while (sendto(bell->fd, packet, sizeof(*packet), MSG_DONTWAIT,
		      (const struct sockaddr *)&to, sizeof(to)) < 0 &&
	       tries-- > 0)
		;
}

void doorbell_send(struct doorbell *bell, unsigned rank,
		   enum doorbell_kind kind)
{
	const struct place *place = &bell->places[rank];
	const struct packet packet = { bell->nonce, bell->rank, kind };
	unsigned i;

	if (place->ip) {
		send_to(bell, place->ip, place->address.port, &packet);
		return;
	}
	for (i = 0; i < DOORBELL_ADDRESS_MAX && place->address.ip[i]; i++)
		send_to(bell, place->address.ip[i], place->address.port,
			&packet);
}

/* ---- receiving ----------------------------------------------------------- */

/* Whose bell is at this address? Only where one was heard from does a refusal
 * mean that it is gone: an address may be another host's as well. */
static bool find_place(const struct doorbell *bell,
		       const struct sockaddr_in *in, unsigned *ret_rank)
{
	unsigned i;

	for (i = 0; i < bell->count; i++)
		if (i != bell->rank &&
		    bell->places[i].ip == in->sin_addr.s_addr &&
		    bell->places[i].address.port == in->sin_port) {
			*ret_rank = i;
			return true;
		}
	return false;
}

static bool next_refusal(struct doorbell *bell, struct doorbell_event *event)
{
	struct sockaddr_in to;
	struct packet packet;
	char control[256];
	struct iovec iov = { &packet, sizeof(packet) };

	for (;;) {
		struct msghdr message = {
			.msg_name = &to, .msg_namelen = sizeof(to),
			.msg_iov = &iov, .msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};
		const struct sock_extended_err *error;
		const struct cmsghdr *head;

		if (recvmsg(bell->fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) <
		    0)
			return false;
		head = CMSG_FIRSTHDR(&message);
		if (!head || head->cmsg_type != IP_RECVERR)
			continue;
		error = (const void *)CMSG_DATA(head);
		if (error->ee_errno != ECONNREFUSED ||
		    error->ee_origin != SO_EE_ORIGIN_ICMP ||
		    !find_place(bell, &to, &event->rank))
			continue;
		event->kind = DOORBELL_REFUSED;
		return true;
	}
}

static bool next_packet(struct doorbell *bell, struct doorbell_event *event)
{
	struct sockaddr_in from;
	struct packet packet;
	socklen_t size;
	ssize_t got;

	for (;;) {
		size = sizeof(from);
		got = recvfrom(bell->fd, &packet, sizeof(packet),
			       MSG_DONTWAIT | MSG_TRUNC,
			       (struct sockaddr *)&from, &size);
		if (got < 0 && errno == ECONNREFUSED)
			continue;
		if (got < 0)
			return false;
		if (got != sizeof(packet) || packet.nonce != bell->nonce ||
		    packet.rank >= bell->count || packet.rank == bell->rank ||
		    packet.kind < DOORBELL_RING || packet.kind > DOORBELL_BYE)
			continue;
		if (packet.kind == DOORBELL_PING)
			doorbell_send(bell, packet.rank, DOORBELL_PONG);
		/* Else it is its watcher, who only asks: the answer, which the
		 * port of the rank will refuse, tells us as well. */
		if (from.sin_port != bell->places[packet.rank].address.port)
			continue;
		bell->places[packet.rank].ip = from.sin_addr.s_addr;
		event->kind = (enum doorbell_kind)packet.kind;
		event->rank = packet.rank;
		return true;
	}
}

bool doorbell_next(struct doorbell *bell, struct doorbell_event *ret_event)
{
	return next_packet(bell, ret_event) || next_refusal(bell, ret_event);
}

bool doorbell_is_known(const struct doorbell *bell, unsigned rank)
{
	return bell->places[rank].ip != 0;
}

uint32_t doorbell_ip(const struct doorbell *bell, unsigned rank)
{
	return bell->places[rank].ip;
}
