/* SPDX-License-Identifier: Apache-2.0 */
/* Each service with handlers of a test, and requests that reach none. */
#include "support/test.h"
#include "support/dice.h"
#include "support/handlers.h"

#include "comm/wire.h"

#include <errno.h>
#include <string.h>
#include <time.h>

static struct ranks ranks;
static struct served served[2];
static unsigned handled;	/* by the one worker there is */
static size_t answer_size;
static int answer_error;

/* ---- handlers ------------------------------------------------------------ */

static int fill(void *buffer, size_t *ret_size)
{
	handled++;
	memset(buffer, 'x', answer_size);
	*ret_size = answer_size;
	return answer_error;
}

static int list(void *context, uint32_t of, const char *path,
		const char *after, void *buffer, size_t size, size_t *ret_size)
{
	assert_int_equal(of, 3);
	assert_ptr_equal(context, &handled);
	assert_string_equal(path, "a/b");
	assert_string_equal(after, "name");
	assert_int_equal(size, LIMIT_READ_SIZE);
	return fill(buffer, ret_size);
}

static int status(void *context, const char *path, struct array *out)
{
	/* There is memory, also for nothing. */
	char *room = array_add(out, answer_size + 1);
	size_t size;

	assert_ptr_equal(context, &handled);
	assert_string_equal(path, "a/b");
	assert_non_null(room);
	out->size--;
	return fill(room, &size);
}

static void check_range(const struct file_range *range)
{
	assert_string_equal(range->path, "a/b");
	assert_int_equal(range->pin.inode, 7);
	assert_int_equal(range->offset, 8);
	assert_int_equal(range->size, 9);
}

static int digest(void *context, const struct file_range *range,
		  uint64_t ret_hash[2])
{
	assert_ptr_equal(context, &handled);
	check_range(range);
	handled++;
	ret_hash[0] = 1;
	ret_hash[1] = 2;
	return answer_error;
}

static int file(void *context, const struct file_range *range, void *buffer,
		size_t *ret_size)
{
	assert_ptr_equal(context, &handled);
	check_range(range);
	return fill(buffer, ret_size);
}

static int catalog(void *context, const struct catalog_part *part,
		   void *buffer, size_t size, size_t *ret_size,
		   uint64_t *ret_total)
{
	assert_ptr_equal(context, &handled);
	assert_string_equal(part->wanted.path, "a/b");
	assert_int_equal(part->wanted.signature, 5);
	assert_int_equal(part->offset, 6);
	assert_int_equal(size, LIMIT_READ_SIZE - sizeof(*ret_total));
	*ret_total = 12345;
	return fill(buffer, ret_size);
}

static int pieces(void *context, const struct piece_request *request,
		  struct reply *reply, size_t *ret_size)
{
	assert_ptr_equal(context, &handled);
	assert_int_equal(request->id.hash[1], 4);
	assert_int_equal(request->id.folder, 5);
	assert_int_equal(request->entry, 5);
	assert_int_equal(request->count, 1);
	assert_int_equal(request->pieces[0].shard, 6);
	assert_int_equal(request->pins[0], 7);
	return fill(reply->data, ret_size);
}

static int learn(void *context, const char *path, const uint64_t hash[2])
{
	assert_ptr_equal(context, &handled);
	assert_string_equal(path, "a/b");
	assert_int_equal(hash[0], 3);
	assert_int_equal(hash[1], 4);
	handled++;
	return answer_error;
}

/* ---- asking -------------------------------------------------------------- */

static int setup(void **state)
{
	const struct ranks_options options = {
		.count = 2, .deadline_ms = 10000, .workers = 1,
		.work = handlers_work, .context = served,
	};
	const struct peer_handlers handlers = {
		.context = &handled, .list = list, .status = status,
		.digest = digest, .file = file, .catalog = catalog,
		.pieces = pieces, .learn = learn,
	};

	(void)state;
	handlers_init(&served[0], &(struct peer_handlers){ .context = NULL });
	handlers_init(&served[1], &handlers);
	handled = 0;
	answer_error = 0;
	answer_size = 0;
	ranks_start(&ranks, &options);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
	handlers_finish(&served[0]);
	handlers_finish(&served[1]);
	return 0;
}

static struct engine_call ask(unsigned service, const struct wire *wire)
{
	struct engine_call call = {
		.rank = 1, .service = service, .payload = wire->data,
		.size = wire->size,
	};

	assert_int_equal(engine_begin(ranks.rank[0].engine, &call, 1, false),
			 0);
	engine_wait(ranks.rank[0].engine, &call);
	return call;
}

static void end(struct engine_call *call)
{
	engine_end(ranks.rank[0].engine, call);
}

/* One good request for @service, answered by @size bytes, @head of which the
 * server puts before those of the handler. */
static void check_size(unsigned service, const struct wire *wire, size_t head,
		       size_t size)
{
	static unsigned char expected[ENGINE_BULK_MAX];
	struct engine_call call;
	unsigned before = handled;

	answer_error = 0;
	answer_size = size;
	call = ask(service, wire);
	assert_int_equal(call.error, 0);
	assert_int_equal(call.got, head + size);
	memset(expected, 'x', size);
	if (size > 0)
		assert_memory_equal(call.data + head, expected, size);
	assert_int_equal(handled, before + 1);
	end(&call);
}

static void check_error(unsigned service, const struct wire *wire)
{
	struct engine_call call;
	unsigned before = handled;

	answer_error = -ENOTDIR;
	answer_size = 100;
	call = ask(service, wire);
	assert_int_equal(call.error, -ENOTDIR);
	assert_int_equal(handled, before + 1);
	end(&call);
}

