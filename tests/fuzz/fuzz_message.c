/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A control message as another rank might send it: its head is checked, its
 * payload read as its service says, and a server runs it with handlers that
 * check what they are given. The server stands on an engine whose transport
 * takes answers and does nothing else.
 */
#include "tests/fuzz/fuzz.h"

#include "comm/server.h"
#include "comm/wire.h"

#include <errno.h>
#include <string.h>

static unsigned handled;

/* ---- handlers ------------------------------------------------------------ */

/* It stays in the store. */
static void check_path(const char *path)
{
	char around[LIMIT_PATH_SIZE + 4];
	size_t size = strlen(path);

	CHECK(size <= LIMIT_PATH_SIZE);
	handled++;
	if (size == 0)
		return;
	memcpy(around + 1, path, size);
	around[0] = '/';
	around[size + 1] = '/';
	around[size + 2] = '\0';
	CHECK(!strstr(around, "//") && !strstr(around, "/./") &&
	      !strstr(around, "/../"));
}

static int handle_list(void *context, uint32_t of, const char *path,
		       const char *after, void *buffer, size_t size,
		       size_t *ret_size)
{
	(void)context;
	(void)of;
	check_path(path);
	CHECK(strlen(after) <= 255 && size <= ENGINE_BULK_MAX);
	memset(buffer, 'l', size);
	*ret_size = size;
	return 0;
}

static int handle_status(void *context, const char *path, struct array *out)
{
	(void)context;
	check_path(path);
	return array_append(out, path, strlen(path) + 1);
}

static void check_range(const struct file_range *range)
{
	check_path(range->path);
	CHECK(range->size <= LIMIT_READ_SIZE);
	CHECK(range->offset <= (uint64_t)INT64_MAX - range->size);
}

static int handle_digest(void *context, const struct file_range *range,
			 uint64_t ret_hash[2])
{
	(void)context;
	check_range(range);
	ret_hash[0] = ret_hash[1] = range->offset;
	return 0;
}

static int handle_file(void *context, const struct file_range *range,
		       void *buffer, size_t *ret_size)
{
	(void)context;
	check_range(range);
	memset(buffer, 'f', range->size);
	*ret_size = range->size;
	return 0;
}

static int handle_catalog(void *context, const struct catalog_part *part,
			  void *buffer, size_t size, size_t *ret_size,
			  uint64_t *ret_total)
{
	(void)context;
	check_path(part->wanted.path);
	memset(buffer, 'c', size);
	*ret_size = size;
	*ret_total = part->offset;
	return part->offset % 2 ? -ESTALE : 0;
}

static int handle_pieces(void *context, const struct piece_request *request,
			 struct reply *reply, size_t *ret_size)
{
	unsigned i, j;

	(void)context;
	handled++;
	CHECK(request->count >= 1 && request->count <= LIMIT_PIECES);
	CHECK(request->ndim <= LIMIT_NDIM);
	for (i = 0; i < request->count; i++) {
		uint64_t volume = 1;

		for (j = 0; j < request->ndim; j++) {
			CHECK(request->pieces[i].count[j] > 0);
			volume *= request->pieces[i].count[j];
			CHECK(volume <= LIMIT_READ_SIZE);
		}
		for (; j < LIMIT_NDIM; j++)
			CHECK(request->pieces[i].count[j] == 0);
		*ret_size = volume;
	}
	memset(reply->data, 'p', *ret_size);
	return 0;
}

static int handle_learn(void *context, const char *path,
			const uint64_t hash[2])
{
	(void)context;
	check_path(path);
	return hash[0] ? -ESTALE : 0;
}

/* ---- the engine ---------------------------------------------------------- */

static int take(struct transport *transport, unsigned rank, const void *data,
		size_t size, void *cookie)
{
	(void)transport;
	(void)rank;
	(void)data;
	(void)size;
	(void)cookie;
	return -EIO;
}

static int take_bulk(struct transport *transport, unsigned rank, unsigned tag,
		     const void *data, size_t size, void *cookie)
{
	(void)tag;
	return take(transport, rank, data, size, cookie);
}

static void destroy(struct transport *transport)
{
	(void)transport;
}

/* It never runs: what is answered stays in its queue, so it is of one input
 * only. */
static struct engine *make_engine(void)
{
	static struct transport transport = {
		.rank = 0, .count = 2, .send = take, .send_bulk = take_bulk,
		.destroy = destroy,
	};
	struct engine_options options = { .transport = &transport,
					  .deadline_ms = 1000 };
	struct doorbell_address addresses[2] = { { .port = 0 } };
	struct engine *engine;

	CHECK(doorbell_create(&options.bell, &addresses[0]) == 0);
	CHECK(doorbell_connect(options.bell, 1, 0, addresses, 2) == 0);
	CHECK(engine_create(&options, &engine) == 0);
	return engine;
}

static void serve(const struct message *message, const uint8_t *payload,
		  bool good)
{
	static const struct peer_handlers handlers = {
		.list = handle_list, .status = handle_status,
		.digest = handle_digest, .file = handle_file,
		.catalog = handle_catalog, .pieces = handle_pieces,
		.learn = handle_learn,
	};
	struct engine *engine = make_engine();
	struct engine_request *request = malloc(sizeof(*request) +
						message->size);

	CHECK(request);
	*request = (struct engine_request){
		.engine = engine, .message = *message, .rank = 1,
		.expires_ms = UINT64_MAX / 2000,
	};
	memcpy(request->payload, payload, message->size);
	handled = 0;
	server_run(&handlers, request);
	CHECK(handled == good);
	engine_destroy(engine);
}

static void run(const uint8_t *data, size_t size)
{
	struct wire_request *wire;
	struct message message;
	int error;

	if (message_check(data, size, &message) ||
	    message.kind != MESSAGE_REQUEST)
		return;
	CHECK(message.size == size - sizeof(message));
	wire = malloc(sizeof(*wire));
	CHECK(wire);
	error = wire_read((enum message_service)message.service,
			  data + sizeof(message), message.size, wire);
	CHECK(error == 0 || error == -EPROTO);
	free(wire);
	serve(&message, data + sizeof(message), !error);
}

/* What a liar can put right himself. */
static void put_right(uint8_t *data, size_t size)
{
	struct message head, good;

	message_init(&good, MESSAGE_REQUEST, 3);
	memcpy(&head, data, sizeof(head));
	good.service = 1 + head.service % (SERVICE_COUNT - 1);
	good.size = (uint32_t)(size - sizeof(head));
	memcpy(data, &good, sizeof(good));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	run(data, size);
	if (size < sizeof(struct message) || size > MESSAGE_SIZE_MAX)
		return 0;
	copy = malloc(size);
	CHECK(copy);
	memcpy(copy, data, size);
	put_right(copy, size);
	run(copy, size);
	free(copy);
	return 0;
}
