/* SPDX-License-Identifier: Apache-2.0 */
#include "support/fake_net.h"

#include "support/test.h"
#include "support/dice.h"

#include "comm/message.h"
#include "shard/read/source.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { EAGER_MAX = 4096, NOBODYS_TAG = 1000, EXCHANGE_MAX = 2 };

/* On its way to `port`: an event of it, or what becomes one. */
struct item {
	struct item *next;
	enum { ITEM_MESSAGE, ITEM_BULK, ITEM_SENT } kind;
	unsigned from, to;	/* of SENT: who has sent, to whom */
	unsigned tag;
	uint64_t due_ns;
	void *cookie;		/* of who sends */
	const void *data;
	unsigned char *copy;	/* owned; or NULL */
	bool lent;		/* data is the sender's, who waits for SENT */
	size_t size;
};

struct receive {
	struct receive *next;
	unsigned from, tag;
	void *buffer, *cookie;
	size_t size;
};

struct port {
	struct transport base;		/* first: passed as this */
	struct fake_net *net;
	bool open, paused, waits;
	unsigned exchange_count;	/* that it has begun */
	struct item *items, *lent;	/* owned; what comes, and what the last
					 * poll has handed out */
	struct receive *receives;	/* owned */
	uint64_t *last_ns;		/* owned: of each rank, messages and
					 * bulk */
};

struct fake_net {
	unsigned count;
	pthread_mutex_t lock;		/* guards all that follows */
	pthread_cond_t change;
	struct dice dice;
	struct fake_faults faults;
	unsigned fault_count;
	struct port *ports;		/* owned */
	unsigned char *exchanged[EXCHANGE_MAX];	/* owned: of all ranks */
	unsigned exchange_count;	/* that all ranks have begun, together */
	int exchange_error;
};

static uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static struct port *lock_port(struct transport *transport)
{
	struct port *port = (struct port *)transport;

	pthread_mutex_lock(&port->net->lock);
	return port;
}

static void unlock(struct fake_net *net)
{
	pthread_mutex_unlock(&net->lock);
}

/* ---- faults -------------------------------------------------------------- */

static bool strikes(struct fake_net *net, unsigned chance)
{
	if (net->faults.budget == 0 ||
	    dice_below(&net->dice, 10000) >= chance)
		return false;
	net->faults.budget--;
	net->fault_count++;
	return true;
}

static uint64_t late(struct fake_net *net, unsigned limit_us)
{
	return clock_ns() +
	       (limit_us ? dice_below(&net->dice, limit_us) * 1000 : 0);
}

/*
 * The slot of a request stays: with another one its answer would be that of
 * another call, which nobody can see who has no checksum.
 */
static void spoil_message(struct fake_net *net, struct item *item)
{
	size_t first = dice_below(&net->dice, item->size), i;
	struct message head;

	switch (dice_below(&net->dice, 4)) {
	case 0:
		item->size = first;
		return;
	case 1:
		item->copy = realloc(item->copy, 2 * MESSAGE_SIZE_MAX);
		assert_non_null(item->copy);
		memset(item->copy + item->size, 1,
		       2 * MESSAGE_SIZE_MAX - item->size);
		item->data = item->copy;
		item->size = 2 * MESSAGE_SIZE_MAX;
		return;
	case 2:
		memcpy(&head, item->copy, sizeof(head));
		head.ticket += (1 + dice_below(&net->dice, 3)) << 16;
		memcpy(item->copy, &head, sizeof(head));
		return;
	default:
		for (i = first; i < item->size && i < first + 4; i++)
			if (i / 2 != offsetof(struct message, ticket) / 2)
				item->copy[i] ^= (unsigned char)
					(1 + dice_below(&net->dice, 255));
	}
}

static void spoil_bulk(struct fake_net *net, struct item *item)
{
	static const unsigned char large[LIMIT_READ_SIZE + 1];

	switch (dice_below(&net->dice, 3)) {
	case 0:
		item->size -= item->size > 0;
		break;
	case 1:
		free(item->copy);
		item->copy = NULL;
		item->data = large;
		item->size = sizeof(large);
		break;
	default:
		item->tag += NOBODYS_TAG;
	}
}