/* Each cut, and with something behind it. */
static void check_refused(unsigned service, const struct wire *wire)
{
	struct wire bad = *wire;
	struct engine_call call;
	unsigned before = handled;
	size_t size;

	for (size = 0; size <= wire->size + 1; size++) {
		if (size == wire->size)
			continue;
		bad.size = size;
		bad.data[wire->size] = 'x';
		call = ask(service, &bad);
		assert_int_equal(call.error, -EPROTO);
		end(&call);
	}
	assert_int_equal(handled, before);
}

static void check_service(unsigned service, const struct wire *wire,
			  size_t head, size_t largest)
{
	check_size(service, wire, head, 0);
	check_size(service, wire, head, 1);
	check_size(service, wire, head, largest);
	check_error(service, wire);
	check_refused(service, wire);
}

static const struct file_range range = {
	.path = "a/b", .pin.inode = 7, .offset = 8, .size = 9,
};

static void lists(void **state)
{
	struct wire wire;

	(void)state;
	assert_int_equal(wire_list(&wire, 3, "a/b", "name"), 0);
	check_service(SERVICE_LIST, &wire, 0, LIMIT_READ_SIZE);
}

static void statuses(void **state)
{
	struct engine_call call;
	struct wire wire;

	(void)state;
	assert_int_equal(wire_path(&wire, "a/b"), 0);
	check_service(SERVICE_STATUS, &wire, 0, ENGINE_BULK_MAX);
	answer_error = 0;
	answer_size = ENGINE_BULK_MAX + 1;
	call = ask(SERVICE_STATUS, &wire);
	assert_int_equal(call.error, -E2BIG);
	end(&call);
}

static void digests(void **state)
{
	const uint64_t expected[2] = { 1, 2 };
	struct engine_call call;
	struct wire wire;

	(void)state;
	assert_int_equal(wire_file(&wire, &range), 0);
	call = ask(SERVICE_DIGEST, &wire);
	assert_int_equal(call.error, 0);
	assert_int_equal(call.got, sizeof(expected));
	assert_memory_equal(call.data, expected, sizeof(expected));
	end(&call);
	check_error(SERVICE_DIGEST, &wire);
	check_refused(SERVICE_DIGEST, &wire);
}

static void files(void **state)
{
	struct wire wire;

	(void)state;
	assert_int_equal(wire_file(&wire, &range), 0);
	check_service(SERVICE_FILE, &wire, 0, LIMIT_READ_SIZE);
}

static void catalogs(void **state)
{
	const struct catalog_part part = {
		.wanted = { .path = "a/b", .signature = 5 }, .offset = 6,
	};
	struct engine_call call;
	uint64_t total;
	struct wire wire;

	(void)state;
	assert_int_equal(wire_catalog(&wire, &part), 0);
	check_service(SERVICE_CATALOG, &wire, sizeof(total),
		      LIMIT_READ_SIZE - sizeof(total));
	answer_error = 0;
	answer_size = 3;
	call = ask(SERVICE_CATALOG, &wire);
	assert_int_equal(call.error, 0);
	memcpy(&total, call.data, sizeof(total));
	assert_int_equal(total, 12345);
	end(&call);
}

static void shards(void **state)
{
	const struct catalog_id id = { .hash = { 3, 4 }, .folder = 5 };
	const struct piece piece = { .shard = 6, .count = { 1, 1 } };
	struct wire wire;

	(void)state;
	wire_pieces(&wire, &id, 5, 2);
	assert_true(wire_add_piece(&wire, &piece, 7));
	check_service(SERVICE_PIECES, &wire, 0, ENGINE_BULK_MAX);
}

static void lessons(void **state)
{
	const uint64_t hash[2] = { 3, 4 };
	struct engine_call call;
	struct wire wire;

	(void)state;
	assert_int_equal(wire_learn(&wire, "a/b", hash), 0);
	call = ask(SERVICE_LEARN, &wire);
	assert_int_equal(call.error, 0);
	assert_int_equal(call.got, 0);
	end(&call);
	check_error(SERVICE_LEARN, &wire);
	check_refused(SERVICE_LEARN, &wire);
}

static void payloads_of_noise(void **state)
{
	struct dice dice = { 17 };
	struct wire wire;
	unsigned i;

	(void)state;
	for (i = 0; i < 500; i++) {
		struct engine_call call;
		size_t j;

		wire.size = dice_below(&dice, 200);
		for (j = 0; j < wire.size; j++)
			wire.data[j] = (unsigned char)dice_any(&dice);
		call = ask(1 + i % (SERVICE_COUNT - 1), &wire);
		assert_int_equal(call.error, -EPROTO);
		end(&call);
	}
	assert_int_equal(handled, 0);
}

/* Nobody waits for it any more: no work is done for it. */
static void a_request_that_is_too_late(void **state)
{
	const struct timespec later = { 0, 200000000 };
	struct engine_call call = { .rank = 1, .service = SERVICE_STATUS,
				    .timeout_ms = 60 };
	struct wire wire;

	(void)state;
	assert_int_equal(wire_path(&wire, "a/b"), 0);
	call.payload = wire.data;
	call.size = wire.size;
	ranks_hold(&ranks, 1, true);
	assert_int_equal(engine_begin(ranks.rank[0].engine, &call, 1, false),
			 0);
	assert_int_equal(engine_wait(ranks.rank[0].engine, &call), -EIO);
	/* Its time began later where it was received. */
	nanosleep(&later, NULL);
	ranks_hold(&ranks, 1, false);
	end(&call);
	/* The answer, that it is too late, frees the slot. */
	ranks_await_free(&ranks, 0);
	assert_int_equal(handled, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(lists),
		TEST(statuses),
		TEST(digests),
		TEST(files),
		TEST(catalogs),
		TEST(shards),
		TEST(lessons),
		TEST(payloads_of_noise),
		TEST(a_request_that_is_too_late),
	};

	return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
