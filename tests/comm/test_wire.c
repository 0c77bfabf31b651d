/* SPDX-License-Identifier: Apache-2.0 */
/* Payloads, there and back, and those that nobody would write. */
#include "support/test.h"
#include "support/put.h"

#include "comm/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct wire wire;
static struct wire_request got;

/* Exactly as large as it is, so that a sanitizer sees a read behind it. */
static int read_bytes(enum message_service service, const void *data,
		      size_t size)
{
	unsigned char *copy = malloc(size + (size == 0));
	int error;

	assert_non_null(copy);
	if (size > 0)
		memcpy(copy, data, size);
	error = wire_read(service, copy, size, &got);
	free(copy);
	return error;
}

static int read_wire(enum message_service service)
{
	return read_bytes(service, wire.data, wire.size);
}

/* Good as it is, and bad with less or more of it. */
static void check_whole(enum message_service service)
{
	size_t size;

	assert_int_equal(read_wire(service), 0);
	for (size = 0; size < wire.size; size++)
		assert_int_equal(read_bytes(service, wire.data, size),
				 -EPROTO);
	wire.data[wire.size] = '\0';
	assert_int_equal(read_bytes(service, wire.data, wire.size + 1),
			 -EPROTO);
	assert_int_equal(read_wire(service), 0);
}

/* ---- there and back ------------------------------------------------------ */

static void paths(void **state)
{
	static const char *const good[] = {
		"", "a", "a/b", "...", "..a", "a..", ".a/.b", "a b/\xff",
		"a/b/c/d/e/f",
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(good); i++) {
		assert_int_equal(wire_path(&wire, good[i]), 0);
		check_whole(SERVICE_STATUS);
		assert_string_equal(got.path, good[i]);
	}
}

static void lists(void **state)
{
	(void)state;
	assert_int_equal(wire_list(&wire, PEERS_OWN, "a/b", ""), 0);
	check_whole(SERVICE_LIST);
	assert_string_equal(got.path, "a/b");
	assert_string_equal(got.after, "");
	assert_int_equal(got.of, PEERS_OWN);
	assert_int_equal(wire_list(&wire, 7, "", "file"), 0);
	check_whole(SERVICE_LIST);
	assert_int_equal(got.of, 7);
	assert_string_equal(got.after, "file");
}

static void files(void **state)
{
	const struct file_range range = {
		.path = "a/b", .pin = { 1, 2, 3, -4, 5 }, .exact = true,
		.offset = INT64_MAX - LIMIT_READ_SIZE,
		.size = LIMIT_READ_SIZE,
	};

	(void)state;
	assert_int_equal(wire_file(&wire, &range), 0);
	check_whole(SERVICE_FILE);
	check_whole(SERVICE_DIGEST);
	assert_string_equal(got.file.path, "a/b");
	assert_true(pin_equal(&got.file.pin, &range.pin));
	assert_true(got.file.exact);
	assert_int_equal(got.file.offset, range.offset);
	assert_int_equal(got.file.size, range.size);
}

static void catalogs(void **state)
{
	const struct catalog_part part = {
		.wanted = { "x", UINT64_MAX, true }, .offset = 1,
	};
	const uint64_t hash[2] = { 5, UINT64_MAX };

	(void)state;
	assert_int_equal(wire_catalog(&wire, &part), 0);
	check_whole(SERVICE_CATALOG);
	assert_string_equal(got.part.wanted.path, "x");
	assert_int_equal(got.part.wanted.signature, UINT64_MAX);
	assert_int_equal(got.part.offset, 1);
	assert_true(got.part.wanted.kept);
	assert_int_equal(wire_learn(&wire, "y", hash), 0);
	check_whole(SERVICE_LEARN);
	assert_string_equal(got.path, "y");
	assert_memory_equal(got.hash, hash, sizeof(hash));
}

static struct piece make_piece(unsigned ndim, uint64_t first)
{
	struct piece piece = { .shard = first, .target = 99 };
	unsigned i;

	for (i = 0; i < ndim; i++) {
		piece.offset[i] = first + i;
		piece.count[i] = 1 + i % 2;
	}
	return piece;
}

static void check_pieces(unsigned ndim, unsigned count)
{
	const struct catalog_id id = { .hash = { 11, 12 }, .folder = 14 };
	unsigned i;

	wire_pieces(&wire, &id, 13, ndim);
	for (i = 0; i < count; i++) {
		struct piece piece = make_piece(ndim, i);

		assert_true(wire_add_piece(&wire, &piece, 100 + i));
	}
	check_whole(SERVICE_PIECES);
	assert_memory_equal(&got.pieces.id, &id, sizeof(id));
	assert_int_equal(got.pieces.entry, 13);
	assert_int_equal(got.pieces.ndim, ndim);
	assert_int_equal(got.pieces.count, count);
	for (i = 0; i < count; i++) {
		struct piece piece = make_piece(ndim, i);

		/* Not told: who is asked needs none. */
		piece.target = 0;
		assert_memory_equal(&got.pieces.pieces[i], &piece,
				    sizeof(piece));
		assert_int_equal(got.pieces.pins[i], 100 + i);
	}
}