/* ---- sending ------------------------------------------------------------- */

static struct item *make_item(struct fake_net *net, unsigned kind,
			      unsigned from, unsigned to)
{
	struct item *item = calloc(1, sizeof(*item));

	assert_non_null(item);
	item->kind = kind;
	item->from = from;
	item->to = to;
	item->due_ns = late(net, kind == ITEM_SENT ?
			    net->faults.sent_delay_us : net->faults.delay_us);
	return item;
}

static void free_item(struct item *item)
{
	free(item->copy);
	free(item);
}

/* In their order where there is one. */
static void add_item(struct fake_net *net, unsigned rank, struct item *item)
{
	struct port *port = &net->ports[rank];
	struct item **end = &port->items;
	uint64_t *last = &port->last_ns[2 * item->from +
					(item->kind == ITEM_BULK)];

	if (!port->open) {
		free_item(item);
		return;
	}
	if (item->kind != ITEM_SENT) {
		if (item->due_ns < *last)
			item->due_ns = *last;
		*last = item->due_ns;
	}
	while (*end)
		end = &(*end)->next;
	*end = item;
}

static void add_sent(struct fake_net *net, const struct item *of)
{
	struct item *sent = make_item(net, ITEM_SENT, of->from, of->to);

	sent->cookie = of->cookie;
	add_item(net, of->from, sent);
}

static void copy_data(struct item *item)
{
	item->copy = malloc(item->size + 1);
	assert_non_null(item->copy);
	if (item->size > 0)
		memcpy(item->copy, item->data, item->size);
	item->data = item->copy;
}

static int fake_send(struct transport *transport, unsigned rank,
		     const void *data, size_t size, void *cookie)
{
	struct port *port = lock_port(transport);
	struct fake_net *net = port->net;
	struct item *item = make_item(net, ITEM_MESSAGE, transport->rank,
				      rank);

	item->data = data;
	item->size = size;
	item->cookie = cookie;
	copy_data(item);
	add_sent(net, item);
	if (strikes(net, net->faults.drop)) {
		free_item(item);
	} else {
		if (strikes(net, net->faults.corrupt))
			spoil_message(net, item);
		add_item(net, rank, item);
	}
	unlock(net);
	return 0;
}

static int fake_send_bulk(struct transport *transport,
			  const struct transport_bulk *bulk, void *cookie)
{
	unsigned rank = bulk->rank;
	struct port *port = lock_port(transport);
	struct fake_net *net = port->net;
	struct item *item = make_item(net, ITEM_BULK, transport->rank, rank);
	bool drop = strikes(net, net->faults.drop);
	bool spoil = !drop && strikes(net, net->faults.corrupt);

	item->tag = bulk->tag;
	item->data = bulk->data;
	item->size = bulk->size;
	item->cookie = cookie;
	if (bulk->size <= EAGER_MAX || drop || spoil || !net->ports[rank].open) {
		copy_data(item);
		add_sent(net, item);
	} else {
		item->lent = true;
	}
	if (spoil)
		spoil_bulk(net, item);
	if (drop)
		free_item(item);
	else
		add_item(net, rank, item);
	unlock(net);
	return 0;
}

static int fake_receive_bulk(struct transport *transport,
			     const struct transport_bulk *bulk, void *cookie)
{
	struct receive *receive = malloc(sizeof(*receive)), **end;
	struct port *port = lock_port(transport);

	assert_non_null(receive);
	*receive = (struct receive){
		NULL, bulk->rank, bulk->tag, bulk->data, cookie, bulk->size,
	};
	for (end = &port->receives; *end; end = &(*end)->next)
		;
	*end = receive;
	unlock(port->net);
	return 0;
}

void fake_net_inject(struct fake_net *net, unsigned from, unsigned to,
		     const void *data, size_t size)
{
	struct item *item;

	pthread_mutex_lock(&net->lock);
	item = make_item(net, ITEM_MESSAGE, from, to);
	item->data = data;
	item->size = size;
	copy_data(item);
	add_item(net, to, item);
	unlock(net);
}

