/* SPDX-License-Identifier: Apache-2.0 */
/* The real services: what is answered to good requests, to those that nobody
 * would write, and to those that come too late. */
#include "support/test.h"
#include "support/dice.h"
#include "support/folder.h"
#include "support/put.h"
#include "support/ranks.h"

#include "comm/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static struct ranks ranks;
static struct server server;		/* of rank 1 */
static struct test_folder folder;	/* its store */
static struct counters counters;

/* What the hooks were asked last; they are run by one worker. */
static struct catalog_wanted wanted;
static struct catalog_id id;
static char path[LIMIT_PATH_SIZE + 1];
static unsigned hooked;
static int hook_error;

/* ---- hooks --------------------------------------------------------------- */

static int hook_find(void *context, const struct catalog_wanted *asked,
		     struct held_checkpoint *ret_held)
{
	(void)ret_held;
	assert_ptr_equal(context, &server);
	wanted = *asked;
	strcpy(path, asked->path);
	hooked++;
	return hook_error;
}

static int hook_find_id(void *context, const struct catalog_id *asked,
			unsigned skip, struct held_checkpoint *ret_held)
{
	(void)ret_held;
	assert_ptr_equal(context, &server);
	assert_int_equal(skip, 0);
	id = *asked;
	hooked++;
	return hook_error;
}

static int hook_look(void *context, const char *asked)
{
	assert_ptr_equal(context, &server);
	strcpy(path, asked);
	return 0;
}

/* ---- set-up -------------------------------------------------------------- */

static void work(void *context, struct rank *rank,
		 struct engine_request *request)
{
	(void)context;
	(void)rank;
	server_run(&server, request);
}

static int setup(void **state)
{
	const struct ranks_options options = {
		.count = 2, .deadline_ms = 10000, .workers = 1, .work = work,
	};
	struct answering from = {
		.rank = 1, .counters = &counters.reads[COUNTERS_SERVED],
		.checkpoints = {
			.context = &server, .find = hook_find,
			.find_id = hook_find_id, .look = hook_look,
		},
	};

	(void)state;
	folder_make(&folder);
	from.own = folder.fd;
	assert_int_equal(mkdirat(folder.fd, "a", 0755), 0);
	folder_write(&folder, "a/b", "content", 7);
	server_init(&server, NULL, &from);
	hooked = 0;
	ranks_start(&ranks, &options);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ranks_await_free(&ranks, 0);
	ranks_finish(&ranks);
	server_finish(&server);
	folder_remove(&folder);
	return 0;
}

static struct engine_call ask_timed(unsigned service, const void *payload,
				    size_t size, unsigned timeout_ms)
{
	struct engine_call call = {
		.rank = 1, .service = service, .payload = payload,
		.size = size, .timeout_ms = timeout_ms,
	};

	assert_int_equal(engine_begin(ranks.rank[0].engine, &call, 1, false),
			 0);
	return call;
}

static struct engine_call ask(unsigned service, const void *payload,
			      size_t size)
{
	struct engine_call call = ask_timed(service, payload, size, 0);

	engine_wait(ranks.rank[0].engine, &call);
	return call;
}

static void end(struct engine_call *call)
{
	engine_end(ranks.rank[0].engine, call);
}

static void check_answer(unsigned service, const struct array *payload,
			 int error)
{
	struct engine_call call = ask(service, payload->data, payload->size);

	assert_int_equal(call.error, error);
	end(&call);
}

/* Each cut, and with something behind it. Leaves @payload as it was. */
static void check_refused(unsigned service, struct array *payload)
{
	size_t size = payload->size, cut;
	unsigned before = hooked;

	put_bytes(payload, "x", 1);
	for (cut = 0; cut <= size + 1; cut++) {
		if (cut == size)
			continue;
		payload->size = cut;
		check_answer(service, payload, -EPROTO);
	}
	payload->size = size;
	assert_int_equal(hooked, before);
}

/* ---- payloads, as the services write them --------------------------------- */

