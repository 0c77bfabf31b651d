/* SPDX-License-Identifier: Apache-2.0 */
#include "support/clients.h"

#include "support/test.h"

#include <errno.h>
#include <string.h>

struct ranks clients_ranks;
struct served served[RANKS_MAX];
bool clients_ready;
const void *raw_data;
size_t raw_size;

static struct client clients[RANKS_MAX];

unsigned rank_of(const struct served *one)
{
	return (unsigned)(one - served);
}

static int wait_ready(struct peers *p)
{
	(void)p;
	return clients_ready ? 0 : -ESHUTDOWN;
}

static void work(void *context, struct rank *rank,
		 struct engine_request *request)
{
	void *room;

	if (rank->rank != 0 || !raw_data) {
		handlers_work(context, rank, request);
		return;
	}
	room = engine_room(request);
	assert_non_null(room);
	memcpy(room, raw_data, raw_size);
	engine_answer(request, 0, raw_size);
}

void clients_start(unsigned count, const handler handlers[SERVICE_COUNT])
{
	const struct ranks_options options = {
		.count = count, .deadline_ms = 10000,
		.workers = RANKS_WORKERS, .work = work, .context = served,
	};
	unsigned i;

	raw_data = NULL;
	clients_ready = true;
	for (i = 0; i < count; i++) {
		handlers_init(&served[i]);
		memcpy(served[i].handlers, handlers,
		       sizeof(served[i].handlers));
		assert_int_equal(client_init(&clients[i], i, count), 0);
		clients[i].peers.wait_ready = wait_ready;
	}
	ranks_start(&clients_ranks, &options);
	for (i = 0; i < count; i++)
		clients[i].engine = clients_ranks.rank[i].engine;
}

void clients_stop(void)
{
	unsigned count = clients_ranks.options.count, i;

	ranks_finish(&clients_ranks);
	for (i = 0; i < count; i++) {
		handlers_finish(&served[i]);
		/* It is gone already. */
		clients[i].engine = NULL;
		client_finish(&clients[i]);
	}
}

struct peers *peers_of(unsigned rank)
{
	return &clients[rank].peers;
}
