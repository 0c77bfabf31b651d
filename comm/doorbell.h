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

enum {
	DOORBELL_ADDRESS_MAX = 8
};

/* Where a rank's bell is. Exchanged as it is. */
struct doorbell_address {
	uint32_t ip[DOORBELL_ADDRESS_MAX]; /* IPv4, network order; 0: none */
	uint16_t port;			/* network order */
	uint16_t reserved[3];
};

enum doorbell_kind {
	DOORBELL_RING = 1,
	DOORBELL_PING, /* is answered with a pong */
	DOORBELL_PONG,
	DOORBELL_BYE, /* the rank is leaving */
	DOORBELL_REFUSED, /* never sent: the kernel says that nobody is there */
};

struct doorbell_event {
	enum doorbell_kind kind;
	unsigned rank;
};

struct doorbell;

/* A socket on a free port; @ret_address is what others need. 0 or -errno. */
int doorbell_create(struct doorbell **ret_doorbell,
		    struct doorbell_address *ret_address);
/* NULL is fine. */
void doorbell_destroy(struct doorbell *bell);

/* Who is who. Before anything that follows. 0 or -ENOMEM. */
int doorbell_connect(struct doorbell *bell, uint64_t nonce, unsigned rank,
		     const struct doorbell_address *addresses, unsigned count);

/* @rank was heard from at @ip: by another bell of this process's rank. */
void doorbell_know(struct doorbell *bell, unsigned rank, uint32_t ip);

/* The descriptor to sleep on. */
int doorbell_fd(const struct doorbell *bell);

/* Send one to @rank: where it was heard from last, or else to all of its
 * addresses. Errors are none of ours. */
void doorbell_send(struct doorbell *bell, unsigned rank,
		   enum doorbell_kind kind);

/* The next that has come; pings are answered. False: there is none. */
bool doorbell_next(struct doorbell *bell, struct doorbell_event *ret_event);

/* Was @rank ever heard from? */
bool doorbell_is_known(const struct doorbell *bell, unsigned rank);
/* Where; 0: it was not. */
uint32_t doorbell_ip(const struct doorbell *bell, unsigned rank);

#endif
