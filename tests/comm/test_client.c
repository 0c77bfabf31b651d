/* SPDX-License-Identifier: Apache-2.0 */
/* What struct peers offers, and what ranks may say that it must not believe. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/handlers.h"

#include "comm/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = RANKS_MAX, SIGNATURE = 77, TENSORS = 20000 };

static struct ranks ranks;
static struct client clients[RANKS];
static struct served served[RANKS];
static struct catalog *original;

/* When it is set, rank 0 answers with these bytes whatever it is asked. */
static const void *raw_data;
static size_t raw_size;

/* ---- ranks --------------------------------------------------------------- */

/* What each has of the catalog; guarded by the lock of its served. */
static struct catalog *catalogs[RANKS];
static int catalog_error[RANKS];

static unsigned rank_of(const void *context)
{
	return (unsigned)((const struct served *)context - served);
}

static bool is_ready_now;

static int wait_ready(struct peers *p)
{
	(void)p;
	return is_ready_now ? 0 : -ESHUTDOWN;
}

/* Whoever has none asks those above. */
static int serve_catalog(void *context, const struct catalog_part *part,
			 void *buffer, size_t size, size_t *ret_size,
			 uint64_t *ret_total)
{
	unsigned rank = rank_of(context);
	struct peers *peers = &clients[rank].peers;
	int error = catalog_error[rank];

	if (part->signature != SIGNATURE || strcmp(part->path, "folder") != 0)
		return -ESTALE;
	pthread_mutex_lock(&served[rank].lock);
	if (!error && !catalogs[rank] && part->kept)
		error = -ESTALE;
	else if (!error && !catalogs[rank])
		error = peers->catalog(peers, part, &catalogs[rank]);
	pthread_mutex_unlock(&served[rank].lock);
	if (error)
		return error;
	*ret_total = catalogs[rank]->size;
	if (size > *ret_total - part->offset)
		size = *ret_total - part->offset;
	memcpy(buffer, (char *)catalogs[rank] + part->offset, size);
	*ret_size = size;
	return 0;
}

static void work(void *context, struct rank *rank,
		 struct engine_request *request)
{
	void *room;

	if (rank->rank != 0 || !raw_data) {
		handlers_work(context, rank, request);
		return;
	}
	room = engine_room(request);
	assert_non_null(room);
	memcpy(room, raw_data, raw_size);
	engine_answer(request, 0, raw_size);
}

static void start(unsigned count, const struct peer_handlers *handlers)
{
	const struct ranks_options options = {
		.count = count, .deadline_ms = 10000,
		.workers = RANKS_WORKERS, .work = work, .context = served,
	};
	unsigned i;

	raw_data = NULL;
	is_ready_now = true;
	for (i = 0; i < count; i++) {
		handlers_init(&served[i], handlers);
		served[i].handlers.context = &served[i];
		catalogs[i] = NULL;
		catalog_error[i] = 0;
		assert_int_equal(client_init(&clients[i], i, count), 0);
		clients[i].peers.wait_ready = wait_ready;
	}
	ranks_start(&ranks, &options);
	for (i = 0; i < count; i++)
		clients[i].engine = ranks.rank[i].engine;
}

static void stop(void)
{
	unsigned count = ranks.options.count, i;

	ranks_finish(&ranks);
	for (i = 0; i < count; i++) {
		handlers_finish(&served[i]);
		if (catalogs[i] != original)
			free(catalogs[i]);
		/* It is gone already. */
		clients[i].engine = NULL;
		client_finish(&clients[i]);
	}
}

static struct peers *peers_of(unsigned rank)
{
	return &clients[rank].peers;
}

/* ---- catalogs ------------------------------------------------------------ */

static void start_tree(void)
{
	const struct peer_handlers handlers = { .catalog = serve_catalog };

	start(RANKS, &handlers);
	catalogs[0] = original;
}

static int fetch(unsigned rank, struct catalog **ret_catalog)
{
	const struct catalog_part part = {
		.path = "folder", .signature = SIGNATURE,
	};

	*ret_catalog = NULL;
	return peers_of(rank)->catalog(peers_of(rank), &part, ret_catalog);
}

