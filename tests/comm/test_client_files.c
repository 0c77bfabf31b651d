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

static int serve_list(void *context, uint32_t of, const char *path,
		      const char *after, void *buffer, size_t size,
		      size_t *ret_size)
{
	size_t position = 0, begin = 0, end;
	struct stored stored;

	(void)context;
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
				 &stored) && position - begin <= size)
		end = position;
	if (end > begin)
		memcpy(buffer, listed.data + begin, end - begin);
	*ret_size = end - begin;
	return 0;
}

static int serve_status(void *context, const char *path, struct array *out)
{
	(void)context;
	return strcmp(path, "missing") == 0 ? -ENOENT :
	       array_append(out, listed.data, listed.size);
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
	const struct peer_handlers handlers = { .list = serve_list,
						.status = serve_status };

	listed.size = 0;
	repeats = false;
	clients_start(2, &handlers);
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

static int serve_file(void *context, const struct file_range *range,
		      void *buffer, size_t *ret_size)
{
	(void)context;
	if (range->offset >= 1000)
		return -ESTALE;
	*ret_size = range->size < 1000 - range->offset ?
		    range->size : 1000 - range->offset;
	memset(buffer, 'f', *ret_size);
	return 0;
}

static int serve_digest(void *context, const struct file_range *range,
			uint64_t ret_hash[2])
{
	(void)context;
	ret_hash[0] = range->pin.inode;
	ret_hash[1] = range->pin.size;
	return range->exact ? 0 : -ESTALE;
}

static void files(void **state)
{
	const struct peer_handlers handlers = { .file = serve_file,
						.digest = serve_digest };
	struct file_range range = {
		.path = "a", .pin = { .inode = 5, .size = 6 }, .exact = true,
		.size = 10,
	};
	struct peers *peers = peers_of(1);
	char buffer[11] = "unchanged!";
	uint64_t hash[2] = { 0 };
	size_t size = 99;

	(void)state;
	clients_start(2, &handlers);
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