static void pieces(void **state)
{
	(void)state;
	check_pieces(0, 1);
	check_pieces(1, LIMIT_PIECES);
	check_pieces(5, 3);
	/* 2^16 elements; as many as there is room for. */
	check_pieces(LIMIT_NDIM, 1);
}

static void more_pieces_than_fit(void **state)
{
	const struct catalog_id id = { .folder = 0 };
	struct piece piece = make_piece(LIMIT_NDIM, 0);
	unsigned count = 0;

	(void)state;
	wire_pieces(&wire, &id, 0, LIMIT_NDIM);
	while (wire_add_piece(&wire, &piece, 0))
		count++;
	assert_in_range(count, 8, LIMIT_PIECES);
	assert_true(wire.size <= MESSAGE_PAYLOAD_MAX);
	assert_int_equal(read_wire(SERVICE_PIECES), 0);
	assert_int_equal(got.pieces.count, count);
	wire_pieces(&wire, &id, 0, 1);
	for (count = 0; wire_add_piece(&wire, &piece, 0); count++)
		;
	assert_int_equal(count, LIMIT_PIECES);
	assert_int_equal(read_wire(SERVICE_PIECES), 0);
}

static void longest_paths(void **state)
{
	const struct file_range range = { .path = "" };
	char path[2 * MESSAGE_SIZE_MAX];
	unsigned i;

	(void)state;
	/* Names of 255 bytes, up to the limit. */
	for (i = 0; i < sizeof(path) - 1; i++)
		path[i] = i % 256 == 255 ? '/' : 'x';
	path[LIMIT_PATH_SIZE - 1] = '\0';
	assert_int_equal(wire_path(&wire, path), 0);
	assert_int_equal(read_wire(SERVICE_STATUS), 0);
	assert_string_equal(got.path, path);
	path[LIMIT_PATH_SIZE - 1] = 'x';
	path[LIMIT_PATH_SIZE + 1] = '\0';
	assert_int_equal(wire_path(&wire, path), 0);
	assert_int_equal(read_wire(SERVICE_STATUS), -EPROTO);
	path[LIMIT_PATH_SIZE + 1] = 'x';
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(wire_path(&wire, path), -ENAMETOOLONG);
	assert_int_equal(wire_list(&wire, PEERS_OWN, "", path), -ENAMETOOLONG);
	path[MESSAGE_PAYLOAD_MAX - 1] = '\0';
	assert_int_equal(wire_path(&wire, path), 0);
	assert_int_equal(wire_list(&wire, PEERS_OWN, path, ""), -ENAMETOOLONG);
	assert_int_equal(wire_file(&wire, &(struct file_range){
				   .path = path, .pin = range.pin }),
			 -ENAMETOOLONG);
}

/* ---- what nobody would write --------------------------------------------- */

static void bad_paths(void **state)
{
	static const char *const bad[] = {
		"/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b",
		"./a", "a/.", "a/./b", "//",
	};
	const uint64_t hash[2] = { 0, 0 };
	char name[300];
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(bad); i++) {
		const struct file_range range = { .path = bad[i] };
		const struct catalog_part part = {
			.wanted.path = bad[i],
		};

		assert_int_equal(wire_path(&wire, bad[i]), 0);
		assert_int_equal(read_wire(SERVICE_STATUS), -EPROTO);
		assert_int_equal(wire_list(&wire, PEERS_OWN, bad[i], ""), 0);
		assert_int_equal(read_wire(SERVICE_LIST), -EPROTO);
		assert_int_equal(wire_file(&wire, &range), 0);
		assert_int_equal(read_wire(SERVICE_FILE), -EPROTO);
		assert_int_equal(read_wire(SERVICE_DIGEST), -EPROTO);
		assert_int_equal(wire_catalog(&wire, &part), 0);
		assert_int_equal(read_wire(SERVICE_CATALOG), -EPROTO);
		assert_int_equal(wire_learn(&wire, bad[i], hash), 0);
		assert_int_equal(read_wire(SERVICE_LEARN), -EPROTO);
	}
	memset(name, 'x', sizeof(name));
	name[256] = '\0';
	assert_int_equal(wire_path(&wire, name), 0);
	assert_int_equal(read_wire(SERVICE_STATUS), -EPROTO);
	/* Nor is one of 256 bytes a name to go on behind. */
	assert_int_equal(wire_list(&wire, PEERS_OWN, "", name), 0);
	assert_int_equal(read_wire(SERVICE_LIST), -EPROTO);
	name[255] = '\0';
	assert_int_equal(wire_list(&wire, PEERS_OWN, name, name), 0);
	assert_int_equal(read_wire(SERVICE_LIST), 0);
}