static void put_string(struct array *out, const char *text)
{
	put_bytes(out, text, strlen(text) + 1);
}

static struct array make_list(uint32_t of, const char *at, const char *after)
{
	struct array out = { .data = NULL };

	put_u32(&out, of);
	put_string(&out, at);
	put_string(&out, after);
	return out;
}

static struct array make_path(const char *at)
{
	struct array out = { .data = NULL };

	put_string(&out, at);
	return out;
}

struct range {
	const char *path;
	struct pin pin;
	uint64_t offset;
	uint32_t size, exact;
};

static struct array make_range(const struct range *range)
{
	struct array out = { .data = NULL };

	put_u64(&out, 0);	/* it is not kept */
	put_bytes(&out, &range->pin, sizeof(range->pin));
	put_u64(&out, range->offset);
	put_u32(&out, range->size);
	put_u32(&out, range->exact);
	put_string(&out, range->path);
	return out;
}

static struct array make_catalog(const char *at, uint64_t kept)
{
	struct array out = { .data = NULL };

	put_u64(&out, 5);	/* signature */
	put_u64(&out, 6);	/* offset */
	put_u64(&out, kept);
	put_string(&out, at);
	return out;
}

static struct array make_learn(const char *at)
{
	struct array out = { .data = NULL };

	put_u64(&out, 3);
	put_u64(&out, 4);
	put_string(&out, at);
	return out;
}

struct pieces {
	uint32_t said, ndim;		/* pieces, axes */
	unsigned count;			/* of pieces that are there */
	uint64_t has_pin;
	const uint64_t *sizes;		/* of each */
};

static struct array make_pieces(const struct pieces *pieces)
{
	const struct pin pin = { .inode = 7 };
	struct array out = { .data = NULL };
	unsigned i, j;

	for (i = 1; i <= 4; i++)
		put_u64(&out, i);	/* id, entry */
	put_u32(&out, pieces->said);
	put_u32(&out, pieces->ndim);
	for (i = 0; i < pieces->count; i++) {
		put_u64(&out, i);
		put_u64(&out, pieces->has_pin);
		if (pieces->has_pin == 1)
			put_bytes(&out, &pin, sizeof(pin));
		for (j = 0; j < pieces->ndim; j++)
			put_u64(&out, UINT64_MAX);
		for (j = 0; j < pieces->ndim; j++)
			put_u64(&out, pieces->sizes[j]);
	}
	return out;
}

/* ---- good ones, and parts of them ----------------------------------------- */

static void lists(void **state)
{
	struct array payload = make_list(PEERS_OWN, "a", "");
	struct engine_call call = ask(SERVICE_LIST, payload.data,
				      payload.size);
	struct stored stored;
	size_t position = 0;

	(void)state;
	assert_int_equal(call.error, 0);
	assert_true(stored_entry_next(call.data, call.got, &position,
				      &stored));
	assert_int_equal(stored.entry.pin.size, 7);
	assert_int_equal(position, call.got);
	end(&call);
	check_refused(SERVICE_LIST, &payload);
	array_finish(&payload);
	payload = make_list(PEERS_OWN, "a", "b");
	call = ask(SERVICE_LIST, payload.data, payload.size);
	assert_int_equal(call.error, 0);
	assert_int_equal(call.got, 0);
	end(&call);
	array_finish(&payload);
}

static void statuses(void **state)
{
	struct array payload = make_path("a/b");

	(void)state;
	check_answer(SERVICE_STATUS, &payload, 0);
	check_refused(SERVICE_STATUS, &payload);
	array_finish(&payload);
	payload = make_path("a/c");
	check_answer(SERVICE_STATUS, &payload, -ENOENT);
	array_finish(&payload);
}

