/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A control message as another rank might send it: its head is checked, its
 * payload read as its service says, and a server answers it from a small store,
 * with hooks that check what they are given. The server stands on an engine whose
 * transport takes answers and does nothing else.
 */
#include "tests/fuzz/fuzz.h"

#include "comm/server.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int folder = -1;

/* ---- hooks --------------------------------------------------------------- */

/* It stays in the store. */
static void check_path(const char *path)
{
	char around[LIMIT_PATH_SIZE + 4];
	size_t size = strlen(path);

	CHECK(size <= LIMIT_PATH_SIZE);
	if (size == 0)
		return;
	memcpy(around + 1, path, size);
	around[0] = '/';
	around[size + 1] = '/';
	around[size + 2] = '\0';
	CHECK(!strstr(around, "//") && !strstr(around, "/./") &&
	      !strstr(around, "/../"));
}

static int hook_find(void *context, const struct catalog_wanted *wanted,
		     struct held_checkpoint *ret_held)
{
	(void)context;
	(void)ret_held;
	check_path(wanted->path);
	return wanted->kept ? -ESTALE : -EBADMSG;
}

static int hook_find_id(void *context, const struct catalog_id *id,
			unsigned skip, struct held_checkpoint *ret_held)
{
	(void)context;
	(void)id;
	(void)ret_held;
	CHECK(skip == 0);
	return -ENODATA;
}

static int hook_look(void *context, const char *path)
{
	(void)context;
	check_path(path);
	return 0;
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

/* An empty one, that has no name any more. */
static void make_folder(void)
{
	char path[] = "/tmp/fuzz_message-XXXXXX";

	CHECK(mkdtemp(path));
	folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(folder >= 0 && rmdir(path) == 0);
}

static void serve(const struct message *message, const uint8_t *payload)
{
	struct counters_reads counters = { .requests = 0 };
	const struct answering from = {
		.own = folder, .counters = &counters,
		.checkpoints = {
			.find = hook_find, .find_id = hook_find_id,
			.look = hook_look,
		},
	};
	struct server server;
	struct engine *engine = make_engine();
	struct engine_request *request = malloc(sizeof(*request) +
						message->size);

	CHECK(request);
	*request = (struct engine_request){
		.engine = engine, .message = *message, .rank = 1,
		.expires_ms = UINT64_MAX / 2000,
	};
	memcpy(request->payload, payload, message->size);
	server_init(&server, NULL, &from);
	server_run(&server, request);
	server_finish(&server);
	engine_destroy(engine);
}

static void run(const uint8_t *data, size_t size)
{
	struct message message;
	uint32_t of = PEERS_OWN;

	if (message_check(data, size, &message) ||
	    message.kind != MESSAGE_REQUEST)
		return;
	CHECK(message.size == size - sizeof(message));
	/* Nothing is remembered here. */
	if (message.service == SERVICE_LIST && message.size >= sizeof(of))
		memcpy(&of, data + sizeof(message), sizeof(of));
	if (of == PEERS_OWN)
		serve(&message, data + sizeof(message));
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

	if (folder < 0)
		make_folder();
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