static void check_fetch(unsigned rank)
{
	struct catalog *catalog;

	assert_int_equal(fetch(rank, &catalog), 0);
	assert_int_equal(catalog->size, original->size);
	assert_memory_equal(catalog, original, original->size);
	free(catalog);
}

/* A bit for each rank that was asked. */
static unsigned find_asked(void)
{
	unsigned i, asked = 0;

	for (i = 0; i < RANKS; i++) {
		pthread_mutex_lock(&served[i].lock);
		asked |= (served[i].count > 0) << i;
		served[i].count = 0;
		pthread_mutex_unlock(&served[i].lock);
	}
	return asked;
}

static void leave(unsigned gone)
{
	unsigned i;

	ranks_stop(&ranks, gone);
	for (i = 0; i < RANKS; i++)
		if (ranks.rank[i].running)
			ranks_await_state(&ranks, i, gone, PEER_LEFT);
}

static void down_the_tree(void **state)
{
	struct catalog *catalog;

	(void)state;
	start_tree();
	assert_true(original->size > 2 * LIMIT_READ_SIZE);
	check_fetch(7);
	assert_int_equal(find_asked(), 1 << 6 | 1 << 4 | 1 << 0);
	/* Those have it now. */
	check_fetch(5);
	assert_int_equal(find_asked(), 1 << 4);
	check_fetch(3);
	assert_int_equal(find_asked(), 1 << 2 | 1 << 0);
	check_fetch(1);
	assert_int_equal(find_asked(), 1 << 0);
	assert_true(peers_of(0)->is_builder(peers_of(0)));
	assert_false(peers_of(1)->is_builder(peers_of(1)));
	assert_int_equal(fetch(0, &catalog), -EAGAIN);
	stop();
}

static void a_parent_that_is_gone(void **state)
{
	(void)state;
	start_tree();
	leave(6);
	check_fetch(7);
	assert_int_equal(find_asked(), 1 << 4 | 1 << 0);
	leave(4);
	check_fetch(7);
	assert_int_equal(find_asked(), 1 << 0);
	stop();
}

static void a_builder_that_is_gone(void **state)
{
	struct catalog *catalog;

	(void)state;
	start_tree();
	leave(0);
	catalogs[1] = original;
	assert_true(peers_of(1)->is_builder(peers_of(1)));
	assert_false(peers_of(2)->is_builder(peers_of(2)));
	assert_int_equal(fetch(1, &catalog), -EAGAIN);
	check_fetch(7);
	assert_int_equal(find_asked(), 1 << 6 | 1 << 4 | 1 << 1);
	leave(1);
	leave(2);
	leave(3);
	leave(4);
	leave(5);
	leave(6);
	assert_true(peers_of(7)->is_builder(peers_of(7)));
	assert_int_equal(fetch(7, &catalog), -EAGAIN);
	stop();
}

/* What one above has not got, or not yet, the builder has. */
static void a_parent_that_refuses(void **state)
{
	struct catalog *catalog;

	(void)state;
	start_tree();
	catalog_error[6] = -ESTALE;
	check_fetch(7);
	assert_int_equal(find_asked(), 1 << 6 | 1 << 0);
	catalog_error[0] = -ESTALE;
	assert_int_equal(fetch(7, &catalog), -ESTALE);
	assert_null(catalog);
	catalog_error[0] = -EBADMSG;
	assert_int_equal(fetch(7, &catalog), -EPROTO);
	stop();
}

/* The builder cannot read the markers: who has it already? */
static void from_who_has_it(void **state)
{
	const struct catalog_part part = {
		.path = "folder", .signature = SIGNATURE, .kept = true,
	};
	struct peers *peers;
	struct catalog *catalog = NULL;

	(void)state;
	start_tree();
	peers = peers_of(0);
	/* This one's own is not asked for. */
	assert_int_equal(peers->catalog(peers, &part, &catalog), -ESTALE);
	assert_null(catalog);
	assert_int_equal(find_asked(), 0xfe);
	catalogs[4] = catalogs[6] = original;
	leave(3);
	find_asked();
	assert_int_equal(peers->catalog(peers, &part, &catalog), 0);
	assert_memory_equal(catalog, original, original->size);
	assert_int_equal(find_asked(), 1 << 1 | 1 << 2 | 1 << 4);
	free(catalog);
	stop();
}