void fake_net_inject_bulk(struct fake_net *net, unsigned from, unsigned to,
			  unsigned tag, const void *data, size_t size)
{
	struct item *item;

	pthread_mutex_lock(&net->lock);
	item = make_item(net, ITEM_BULK, from, to);
	item->tag = tag;
	item->data = data;
	item->size = size;
	copy_data(item);
	add_item(net, to, item);
	unlock(net);
}

/* ---- receiving ----------------------------------------------------------- */

/* False: nobody waits for it yet. */
static bool take_bulk(struct port *port, const struct item *item,
		      struct transport_event *event)
{
	struct receive **at = &port->receives, *receive;

	while (*at && ((*at)->from != item->from || (*at)->tag != item->tag))
		at = &(*at)->next;
	receive = *at;
	if (!receive)
		return false;
	*at = receive->next;
	*event = (struct transport_event){
		.kind = TRANSPORT_RECEIVED, .cookie = receive->cookie,
		.rank = item->from, .size = item->size,
	};
	if (item->size > receive->size)
		event->error = -EPROTO;
	else if (item->size > 0)
		memcpy(receive->buffer, item->data, item->size);
	free(receive);
	if (item->lent)
		add_sent(port->net, item);
	return true;
}

static bool take_item(struct port *port, struct item *item,
		      struct transport_event *event)
{
	if (item->kind == ITEM_BULK)
		return take_bulk(port, item, event);
	*event = (struct transport_event){
		.kind = item->kind == ITEM_SENT ? TRANSPORT_SENT :
						  TRANSPORT_MESSAGE,
		.cookie = item->cookie, .rank = item->from,
		.data = item->data, .size = item->size,
	};
	return true;
}

static void free_items(struct item **list)
{
	struct item *item;

	while (*list) {
		item = *list;
		*list = item->next;
		free_item(item);
	}
}

static unsigned fake_poll(struct transport *transport,
			  struct transport_event *events, unsigned max)
{
	struct port *port = lock_port(transport);
	uint64_t now = clock_ns();
	struct item **at = &port->items;
	unsigned count = 0;

	while (port->paused) {
		port->waits = true;
		pthread_cond_broadcast(&port->net->change);
		pthread_cond_wait(&port->net->change, &port->net->lock);
	}
	port->waits = false;
	free_items(&port->lent);
	while (*at && count < max) {
		struct item *item = *at;

		if (item->due_ns > now || !take_item(port, item,
						     &events[count])) {
			at = &item->next;
			continue;
		}
		count++;
		*at = item->next;
		item->next = port->lent;
		port->lent = item;
	}
	unlock(port->net);
	return count;
}

/* ---- giving up ----------------------------------------------------------- */

/* Of @port: what @from lends it, if so, and what it is told of @to. */
static void remove_items(struct port *port, unsigned from, unsigned to,
			 bool lends)
{
	struct item **at = &port->items;

	while (*at) {
		struct item *item = *at;
		bool gone = lends ? item->lent && item->from == from :
			    item->kind == ITEM_SENT && item->to == to;

		if (!gone) {
			at = &item->next;
			continue;
		}
		*at = item->next;
		free_item(item);
	}
}

static void fake_forget(struct transport *transport, unsigned rank)
{
	struct port *port = lock_port(transport);
	struct receive **at = &port->receives;

	while (*at) {
		struct receive *receive = *at;

		if (receive->from != rank) {
			at = &receive->next;
			continue;
		}
		*at = receive->next;
		free(receive);
	}
	remove_items(port, transport->rank, rank, false);
	remove_items(&port->net->ports[rank], transport->rank, rank, true);
	unlock(port->net);
}

/* ---- meeting ------------------------------------------------------------- */

