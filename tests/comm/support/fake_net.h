/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network in memory: transports that deliver to each other, as late and as
 * badly as they are told to. Control messages of one rank to another keep
 * their order, as those of MPI do, and so does bulk of one tag; nothing else
 * does. Small things are copied when they are sent; of large ones the memory
 * of who sends is read when they arrive, and only then they are "sent".
 * Bulk that nobody waits for stays until somebody does.
 *
 * Rings are none of its business: what is late is found by who looks again.
 */
#ifndef COMM_SUPPORT_FAKE_NET_H
#define COMM_SUPPORT_FAKE_NET_H

#include "comm/transport.h"

/* Chances are of 10000. Each takes one of `budget`: a dropped answer costs its
 * slot for as long as its rank is there. */
struct fake_faults {
	unsigned delay_us;	/* everything is late by up to so much */
	unsigned sent_delay_us;	/* so is the news that it was sent */
	unsigned drop;		/* control messages and bulk are lost */
	unsigned corrupt;	/* control messages have wrong bytes, sizes and
				 * tickets; bulk is cut short or too long, or
				 * has a tag of nobody */
	unsigned budget;
};

struct fake_net;

struct fake_net *fake_net_create(unsigned count, uint64_t seed);
/* After all of its transports are destroyed. */
void fake_net_destroy(struct fake_net *net);

/* That of @rank: for one engine. */
struct transport *fake_net_transport(struct fake_net *net, unsigned rank);

void fake_net_set_faults(struct fake_net *net,
			 const struct fake_faults *faults);
/* Faults that have happened. */
unsigned fake_net_count_faults(struct fake_net *net);

/* The next poll of @rank, and with it its engine, waits until it may go on. */
void fake_net_pause(struct fake_net *net, unsigned rank);
void fake_net_resume(struct fake_net *net, unsigned rank);
/* Until it does wait. */
void fake_net_await_pause(struct fake_net *net, unsigned rank);

/* Exchanges wait for all ranks; those that wait or begin from now on fail with
 * @error instead. */
void fake_net_break_exchange(struct fake_net *net, int error);
/* Until the ranks have begun @count exchanges, together. */
void fake_net_await_exchange(struct fake_net *net, unsigned count);

/* Have @to receive what @from never sent. */
void fake_net_inject(struct fake_net *net, unsigned from, unsigned to,
		     const void *data, size_t size);
void fake_net_inject_bulk(struct fake_net *net, unsigned from, unsigned to,
			  unsigned tag, const void *data, size_t size);

#endif