/* Rank 0 says that all has @total bytes, and gives @size of them. */
static void check_answer(const void *bytes, size_t size, uint64_t total)
{
	unsigned char *answer = malloc(sizeof(total) + size);
	struct catalog *catalog;

	assert_non_null(answer);
	memcpy(answer, &total, sizeof(total));
	memcpy(answer + sizeof(total), bytes, size);
	raw_size = sizeof(total) + size;
	raw_data = answer;
	assert_int_equal(fetch(1, &catalog), -EPROTO);
	assert_null(catalog);
	raw_data = NULL;
	free(answer);
}

static void catalogs_of_liars(void **state)
{
	const struct box box = BOX1(0, 4);
	struct catalog_builder *builder;
	struct dice dice = { 5 };
	struct catalog *catalog;
	unsigned char *bytes;
	struct notes notes;
	unsigned i;

	(void)state;
	builder = catalog_out_create(&notes);
	catalog_out_begin(builder, "w", DTYPE_F32, &box);
	catalog_out_shard(builder, box, "a", 0, 16);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	start_tree();
	bytes = (unsigned char *)catalog;
	check_answer(bytes, 0, 0);
	check_answer(bytes, 0, catalog->size);
	check_answer(bytes, 1, 1);
	check_answer(bytes, sizeof(*catalog), sizeof(*catalog));
	check_answer(bytes, catalog->size, catalog->size - 1);
	check_answer(bytes, catalog->size - 8, catalog->size - 8);
	/* It is all said again, and does not fit. */
	check_answer(bytes, catalog->size, catalog->size + 8);
	check_answer(bytes, catalog->size, UINT64_MAX);
	check_answer(bytes, catalog->size, 2 * LIMIT_METADATA_SIZE + 1);
	for (i = 0; i < 200; i++) {
		/* What the hash is of. */
		size_t at = catalog->entries + dice_below(&dice,
			catalog->tensor_slots - catalog->entries);
		unsigned char flip = (unsigned char)
			(1u << dice_below(&dice, 8));

		bytes[at] ^= flip;
		check_answer(bytes, catalog->size, catalog->size);
		bytes[at] ^= flip;
	}
	free(catalog);
	stop();
}

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
	start(2, &handlers);
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
	stop();
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
	stop();
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
	is_ready_now = false;
	assert_int_equal(peers->status(peers, 0, "a", &out), -ESHUTDOWN);
	stop();
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
	start(2, &handlers);
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
	stop();
}

static int make_original(void **state)
{
	const struct box box = BOX1(0, 4);
	struct catalog_builder *builder;
	static struct notes notes;
	char name[64];
	unsigned i;

	(void)state;
	builder = catalog_out_create(&notes);
	for (i = 0; i < TENSORS; i++) {
		snprintf(name, sizeof(name), "model.layers.%u.weight", i);
		catalog_out_begin(builder, name, DTYPE_F32, &box);
		catalog_out_shard(builder, box, "a", 16 * i, 16);
		catalog_out_end(builder);
	}
	original = catalog_out_finish(builder);
	return 0;
}

static int free_original(void **state)
{
	(void)state;
	free(original);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(down_the_tree),
		cmocka_unit_test(a_parent_that_is_gone),
		cmocka_unit_test(a_builder_that_is_gone),
		cmocka_unit_test(a_parent_that_refuses),
		cmocka_unit_test(from_who_has_it),
		cmocka_unit_test(catalogs_of_liars),
		cmocka_unit_test(lists_of_any_length),
		cmocka_unit_test(lists_of_liars),
		cmocka_unit_test(statuses),
		cmocka_unit_test(files),
	};

	return cmocka_run_group_tests_name("client", tests, make_original,
					   free_original);
}