static void bad_ranges(void **state)
{
	struct file_range range = { .path = "a",
				    .size = LIMIT_READ_SIZE + 1 };

	(void)state;
	assert_int_equal(wire_file(&wire, &range), 0);
	assert_int_equal(read_wire(SERVICE_FILE), -EPROTO);
	range.size = LIMIT_READ_SIZE;
	range.offset = INT64_MAX - LIMIT_READ_SIZE + 1;
	assert_int_equal(wire_file(&wire, &range), 0);
	assert_int_equal(read_wire(SERVICE_FILE), -EPROTO);
	range.offset = UINT64_MAX;
	assert_int_equal(wire_file(&wire, &range), 0);
	assert_int_equal(read_wire(SERVICE_DIGEST), -EPROTO);
	range.offset = 0;
	assert_int_equal(wire_file(&wire, &range), 0);
	/* A bool is 0 or 1: the last of the numbers. */
	wire.data[wire.size - 3] = 2;
	assert_int_equal(read_wire(SERVICE_FILE), -EPROTO);
}

/* As wire_pieces and wire_add_piece would write it. */
static int read_pieces(uint32_t said, uint32_t ndim, unsigned count,
		       const uint64_t *sizes)
{
	struct array out = { .data = NULL };
	unsigned i, j;
	int error;

	put_u64(&out, 1);
	put_u64(&out, 2);
	put_u64(&out, 3);
	put_u64(&out, 4);
	put_u32(&out, said);
	put_u32(&out, ndim);
	for (i = 0; i < count; i++) {
		put_u64(&out, 0);
		put_u64(&out, 0);
		for (j = 0; j < ndim; j++)
			put_u64(&out, UINT64_MAX);
		for (j = 0; j < ndim; j++)
			put_u64(&out, sizes[j]);
	}
	error = read_bytes(SERVICE_PIECES, out.data, out.size);
	array_finish(&out);
	return error;
}

static void bad_pieces(void **state)
{
	uint64_t sizes[LIMIT_NDIM + 1];
	unsigned i;

	(void)state;
	for (i = 0; i <= LIMIT_NDIM; i++)
		sizes[i] = 1;
	assert_int_equal(read_pieces(1, LIMIT_NDIM, 1, sizes), 0);
	assert_int_equal(read_pieces(LIMIT_PIECES, 1, LIMIT_PIECES, sizes),
			 0);
	assert_int_equal(read_pieces(0, 1, 0, sizes), -EPROTO);
	assert_int_equal(read_pieces(LIMIT_PIECES + 1, 1, LIMIT_PIECES + 1,
				     sizes), -EPROTO);
	assert_int_equal(read_pieces(UINT32_MAX, 1, 2, sizes), -EPROTO);
	assert_int_equal(read_pieces(1, LIMIT_NDIM + 1, 1, sizes), -EPROTO);
	assert_int_equal(read_pieces(1, UINT32_MAX, 0, sizes), -EPROTO);
	assert_int_equal(read_pieces(2, 1, 1, sizes), -EPROTO);
	assert_int_equal(read_pieces(1, 1, 2, sizes), -EPROTO);
}

static void bad_volumes(void **state)
{
	static const struct {
		uint64_t sizes[3];
		int error;
	} cases[] = {
		{ { 1, 1, 1 }, 0 },
		{ { LIMIT_READ_SIZE, 1, 1 }, 0 },
		{ { LIMIT_READ_SIZE + 1, 1, 1 }, -EPROTO },
		{ { 1024, 1024, 2 }, -EPROTO },
		{ { 0, 1, 1 }, -EPROTO },
		{ { 1, 1, 0 }, -EPROTO },
		{ { UINT64_MAX, 1, 1 }, -EPROTO },
		/* Their product is 0, or small, without what overflows. */
		{ { UINT64_C(1) << 32, UINT64_C(1) << 32, 1 }, -EPROTO },
		{ { 2, UINT64_C(1) << 63, 1 }, -EPROTO },
		{ { 3, 1, UINT64_C(0xaaaaaaaaaaaaaaab) }, -EPROTO },
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(cases); i++)
		assert_int_equal(read_pieces(1, 3, 1, cases[i].sizes),
				 cases[i].error);
}

static void services_that_there_are_not(void **state)
{
	(void)state;
	assert_int_equal(wire_path(&wire, ""), 0);
	assert_int_equal(read_wire((enum message_service)0), -EPROTO);
	assert_int_equal(read_wire(SERVICE_COUNT), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths),
		cmocka_unit_test(lists),
		cmocka_unit_test(files),
		cmocka_unit_test(catalogs),
		cmocka_unit_test(pieces),
		cmocka_unit_test(more_pieces_than_fit),
		cmocka_unit_test(longest_paths),
		cmocka_unit_test(bad_paths),
		cmocka_unit_test(bad_ranges),
		cmocka_unit_test(bad_pieces),
		cmocka_unit_test(bad_volumes),
		cmocka_unit_test(services_that_there_are_not),
	};

	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