static void files(void **state)
{
	const struct range range = { .path = "a/b", .offset = 3, .size = 9 };
	struct array payload = make_range(&range);
	struct engine_call call = ask(SERVICE_FILE, payload.data,
				      payload.size);

	(void)state;
	assert_int_equal(call.error, 0);
	assert_int_equal(call.got, 4);
	assert_memory_equal(call.data, "tent", 4);
	end(&call);
	assert_int_equal(counters.reads[COUNTERS_SERVED].bytes, 4);
	check_refused(SERVICE_FILE, &payload);
	check_refused(SERVICE_DIGEST, &payload);
	array_finish(&payload);
}

static void catalogs(void **state)
{
	struct array payload = make_catalog("a/b", 1);

	(void)state;
	hook_error = -EBADMSG;
	check_answer(SERVICE_CATALOG, &payload, -EBADMSG);
	assert_string_equal(path, "a/b");
	assert_int_equal(wanted.signature, 5);
	assert_true(wanted.kept);
	check_refused(SERVICE_CATALOG, &payload);
	array_finish(&payload);
	payload = make_catalog("", 0);
	check_answer(SERVICE_CATALOG, &payload, -EBADMSG);
	assert_false(wanted.kept);
	array_finish(&payload);
	payload = make_catalog("", 2);
	check_answer(SERVICE_CATALOG, &payload, -EPROTO);
	array_finish(&payload);
}

static void lessons(void **state)
{
	struct array payload = make_learn("a/b");

	(void)state;
	hook_error = -ENODATA;
	check_answer(SERVICE_LEARN, &payload, -ESTALE);
	assert_string_equal(path, "a/b");
	assert_int_equal(id.hash[0], 3);
	assert_int_equal(id.hash[1], 4);
	assert_true(id.folder == catalog_folder_id("a/b"));
	check_refused(SERVICE_LEARN, &payload);
	array_finish(&payload);
}

static void shards(void **state)
{
	const uint64_t sizes[] = { 1, 1 };
	const struct pieces pieces = { 3, 2, 3, 1, sizes };
	struct array payload = make_pieces(&pieces);

	(void)state;
	hook_error = -ENODATA;
	check_answer(SERVICE_PIECES, &payload, -ENODATA);
	assert_int_equal(id.hash[0], 1);
	assert_int_equal(id.folder, 3);
	check_refused(SERVICE_PIECES, &payload);
	array_finish(&payload);
}

/* As they are asked for. */
static void as_many_pieces_as_fit(void **state)
{
	static const unsigned ndims[] = { 0, 1, 5, LIMIT_NDIM };
	const struct catalog_id asked = { .hash = { 11, 12 }, .folder = 14 };
	struct pieces_wire pieces;
	unsigned i, j, count;

	(void)state;
	hook_error = -ENODATA;
	for (i = 0; i < COUNT_OF(ndims); i++) {
		struct piece piece = { .shard = 1 };
		struct pin pin = { .inode = 9 };
		struct engine_call call;

		for (j = 0; j < ndims[i]; j++)
			piece.count[j] = 1 + j % 2;
		service_pieces_begin(&pieces, &asked, 13, ndims[i]);
		for (count = 0; service_pieces_add(&pieces, &piece, &pin);
		     count++)
			/* Each second one is of another file. */
			pin.inode += count % 2;
		assert_in_range(count, 8, LIMIT_PIECES);
		call = ask(SERVICE_PIECES, pieces.wire.data, pieces.wire.size);
		assert_int_equal(call.error, -ENODATA);
		assert_memory_equal(&id, &asked, sizeof(id));
		end(&call);
	}
}

/* ---- what nobody would write ---------------------------------------------- */

/* @at in a request of each service that has a path. */
static void check_path(const char *at, bool good)
{
	const struct range range = { .path = at, .size = 1 };
	const struct {
		unsigned service;
		struct array payload;
	} all[] = {
		{ SERVICE_STATUS, make_path(at) },
		{ SERVICE_LIST, make_list(PEERS_OWN, at, "") },
		{ SERVICE_FILE, make_range(&range) },
		{ SERVICE_DIGEST, make_range(&range) },
		{ SERVICE_CATALOG, make_catalog(at, 0) },
		{ SERVICE_LEARN, make_learn(at) },
	};
	unsigned i;

	for (i = 0; i < COUNT_OF(all); i++) {
		struct engine_call call = ask(all[i].service,
					      all[i].payload.data,
					      all[i].payload.size);

		assert_int_equal(call.error != -EPROTO, good);
		end(&call);
		free(all[i].payload.data);
	}
}

