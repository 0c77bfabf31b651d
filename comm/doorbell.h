/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The doorbell: a UDP socket of each rank. An engine that has nothing to do
 * sleeps on it; whoever sends it a message rings. A datagram also tells, both
 * ways, that a rank is there: a ping is answered as long as its engine runs,
 * and when its process is gone the kernel over there refuses the port.
 *
 * Nothing depends on a datagram to arrive; MPI has the messages. A datagram
 * counts if it has the job's nonce. One thread's, but for bell_ring.
 */
#ifndef COMM_DOORBELL_H
#define COMM_DOORBELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BELL_ADDRESS_MAX = 8 };

/* Where a rank's bell is. Exchanged as it is. */
struct bell_address {
	uint32_t ip[BELL_ADDRESS_MAX];	/* IPv4, network order; 0: none */
	uint16_t port;			/* network order */
	uint16_t reserved[3];
};

enum bell_kind {
	BELL_RING = 1,
	BELL_PING,	/* is answered with a pong */
	BELL_PONG,
	BELL_BYE,	/* the rank is leaving */
	BELL_REFUSED,	/* never sent: the kernel says that nobody is there */
};

struct bell_event {
	enum bell_kind kind;
	unsigned rank;
};

struct bell;

/* A socket on a free port; @ret_address is what others need. 0 or -errno. */
int bell_create(struct bell **ret_bell, struct bell_address *ret_address);
/* NULL is fine. */
void bell_destroy(struct bell *bell);

/* Who is who. Before anything that follows. 0 or -ENOMEM. */
int bell_connect(struct bell *bell, uint64_t nonce, unsigned rank,
		 const struct bell_address *addresses, unsigned count);

/* @rank was heard from at @ip: by another bell of this process's rank. */
void bell_know(struct bell *bell, unsigned rank, uint32_t ip);

/* The descriptor to sleep on. */
int bell_fd(const struct bell *bell);

/* Send one to @rank: where it was heard from last, or else to all of its
 * addresses. Errors are none of ours. */
void bell_send(struct bell *bell, unsigned rank, enum bell_kind kind);

/* The next that has come; pings are answered. False: there is none. */
bool bell_next(struct bell *bell, struct bell_event *ret_event);

/* Was @rank ever heard from? */
bool bell_is_known(const struct bell *bell, unsigned rank);
/* Where; 0: it was not. */
uint32_t bell_ip(const struct bell *bell, unsigned rank);

#endif