/* What each rank has given stays there: who is slow takes it later. */
static int fake_exchange(struct transport *transport, const void *mine,
			 size_t size, void *all)
{
	struct port *port = lock_port(transport);
	struct fake_net *net = port->net;
	unsigned char **given = &net->exchanged[port->exchange_count++];
	int error;

	assert_true(port->exchange_count <= EXCHANGE_MAX);
	if (!*given) {
		*given = calloc(net->count, size);
		assert_non_null(*given);
	}
	memcpy(*given + transport->rank * size, mine, size);
	net->exchange_count++;
	pthread_cond_broadcast(&net->change);
	while (net->exchange_count < port->exchange_count * net->count &&
	       !net->exchange_error)
		pthread_cond_wait(&net->change, &net->lock);
	error = net->exchange_error;
	if (!error)
		memcpy(all, *given, net->count * size);
	unlock(net);
	return error;
}

void fake_net_break_exchange(struct fake_net *net, int error)
{
	pthread_mutex_lock(&net->lock);
	net->exchange_error = error;
	pthread_cond_broadcast(&net->change);
	unlock(net);
}

void fake_net_await_exchange(struct fake_net *net, unsigned count)
{
	pthread_mutex_lock(&net->lock);
	while (net->exchange_count < count)
		pthread_cond_wait(&net->change, &net->lock);
	unlock(net);
}

/* ---- life ---------------------------------------------------------------- */

/* Nothing of it is touched any more. */
static void fake_destroy(struct transport *transport)
{
	struct port *port = lock_port(transport);
	unsigned i;

	port->open = false;
	free_items(&port->items);
	free_items(&port->lent);
	while (port->receives) {
		struct receive *receive = port->receives;

		port->receives = receive->next;
		free(receive);
	}
	for (i = 0; i < port->net->count; i++)
		remove_items(&port->net->ports[i], transport->rank, 0, true);
	unlock(port->net);
}

struct fake_net *fake_net_create(unsigned count, uint64_t seed)
{
	struct fake_net *net = calloc(1, sizeof(*net));
	unsigned i;

	assert_non_null(net);
	net->count = count;
	net->dice.state = seed;
	net->ports = calloc(count, sizeof(*net->ports));
	assert_non_null(net->ports);
	pthread_mutex_init(&net->lock, NULL);
	pthread_cond_init(&net->change, NULL);
	for (i = 0; i < count; i++) {
		struct port *port = &net->ports[i];

		port->base = (struct transport){
			.rank = i, .count = count, .send = fake_send,
			.send_bulk = fake_send_bulk,
			.receive_bulk = fake_receive_bulk,
			.forget = fake_forget, .poll = fake_poll,
			.exchange = fake_exchange, .destroy = fake_destroy,
		};
		port->net = net;
		port->open = true;
		port->last_ns = calloc(2 * count, sizeof(*port->last_ns));
		assert_non_null(port->last_ns);
	}
	return net;
}

void fake_net_destroy(struct fake_net *net)
{
	unsigned i;

	for (i = 0; i < net->count; i++) {
		assert_false(net->ports[i].open);
		free(net->ports[i].last_ns);
	}
	pthread_mutex_destroy(&net->lock);
	pthread_cond_destroy(&net->change);
	for (i = 0; i < EXCHANGE_MAX; i++)
		free(net->exchanged[i]);
	free(net->ports);
	free(net);
}

struct transport *fake_net_transport(struct fake_net *net, unsigned rank)
{
	return &net->ports[rank].base;
}

void fake_net_set_faults(struct fake_net *net,
			 const struct fake_faults *faults)
{
	pthread_mutex_lock(&net->lock);
	net->faults = *faults;
	unlock(net);
}

unsigned fake_net_count_faults(struct fake_net *net)
{
	unsigned count;

	pthread_mutex_lock(&net->lock);
	count = net->fault_count;
	unlock(net);
	return count;
}

void fake_net_pause(struct fake_net *net, unsigned rank)
{
	pthread_mutex_lock(&net->lock);
	net->ports[rank].paused = true;
	unlock(net);
}

void fake_net_resume(struct fake_net *net, unsigned rank)
{
	pthread_mutex_lock(&net->lock);
	net->ports[rank].paused = false;
	pthread_cond_broadcast(&net->change);
	unlock(net);
}

void fake_net_await_pause(struct fake_net *net, unsigned rank)
{
	pthread_mutex_lock(&net->lock);
	while (!net->ports[rank].waits)
		pthread_cond_wait(&net->change, &net->lock);
	unlock(net);
}