static void paths(void **state)
{
	static const char *const good[] = {
		"", "a", "a/b", "...", "..a", "a..", ".a/.b", "a b/\xff",
		"a/b/c/d/e/f",
	}, *const bad[] = {
		"/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b",
		"./a", "a/.", "a/./b", "//",
	};
	char name[300];
	unsigned i;

	(void)state;
	hook_error = -ENODATA;
	for (i = 0; i < COUNT_OF(good); i++)
		check_path(good[i], true);
	for (i = 0; i < COUNT_OF(bad); i++)
		check_path(bad[i], false);
	memset(name, 'x', sizeof(name));
	name[256] = '\0';
	check_path(name, false);
	name[255] = '\0';
	check_path(name, true);
}

static void longest_paths(void **state)
{
	char at[LIMIT_PATH_SIZE + 2];
	unsigned i;

	(void)state;
	hook_error = -ENODATA;
	/* Names of 255 bytes, up to the limit. */
	for (i = 0; i < sizeof(at); i++)
		at[i] = i % 256 == 255 ? '/' : 'x';
	at[LIMIT_PATH_SIZE - 1] = '\0';
	check_path(at, true);
	at[LIMIT_PATH_SIZE - 1] = 'x';
	at[LIMIT_PATH_SIZE + 1] = '\0';
	check_path(at, false);
}

/* Nor is one of 256 bytes a name to go on behind. */
static void long_names(void **state)
{
	char name[257];
	struct array payload;

	(void)state;
	memset(name, 'x', sizeof(name));
	name[256] = '\0';
	payload = make_list(PEERS_OWN, "a", name);
	check_answer(SERVICE_LIST, &payload, -EPROTO);
	array_finish(&payload);
	payload = make_list(PEERS_OWN, "a", name + 1);
	check_answer(SERVICE_LIST, &payload, 0);
	array_finish(&payload);
}

static void ranges(void **state)
{
	static const struct {
		uint64_t offset;
		uint32_t size, exact;
		bool good;
	} cases[] = {
		{ 0, LIMIT_READ_SIZE, 0, true },
		{ 0, LIMIT_READ_SIZE + 1, 0, false },
		{ INT64_MAX - LIMIT_READ_SIZE, LIMIT_READ_SIZE, 0, true },
		{ INT64_MAX - LIMIT_READ_SIZE + 1, 0, 0, false },
		{ UINT64_MAX, 1, 0, false },
		{ 0, 1, 1, true }, { 0, 1, 2, false },
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(cases); i++) {
		const struct range range = {
			.path = "a/b", .offset = cases[i].offset,
			.size = cases[i].size, .exact = cases[i].exact,
		};
		struct array payload = make_range(&range);

		check_answer(SERVICE_FILE, &payload,
			     cases[i].good ? 0 : -EPROTO);
		check_answer(SERVICE_DIGEST, &payload,
			     cases[i].good ? 0 : -EPROTO);
		array_finish(&payload);
	}
}

static void check_pieces(const struct pieces *pieces, bool good)
{
	struct array payload = make_pieces(pieces);

	check_answer(SERVICE_PIECES, &payload, good ? -ENODATA : -EPROTO);
	array_finish(&payload);
}

