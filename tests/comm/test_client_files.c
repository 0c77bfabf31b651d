/* SPDX-License-Identifier: Apache-2.0 */
/* Lists, files and digests of another rank, and what it may say that must not
 * be believed. */
#include "support/test.h"
#include "support/clients.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- lists --------------------------------------------------------------- */

static struct array listed;		/* whole */
static bool repeats;			/* as if nothing came before */

static int serve_list(struct served *one, struct service_request *request)
{
	char path[LIMIT_PATH_SIZE + 1], after[256];
	size_t position = 0, begin = 0, end;
	struct stored stored;
	uint32_t of;

	(void)one;
	handlers_read(request, &of, sizeof(of), path, after);
	if (of != PEERS_OWN)
		return -ENODATA;
	if (strcmp(path, "missing") == 0)
		return -ENOENT;
	while (!repeats && stored_entry_next(listed.data, listed.size,
					     &position, &stored)) {
		char name[256] = "";

		memcpy(name, stored.name, stored.entry.name_size);
		if (strcmp(name, after) > 0)
			break;
		begin = position;
	}
	position = end = begin;
	while (stored_entry_next(listed.data, listed.size, &position,
				 &stored) &&
	       position - begin <= LIMIT_READ_SIZE)
		end = position;
	if (end > begin)
		memcpy(request->room, listed.data + begin, end - begin);
	request->size = end - begin;
	return 0;
}

static int serve_status(struct served *one, struct service_request *request)
{
	char path[LIMIT_PATH_SIZE + 1];

	(void)one;
	handlers_read(request, NULL, 0, path, NULL);
	if (strcmp(path, "missing") == 0)
		return -ENOENT;
	memcpy(request->room, listed.data, listed.size);
	request->size = listed.size;
	return 0;
}

static void add_entry(const char *name, size_t target_size)
{
	const struct stat status = { .st_mode = S_IFLNK | 0777, .st_ino = 5 };
	char target[4096];

	memset(target, 't', sizeof(target));
	assert_int_equal(stored_entry_append(&listed, name, &status, target,
					     target_size), 0);
}

static void start_lists(void)
{
	static const handler handlers[SERVICE_COUNT] = {
		[SERVICE_LIST] = serve_list, [SERVICE_STATUS] = serve_status,
	};

	listed.size = 0;
	repeats = false;
	clients_start(2, handlers);
}

static int get_list(const char *path, struct array *out)
{
	struct peer_list list = { .rank = 0, .timeout_ms = 5000, .out = out };

	*out = (struct array){ .data = NULL };
	peers_of(1)->list(peers_of(1), PEERS_OWN, path,
			  &list, 1);
	return list.error;
}

static void lists_of_any_length(void **state)
{
	struct array out;
	char name[64];
	unsigned i;

	(void)state;
	start_lists();
	assert_int_equal(get_list("folder", &out), 0);
	assert_int_equal(out.size, 0);
	for (i = 0; i < 700; i++) {
		snprintf(name, sizeof(name), "name%04u", i);
		add_entry(name, 4095);
		if (i != 0 && i != 250 && i != 699)
			continue;
		assert_int_equal(get_list("folder", &out), 0);
		assert_int_equal(out.size, listed.size);
		assert_memory_equal(out.data, listed.data, out.size);
		array_finish(&out);
	}
	assert_true(listed.size > 2 * LIMIT_READ_SIZE);
	assert_int_equal(get_list("missing", &out), -ENOENT);
	assert_int_equal(out.size, 0);
	clients_stop();
	array_finish(&listed);
}

static void lists_of_liars(void **state)
{
	struct array out;

	(void)state;
	start_lists();
	add_entry("a", 0);
	add_entry("b", 10);
	/* It would never end. */
	repeats = true;
	assert_int_equal(get_list("folder", &out), -EPROTO);
	array_finish(&out);
	/* Its last part is cut. */
	raw_data = listed.data;
	raw_size = listed.size - 1;
	assert_int_equal(get_list("folder", &out), -EPROTO);
	array_finish(&out);
	raw_size = 1;
	assert_int_equal(get_list("folder", &out), -EPROTO);
	array_finish(&out);
	clients_stop();
	array_finish(&listed);
}

