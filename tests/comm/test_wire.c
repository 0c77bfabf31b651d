/* SPDX-License-Identifier: Apache-2.0 */
/* What is put into payloads, and what is not. */
#include "support/test.h"
#include "support/clients.h"

#include "comm/wire.h"

#include <errno.h>
#include <string.h>

static void there_and_back(void **state)
{
	struct wire wire = { .size = 0 };
	struct wire_reader reader;
	char text[8], path[LIMIT_PATH_SIZE + 1];
	uint64_t number = UINT64_MAX - 7, got;

	(void)state;
	assert_int_equal(wire_put(&wire, &number, sizeof(number)), 0);
	assert_int_equal(wire_put_text(&wire, "seven.."), 0);
	assert_int_equal(wire_put_text(&wire, ""), 0);
	assert_int_equal(wire_put_text(&wire, "a/b"), 0);
	reader = (struct wire_reader){ wire.data, wire.size };
	assert_true(wire_get(&reader, &got, sizeof(got)));
	assert_true(got == number);
	assert_true(wire_get_text(&reader, text, sizeof(text)));
	assert_string_equal(text, "seven..");
	assert_true(wire_get_text(&reader, text, sizeof(text)));
	assert_string_equal(text, "");
	assert_true(wire_get_path(&reader, path));
	assert_string_equal(path, "a/b");
	assert_int_equal(reader.left, 0);
	assert_false(wire_get(&reader, &got, 1));
	assert_false(wire_get_text(&reader, text, sizeof(text)));
}

static void texts_that_do_not_fit(void **state)
{
	struct wire_reader reader = { (const unsigned char *)"eight...", 9 };
	char text[8];

	(void)state;
	assert_false(wire_get_text(&reader, text, sizeof(text)));
	assert_int_equal(reader.left, 9);
	/* Nor one without an end. */
	reader.left = 7;
	assert_false(wire_get_text(&reader, text, sizeof(text)));
	assert_int_equal(reader.left, 7);
}

static void more_than_a_payload(void **state)
{
	static char text[2 * MESSAGE_SIZE_MAX];
	struct wire wire = { .size = 0 };

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(wire_put_text(&wire, text), -ENAMETOOLONG);
	text[MESSAGE_PAYLOAD_MAX - 1] = '\0';
	assert_int_equal(wire_put_text(&wire, text), 0);
	assert_int_equal(wire.size, MESSAGE_PAYLOAD_MAX);
	assert_int_equal(wire_put(&wire, "", 1), -ENAMETOOLONG);
	assert_int_equal(wire_put(&wire, "", 0), 0);
}

/* Whoever asks for a path that no request holds is told so. */
static void paths_that_do_not_fit(void **state)
{
	static const handler handlers[SERVICE_COUNT];
	static char path[2 * MESSAGE_SIZE_MAX];
	const struct file_range range = { .path = path };
	struct array out = { .data = NULL };
	struct peer_list list = { .rank = 0, .out = &out };
	struct peers *peers = peers_of(1);
	uint64_t hash[2];
	size_t got;

	(void)state;
	memset(path, 'x', sizeof(path) - 1);
	clients_start(2, handlers);
	assert_int_equal(peers->status(peers, 0, path, &out), -ENAMETOOLONG);
	assert_int_equal(peers->file(peers, 0, &range, NULL, &got),
			 -ENAMETOOLONG);
	assert_int_equal(peers->digest(peers, 0, &range, hash), -ENAMETOOLONG);
	peers->list(peers, PEERS_OWN, path, &list, 1);
	assert_int_equal(list.error, -ENAMETOOLONG);
	clients_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(texts_that_do_not_fit),
		cmocka_unit_test(more_than_a_payload),
		cmocka_unit_test(paths_that_do_not_fit),
	};

	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
