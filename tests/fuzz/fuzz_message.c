/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages as another rank might send them, one behind the other: their
 * heads are checked, their payloads read as their services say, and a server
 * answers them from a small store with a checkpoint, with hooks that check what
 * they are given. The server stands on an engine whose transport takes answers
 * and does nothing else.
 */
#include "tests/fuzz/fuzz.h"

#include "support/opening.h"

#include "comm/server.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* ---- the store ----------------------------------------------------------- */

static const char *const files[] = { "model.safetensors", "file" };
static char folder_path[] = "/tmp/fuzz_message-XXXXXX";
static int folder = -1;
static struct checkpoint *checkpoint;

static void remove_folder(void)
{
	unsigned i;

	opening_close(checkpoint);
	for (i = 0; i < 2; i++)
		unlinkat(folder, files[i], 0);
	unlinkat(folder, "link", 0);
	rmdir(folder_path);
}

static void write_file(const char *name, const void *data, size_t size)
{
	int fd = openat(folder, name,
			O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	close(fd);
}

/* "w" has 4 times 4 floats. */
static void make_folder(void)
{
	static const char header[] = "\x40\0\0\0\0\0\0\0"
		"{\"w\":{\"dtype\":\"F32\",\"shape\":[4,4],"
		"\"data_offsets\":[0,64]}}       ";
	const struct checkpoint_options options = { .file = NULL };
	struct checkpoint_report report;
	char file[8 + 64 + 64] = { 0 };

	_Static_assert(sizeof(header) == 8 + 64 + 1, "it says its own size");
	memcpy(file, header, sizeof(header) - 1);
	CHECK(mkdtemp(folder_path));
	folder = open(folder_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(folder >= 0);
	atexit(remove_folder);
	write_file(files[0], file, sizeof(file));
	write_file(files[1], "some text", 9);
	CHECK(symlinkat("file", folder, "link") == 0);
	CHECK(opening_checkpoint(folder, &options, &checkpoint, &report) ==
	      0);
}

/* A pin that begins with so many ones stands for that of a file: of the first
 * for pieces, else of the second. Nobody can guess it, or write it down. */
static void put_pins(unsigned service, uint8_t *payload, size_t size)
{
	static const uint8_t ones[16] = { 255, 255, 255, 255, 255, 255, 255,
					  255, 255, 255, 255, 255, 255, 255,
					  255, 255 };
	struct stat status;
	struct pin pin;
	size_t i;

	CHECK(fstatat(folder, files[service != SERVICE_PIECES], &status, 0) ==
	      0);
	pin = pin_from_stat(&status);
	for (i = 0; i + sizeof(pin) <= size; i++)
		if (memcmp(payload + i, ones, sizeof(ones)) == 0)
			memcpy(payload + i, &pin, sizeof(pin));
}

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

static int hold(struct held_checkpoint *held, int *held_count)
{
	*held = (struct held_checkpoint){ .checkpoint = checkpoint,
					  .path = "", .hold = held_count };
	++*held_count;
	return 0;
}

/* That of the store; others cannot be read, or are not there. */
static int hook_find(void *context, const struct catalog_wanted *wanted,
		     struct held_checkpoint *ret_held)
{
	check_path(wanted->path);
	return !*wanted->path ? hold(ret_held, context) :
	       wanted->kept ? -ESTALE : -EBADMSG;
}

/* It has every hash but 0, once. */
static int hook_find_id(void *context, const struct catalog_id *id,
			unsigned skip, struct held_checkpoint *ret_held)
{
	CHECK(skip <= 1);
	return id->hash[0] == 0 || skip > 0 ? -ENODATA :
	       hold(ret_held, context);
}

static int hook_look(void *context, const char *path)
{
	(void)context;
	check_path(path);
	return strcmp(path, "gone") == 0 ? -ENOENT : 0;
}

static void hook_put(void *context, const struct held_checkpoint *held)
{
	CHECK(held->checkpoint == checkpoint && held->hold == context);
	--*(int *)context;
}

static void hook_say(void *context, const char *line)
{
	(void)context;
	CHECK(strlen(line) < 1024);
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

static int take_bulk(struct transport *transport,
		     const struct transport_bulk *bulk, void *cookie)
{
	return take(transport, bulk->rank, bulk->data, bulk->size, cookie);
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

/* Of one input: rooms for answers are not had back. */
enum { MESSAGES_MAX = 16 };

static void serve(struct server *server, struct engine *engine,
		  const struct message *message, const uint8_t *payload)
{
	struct engine_request *request = malloc(sizeof(*request) +
						message->size);

	CHECK(request);
	*request = (struct engine_request){
		.engine = engine, .message = *message, .rank = 1,
		.expires_ms = UINT64_MAX / 2000,
	};
	memcpy(request->payload, payload, message->size);
	put_pins(message->service, request->payload, message->size);
	server_run(server, request);
}

/* One message of @size bytes. */
static void run_one(struct server *server, struct engine *engine,
		    const uint8_t *data, size_t size)
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
		serve(server, engine, &message, data + sizeof(message));
}

/* How long the first message says that it is, if that much is there. */
static size_t first_size(const uint8_t *data, size_t size)
{
	struct message head;
	size_t whole = size;

	if (size >= sizeof(head)) {
		memcpy(&head, data, sizeof(head));
		whole = sizeof(head) + head.size;
	}
	return whole < size ? whole : size;
}

static void run(const uint8_t *data, size_t size)
{
	struct counters_reads counters = { .requests = 0 };
	int held_count = 0;
	const struct answering from = {
		.own = folder, .counters = &counters,
		.checkpoints = {
			.context = &held_count, .find = hook_find,
			.find_id = hook_find_id, .look = hook_look,
			.put = hook_put, .say = hook_say,
		},
	};
	struct engine *engine = make_engine();
	struct server server;
	unsigned i;

	server_init(&server, NULL, &from);
	for (i = 0; i < MESSAGES_MAX && size > 0; i++) {
		size_t first = first_size(data, size);

		run_one(&server, engine, data, first);
		data += first;
		size -= first;
	}
	server_finish(&server);
	CHECK(held_count == 0);
	engine_destroy(engine);
}

/* What a liar can put right himself. */
static void put_right(uint8_t *data, size_t size)
{
	struct message head, good;
	size_t first;

	for (; size >= sizeof(head); data += first, size -= first) {
		first = first_size(data, size);
		memcpy(&head, data, sizeof(head));
		message_init(&good, MESSAGE_REQUEST, 3);
		good.service = head.service > 0 &&
			       head.service < SERVICE_COUNT ? head.service :
			       1 + head.service % (SERVICE_COUNT - 1);
		good.size = (uint32_t)(first - sizeof(head));
		memcpy(data, &good, sizeof(good));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (folder < 0)
		make_folder();
	run(data, size);
	copy = malloc(size + 1);
	CHECK(copy);
	if (size > 0)
		memcpy(copy, data, size);
	put_right(copy, size);
	run(copy, size);
	free(copy);
	return 0;
}