static void counts_of_pieces(void **state)
{
	uint64_t sizes[LIMIT_NDIM + 1];
	const struct {
		struct pieces pieces;
		bool good;
	} cases[] = {
		{ { 1, LIMIT_NDIM, 1, 1, sizes }, true },
		{ { LIMIT_PIECES, 1, LIMIT_PIECES, 0, sizes }, true },
		{ { 1, 0, 1, 1, sizes }, true },
		{ { 1, 1, 1, 2, sizes }, false },
		{ { 0, 1, 0, 0, sizes }, false },
		{ { LIMIT_PIECES + 1, 1, LIMIT_PIECES + 1, 0, sizes }, false },
		{ { UINT32_MAX, 1, 2, 0, sizes }, false },
		{ { 1, LIMIT_NDIM + 1, 1, 0, sizes }, false },
		{ { 1, UINT32_MAX, 0, 0, sizes }, false },
		{ { 2, 1, 1, 0, sizes }, false },
		{ { 1, 1, 2, 0, sizes }, false },
	};
	unsigned i;

	(void)state;
	hook_error = -ENODATA;
	for (i = 0; i <= LIMIT_NDIM; i++)
		sizes[i] = 1;
	for (i = 0; i < COUNT_OF(cases); i++)
		check_pieces(&cases[i].pieces, cases[i].good);
}

static void volumes(void **state)
{
	static const struct {
		uint64_t sizes[3];
		bool good;
	} cases[] = {
		{ { 1, 1, 1 }, true },
		{ { LIMIT_READ_SIZE, 1, 1 }, true },
		{ { LIMIT_READ_SIZE + 1, 1, 1 }, false },
		{ { 1024, 1024, 2 }, false },
		{ { 0, 1, 1 }, false },
		{ { 1, 1, 0 }, false },
		{ { UINT64_MAX, 1, 1 }, false },
		/* Their product is 0, or small, without what overflows. */
		{ { UINT64_C(1) << 32, UINT64_C(1) << 32, 1 }, false },
		{ { 2, UINT64_C(1) << 63, 1 }, false },
		{ { 3, 1, UINT64_C(0xaaaaaaaaaaaaaaab) }, false },
	};
	unsigned i;

	(void)state;
	hook_error = -ENODATA;
	for (i = 0; i < COUNT_OF(cases); i++) {
		const struct pieces pieces = { 1, 3, 1, 0, cases[i].sizes };

		check_pieces(&pieces, cases[i].good);
	}
}

static void payloads_of_noise(void **state)
{
	struct dice dice = { 17 };
	unsigned char noise[200];
	unsigned i;

	(void)state;
	for (i = 0; i < 500; i++) {
		size_t size = dice_below(&dice, sizeof(noise)), j;
		struct engine_call call;

		for (j = 0; j < size; j++)
			noise[j] = (unsigned char)dice_any(&dice);
		call = ask(1 + i % (SERVICE_COUNT - 1), noise, size);
		assert_int_equal(call.error, -EPROTO);
		end(&call);
	}
	assert_int_equal(hooked, 0);
}

/* Nobody waits for it any more: no work is done for it. */
static void a_request_that_is_too_late(void **state)
{
	const struct timespec later = { 0, 200000000 };
	struct array payload = make_catalog("a", 0);
	struct engine_call call;

	(void)state;
	ranks_hold(&ranks, 1, true);
	call = ask_timed(SERVICE_CATALOG, payload.data, payload.size, 60);
	assert_int_equal(engine_wait(ranks.rank[0].engine, &call), -EIO);
	/* Its time began later where it was received. */
	nanosleep(&later, NULL);
	ranks_hold(&ranks, 1, false);
	end(&call);
	/* The answer, that it is too late, frees the slot. */
	ranks_await_free(&ranks, 0);
	assert_int_equal(hooked, 0);
	array_finish(&payload);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(lists),
		TEST(statuses),
		TEST(files),
		TEST(catalogs),
		TEST(lessons),
		TEST(shards),
		TEST(as_many_pieces_as_fit),
		TEST(paths),
		TEST(longest_paths),
		TEST(long_names),
		TEST(ranges),
		TEST(counts_of_pieces),
		TEST(volumes),
		TEST(payloads_of_noise),
		TEST(a_request_that_is_too_late),
	};

	return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