static void statuses(void **state)
{
	struct peers *peers = peers_of(1);
	struct array out = { .data = NULL };

	(void)state;
	start_lists();
	add_entry("a", 3);
	assert_int_equal(peers->status(peers, 0, "a", &out), 0);
	assert_int_equal(out.size, listed.size);
	assert_memory_equal(out.data, listed.data, out.size);
	assert_int_equal(peers->status(peers, 0, "missing", &out), -ENOENT);
	/* One is asked for. */
	add_entry("b", 3);
	assert_int_equal(peers->status(peers, 0, "a", &out), -EPROTO);
	raw_data = "";
	raw_size = 0;
	assert_int_equal(peers->status(peers, 0, "a", &out), -EPROTO);
	clients_ready = false;
	assert_int_equal(peers->status(peers, 0, "a", &out), -ESHUTDOWN);
	clients_stop();
	array_finish(&out);
	array_finish(&listed);
}

/* ---- files --------------------------------------------------------------- */

struct file_head {
	uint64_t hold;
	struct pin pin;
	uint64_t offset;
	uint32_t size, exact;
};

static int serve_file(struct served *one, struct service_request *request)
{
	char path[LIMIT_PATH_SIZE + 1];
	struct file_head head;

	(void)one;
	handlers_read(request, &head, sizeof(head), path, NULL);
	if (head.offset >= 1000)
		return -ESTALE;
	request->size = head.size < 1000 - head.offset ? head.size :
							  1000 - head.offset;
	memset(request->room, 'f', request->size);
	return 0;
}

static int serve_digest(struct served *one, struct service_request *request)
{
	char path[LIMIT_PATH_SIZE + 1];
	struct file_head head;
	uint64_t hash[2];

	(void)one;
	handlers_read(request, &head, sizeof(head), path, NULL);
	hash[0] = head.pin.inode;
	hash[1] = head.pin.size;
	memcpy(request->room, hash, sizeof(hash));
	request->size = sizeof(hash);
	return head.exact ? 0 : -ESTALE;
}

static void files(void **state)
{
	static const handler handlers[SERVICE_COUNT] = {
		[SERVICE_FILE] = serve_file, [SERVICE_DIGEST] = serve_digest,
	};
	struct file_range range = {
		.path = "a", .pin = { .inode = 5, .size = 6 }, .exact = true,
		.size = 10,
	};
	struct peers *peers = peers_of(1);
	char buffer[11] = "unchanged!";
	uint64_t hash[2] = { 0 };
	size_t size = 99;

	(void)state;
	clients_start(2, handlers);
	assert_int_equal(peers->digest(peers, 0, &range, hash), 0);
	assert_int_equal(hash[0], 5);
	assert_int_equal(hash[1], 6);
	range.exact = false;
	assert_int_equal(peers->digest(peers, 0, &range, hash), -ESTALE);
	range.offset = 1000;
	assert_int_equal(peers->file(peers, 0, &range, buffer, &size),
			 -ESTALE);
	/* More than there is room for. */
	raw_data = "more than ten bytes";
	raw_size = 11;
	assert_int_equal(peers->file(peers, 0, &range, buffer, &size),
			 -EPROTO);
	assert_int_equal(peers->digest(peers, 0, &range, hash), -EPROTO);
	raw_data = NULL;
	assert_string_equal(buffer, "unchanged!");
	assert_int_equal(size, 99);
	range.offset = 995;
	assert_int_equal(peers->file(peers, 0, &range, buffer, &size), 0);
	assert_int_equal(size, 5);
	assert_string_equal(buffer, "fffffnged!");
	clients_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_of_any_length),
		cmocka_unit_test(lists_of_liars),
		cmocka_unit_test(statuses),
		cmocka_unit_test(files),
	};

	return cmocka_run_group_tests_name("client_files", tests, NULL, NULL);
}
