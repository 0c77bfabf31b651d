/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages between ranks: a head and a payload, at most
 * MESSAGE_SIZE_MAX bytes. All ranks run the same version on the same kind of
 * machine (checked when they meet), so a head travels as it is.
 *
 *	MESSAGE_REQUEST	asks for `service`; the payload is the service's. What
 *			is asked for comes as bulk with the slot of the ticket
 *			as its tag.
 *	MESSAGE_ANSWER	to a request whose bulk was empty: `error`, 0 for an
 *			answer of no bytes
 *	MESSAGE_PING	is answered by the engine itself with a MESSAGE_PONG of
 *			the same ticket: does what MPI carries get through
 *			again, there and back?
 */
#ifndef COMM_MESSAGE_H
#define COMM_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

/* Changes whenever anything that ranks send to each other does. */
enum { MESSAGE_PROTOCOL = 3 };

enum message_kind {
	MESSAGE_REQUEST = 1,
	MESSAGE_ANSWER,
	MESSAGE_PING,
	MESSAGE_PONG,
};

enum message_service {
	SERVICE_LIST = 1,
	SERVICE_STATUS,
	SERVICE_DIGEST,
	SERVICE_FILE,
	SERVICE_CATALOG,
	SERVICE_PIECES,
	SERVICE_LEARN,
	SERVICE_HOLD_FILE,
	SERVICE_HOLD_CHECKPOINT,
	SERVICE_HELD,
	SERVICE_RELEASE,
	SERVICE_COUNT,
};

struct message {
	uint32_t magic;
	uint16_t kind, service;
	uint64_t ticket;	/* of who asked: generation << 16 | slot */
	uint32_t time_ms;	/* that is left to answer */
	int32_t error;		/* -errno, of an answer */
	uint32_t size;		/* of the payload, bytes */
	uint32_t reserved;	/* 0 */
};

_Static_assert(sizeof(struct message) == 4 + 2 * 2 + 8 + 4 * 4, "it travels");

/* Bytes of a whole control message: small enough to be sent without asking
 * the receiver first, and holds the longest path. */
enum { MESSAGE_SIZE_MAX = 8192,
       MESSAGE_PAYLOAD_MAX = MESSAGE_SIZE_MAX - sizeof(struct message) };

static inline unsigned message_slot(uint64_t ticket)
{
	return ticket & 0xffff;
}

/* Fill the constant parts. */
void message_init(struct message *message, enum message_kind kind,
		  uint64_t ticket);

/* Is what came, @size bytes at @data, a message? 0 with its head, or
 * -EPROTO. */
int message_check(const void *data, size_t size, struct message *ret_message);

#endif
