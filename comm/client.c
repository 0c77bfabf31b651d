/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/client.h"

#include "comm/service.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

int client_ask(struct client *client, struct engine_call *call,
	       const struct wire *wire)
{
	int error = client->peers.wait_ready(&client->peers);

	if (error)
		return error;
	call->payload = wire->data;
	call->size = wire->size;
	error = engine_begin(client->engine, call, 1, false);
	return error ? error : engine_wait(client->engine, call);
}

int client_init(struct client *client, unsigned rank, unsigned count)
{
	unsigned i;

	client->engine = NULL;
	client->peers = (struct peers){
		.rank = rank, .count = count,
		.stores = calloc(count, sizeof(int)),
		.list = service_list_ask, .status = service_status_ask,
		.digest = service_digest_ask, .file = service_file_ask,
		.catalog = service_catalog_ask,
		.is_builder = service_catalog_is_builder,
		.hold_file = service_hold_file_ask,
		.held_status = service_held_ask,
		.release = service_release_send,
	};
	client->holds = 0;
	client->releases = (struct array){ .data = NULL };
	pthread_mutex_init(&client->release_lock, NULL);
	if (!client->peers.stores)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		client->peers.stores[i] = -1;
	return 0;
}

void client_finish(struct client *client)
{
	unsigned i;

	engine_destroy(client->engine);
	for (i = 0; client->peers.stores && i < client->peers.count; i++)
		if (i != client->peers.rank && client->peers.stores[i] >= 0)
			close(client->peers.stores[i]);
	free(client->peers.stores);
	array_finish(&client->releases);
	pthread_mutex_destroy(&client->release_lock);
}
