/* SPDX-License-Identifier: Apache-2.0 */
/* Catalogs that come down the tree, and what ranks may say of them that must
 * not be believed. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/clients.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = RANKS_MAX, SIGNATURE = 77, TENSORS = 20000 };

static struct catalog *original;

/* What each has of the catalog; guarded by the lock of its served. */
static struct catalog *catalogs[RANKS];
static int catalog_error[RANKS];

struct catalog_head {
	uint64_t signature, offset, kept;
};

/* Whoever has none asks those above. */
static int find_catalog(struct served *one, const struct catalog_wanted *wanted)
{
	unsigned rank = rank_of(one);
	struct peers *peers = peers_of(rank);
	int error = catalog_error[rank];

	if (wanted->signature != SIGNATURE ||
	    strcmp(wanted->path, "folder") != 0)
		return -ESTALE;
	pthread_mutex_lock(&one->lock);
	if (!error && !catalogs[rank] && wanted->kept)
		error = -ESTALE;
	else if (!error && !catalogs[rank])
		error = peers->catalog(peers, wanted, &catalogs[rank]);
	pthread_mutex_unlock(&one->lock);
	return error;
}

static int serve_catalog(struct served *one, struct service_request *request)
{
	char path[LIMIT_PATH_SIZE + 1];
	struct catalog_wanted wanted;
	struct catalog_head head;
	struct catalog *catalog;
	uint64_t size;
	int error;

	handlers_read(request, &head, sizeof(head), path, NULL);
	wanted = (struct catalog_wanted){ path, head.signature, head.kept };
	error = find_catalog(one, &wanted);
	if (error)
		return error;
	catalog = catalogs[rank_of(one)];
	size = LIMIT_READ_SIZE - sizeof(size);
	if (size > catalog->size - head.offset)
		size = catalog->size - head.offset;
	memcpy(request->room, &catalog->size, sizeof(size));
	memcpy(request->room + sizeof(size), (char *)catalog + head.offset,
	       size);
	request->size = sizeof(size) + size;
	return 0;
}

static void start_tree(void)
{
	static const handler handlers[SERVICE_COUNT] = {
		[SERVICE_CATALOG] = serve_catalog,
	};

	memset(catalogs, 0, sizeof(catalogs));
	memset(catalog_error, 0, sizeof(catalog_error));
	clients_start(RANKS, handlers);
	catalogs[0] = original;
}

static void stop_tree(void)
{
	unsigned i;

	clients_stop();
	for (i = 0; i < RANKS; i++)
		if (catalogs[i] != original)
			catalog_put(catalogs[i]);
}

static int fetch(unsigned rank, struct catalog **ret_catalog)
{
	const struct catalog_wanted wanted = { "folder", SIGNATURE, false };

	*ret_catalog = NULL;
	return peers_of(rank)->catalog(peers_of(rank), &wanted, ret_catalog);
}

static void check_fetch(unsigned rank)
{
	struct catalog *catalog;

	assert_int_equal(fetch(rank, &catalog), 0);
	assert_int_equal(catalog->size, original->size);
	assert_memory_equal(catalog, original, original->size);
	catalog_put(catalog);
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

	ranks_stop(&clients_ranks, gone);
	for (i = 0; i < RANKS; i++)
		if (clients_ranks.rank[i].running)
			ranks_await_state(&clients_ranks, i, gone, PEER_LEFT);
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
	stop_tree();
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
	stop_tree();
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
	stop_tree();
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
	/* It is not what was sent that is bad. */
	catalog_error[0] = -EBADMSG;
	assert_int_equal(fetch(7, &catalog), -EBADMSG);
	stop_tree();
}

/* The builder cannot read the markers: who has it already? */
static void from_who_has_it(void **state)
{
	const struct catalog_wanted wanted = { "folder", SIGNATURE, true };
	struct peers *peers;
	struct catalog *catalog = NULL;

	(void)state;
	start_tree();
	peers = peers_of(0);
	/* This one's own is not asked for. */
	assert_int_equal(peers->catalog(peers, &wanted, &catalog), -ESTALE);
	assert_null(catalog);
	assert_int_equal(find_asked(), 0xfe);
	catalogs[4] = catalogs[6] = original;
	leave(3);
	find_asked();
	assert_int_equal(peers->catalog(peers, &wanted, &catalog), 0);
	assert_memory_equal(catalog, original, original->size);
	assert_int_equal(find_asked(), 1 << 1 | 1 << 2 | 1 << 4);
	catalog_put(catalog);
	stop_tree();
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
	catalog_put(catalog);
	stop_tree();
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
	catalog_put(original);
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
	};

	return cmocka_run_group_tests_name("client", tests, make_original,
					   free_original);
}
