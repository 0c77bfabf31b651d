/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine needs of a network: control messages that arrive in order,
 * small and unexpected, and bulk that is received where a receive for its
 * sender and tag was posted before. All of it is one thread's; nothing
 * blocks. transport_mpi.c is the real one; tests have another.
 */
#ifndef COMM_TRANSPORT_H
#define COMM_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum transport_event_kind {
	TRANSPORT_SENT,		/* the data may be reused */
	TRANSPORT_RECEIVED,	/* bulk has arrived: `size` bytes */
	TRANSPORT_MESSAGE,	/* a control message: `data`, `size`, `rank` */
};

struct transport_event {
	enum transport_event_kind kind;
	void *cookie;		/* of the operation that has ended */
	unsigned rank;
	size_t size;		/* bytes */
	const void *data;	/* borrowed until the next poll */
	int error;		/* 0 or -errno */
};

/* One bulk, to or from a rank. */
struct transport_bulk {
	unsigned rank, tag;
	void *data;		/* borrowed until the operation has ended */
	size_t size;		/* bytes; of a receive, at most */
};

struct transport {
	unsigned rank, count;	/* const */

	/* Send @size bytes, which stay as they are until the event SENT of
	 * @cookie. 0 or -errno, without an event then. */
	int (*send)(struct transport *transport, unsigned rank,
		    const void *data, size_t size, void *cookie);
	int (*send_bulk)(struct transport *transport,
			 const struct transport_bulk *bulk, void *cookie);
	/* Wait for one bulk; one of more bytes is an error. */
	int (*receive_bulk)(struct transport *transport,
			    const struct transport_bulk *bulk, void *cookie);
	/* Give up all operations with @rank, which is gone: there will be no
	 * events of them, and their memory is not touched again. */
	void (*forget)(struct transport *transport, unsigned rank);

	/* What has happened since: up to @max events; returns their number. */
	unsigned (*poll)(struct transport *transport,
			 struct transport_event *events, unsigned max);

	/* Before anything else, blocking: @size bytes of each rank, in
	 * their order, to all. 0 or -errno. */
	int (*exchange)(struct transport *transport, const void *mine,
			size_t size, void *all);

	/* Free it. */
	void (*destroy)(struct transport *transport);
};

#endif
