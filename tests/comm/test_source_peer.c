/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads whose shards are on three ranks, against the bytes they were made of.
 * All files are in one folder, but each rank opens only its own: rank 0, which
 * reads, asks the others for the rest.
 */
#include "support/test.h"
#include "support/handlers.h"
#include "support/store.h"

#include "comm/source_peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 3, SLOTS = 96 };

static struct dice dice;
static struct ranks ranks;
static struct served served[RANKS];
static struct store store;
static struct peers peers;
static int stores[RANKS];
static uint32_t owners[STORE_FILES + 1];
static atomic_bool stale;
static struct source *source;

/* What the others do. */
static atomic_bool knows[RANKS];	/* the catalog */
static atomic_bool learns;		/* when it is told to */
static atomic_uint lessons;
static atomic_int read_error, learn_error;
static atomic_uint cut;			/* bytes missing from answers */
static atomic_bool spoils;		/* what a later part overlaps */

/* ---- the others ---------------------------------------------------------- */

static int read_piece(const struct piece *wanted, struct reply *reply)
{
	const struct catalog_entry *entry = catalog_entry(store.catalog, 0);
	struct source *local = source_file_source(store.source);
	struct box dense = { .ndim = entry->ndim };
	struct piece piece = *wanted;
	struct plan plan;

	memcpy(dense.size, piece.count, sizeof(dense.size));
	memset(dense.offset, 0, sizeof(dense.offset));
	plan_init(&plan, store.catalog, entry, &dense, 0, 0);
	return local->read(local, &plan, &piece, 1, reply);
}

/* Elements of @piece that are another part's: no part may say anything there
 * but the last. */
static void spoil(const struct piece *piece, unsigned char *bytes)
{
	struct box dense = { .ndim = store.world.shape.ndim };
	uint64_t element = dtype_info(store.world.dtype)->size, j;
	uint64_t at[LIMIT_NDIM] = { 0 }, where[LIMIT_NDIM];
	const struct box *part = &store.world.parts[piece->shard];
	unsigned i;

	memcpy(dense.size, piece->count, sizeof(dense.size));
	do {
		for (i = 0; i < dense.ndim; i++)
			where[i] = part->offset[i] + piece->offset[i] + at[i];
		for (j = 0; j < element; j++, bytes++)
			if (world_owner(&store.world, where) !=
			    (int)piece->shard)
				*bytes ^= 0xff;
	} while (world_step(&dense, at));
}

static int pieces(void *context, const struct piece_request *request,
		  struct reply *reply, size_t *ret_size)
{
	unsigned rank = (unsigned)((struct served *)context - served), i, j;
	const struct catalog_entry *entry = catalog_entry(store.catalog, 0);
	uint64_t size = 0;
	int error = atomic_load(&read_error);

	if (!atomic_load(&knows[rank]))
		return -ENODATA;
	if (memcmp(request->id.hash, store.catalog->hash, 16) != 0 ||
	    request->entry != 0 || request->ndim != entry->ndim)
		return -EINVAL;
	reply->copy = true;
	reply_begin(reply, REPLY_SIZE_MAX);
	for (i = 0; i < request->count && !error; i++) {
		const struct piece *piece = &request->pieces[i];
		uint32_t file = catalog_shard(store.catalog, entry,
					      piece->shard)->file;
		uint64_t bytes = dtype_info(entry->dtype)->size;

		if (owners[file] != rank ||
		    pin_hash(&store.pins[file]) != request->pins[i])
			return -ESTALE;
		for (j = 0; j < entry->ndim; j++)
			bytes *= piece->count[j];
		reply->base = size;
		error = read_piece(piece, reply);
		if (!error && atomic_load(&spoils))
			spoil(piece, reply_buffer(reply) + size);
		size += bytes;
	}
	*ret_size = size - atomic_load(&cut);
	return error;
}

static int learn(void *context, const char *path, const uint64_t hash[2])
{
	unsigned rank = (unsigned)((struct served *)context - served);

	if (strcmp(path, "folder") != 0 ||
	    memcmp(hash, store.catalog->hash, 16) != 0)
		return -EINVAL;
	atomic_fetch_add(&lessons, 1);
	if (atomic_load(&learns))
		atomic_store(&knows[rank], true);
	return atomic_load(&learn_error);
}

/* ---- life ---------------------------------------------------------------- */

static int start(void **state)
{
	const struct peer_handlers handlers = { .pieces = pieces,
						.learn = learn };
	const struct ranks_options options = {
		.count = RANKS, .deadline_ms = 10000,
		.workers = RANKS_WORKERS, .work = handlers_work,
		.context = served, .seed = dice_any(&dice),
	};
	const struct fake_faults slow = { .delay_us = 200 };
	unsigned i;

	(void)state;
	for (i = 0; i < RANKS; i++) {
		handlers_init(&served[i], &handlers);
		served[i].handlers.context = &served[i];
		stores[i] = -1;
	}
	ranks_start(&ranks, &options);
	fake_net_set_faults(ranks.net, &slow);
	peers = (struct peers){ .count = RANKS, .stores = stores };
	return 0;
}

static int stop(void **state)
{
	unsigned i;

	(void)state;
	ranks_finish(&ranks);
	for (i = 0; i < RANKS; i++)
		handlers_finish(&served[i]);
	return 0;
}

/* A store for @world, and a source of rank 0; each file belongs to @owner, or
 * to any rank. */
static void open_store(const struct world *world, bool plain, int owner)
{
	struct peer_files files;
	unsigned i;

	store_make(&store, world, plain, &dice);
	for (i = 0; i <= STORE_FILES; i++)
		owners[i] = owner >= 0 ? (uint32_t)owner :
				(uint32_t)dice_below(&dice, RANKS);
	stores[0] = store.folder.fd;
	files = (struct peer_files){
		.path = "folder", .catalog = store.catalog, .ranks = owners,
		.pins = store.pins, .stale = &stale,
	};
	atomic_store(&stale, false);
	atomic_store(&read_error, 0);
	atomic_store(&learn_error, 0);
	atomic_store(&cut, 0);
	atomic_store(&spoils, false);
	atomic_store(&learns, true);
	atomic_store(&lessons, 0);
	for (i = 0; i < RANKS; i++)
		atomic_store(&knows[i], true);
	source = source_peer_create(ranks.rank[0].engine, &peers, &files,
				    source_file_source(store.source));
	assert_non_null(source);
}

static void close_store(void)
{
	reply_release(store.reply);
	source->destroy(source);
	ranks_await_free(&ranks, 0);
	store_free(&store);
}

static int read_into(struct reply *reply, const struct box *selection,
		     uint64_t offset, uint64_t size)
{
	const struct transfer transfer = {
		.source = source, .catalog = store.catalog,
		.entry = catalog_entry(store.catalog, 0),
		.selection = selection ? selection : &store.world.shape,
		.offset = offset, .size = size,
	};

	return transfer_read(&transfer, reply);
}

static int read_range(uint64_t offset, uint64_t size)
{
	return read_into(store.reply, NULL, offset, size);
}

/* Rows of 4 KiB, @rows to a part. */
static struct world rows_world(unsigned parts, unsigned rows)
{
	struct world world = { .dtype = DTYPE_F32, .part_count = parts };
	unsigned i;

	world.shape = BOX2(0, 0, parts * rows, 1024);
	for (i = 0; i < parts; i++)
		world.parts[i] = BOX2(rows * i, 0, rows, 1024);
	return world;
}

/* ---- right bytes --------------------------------------------------------- */

static bool is_right(struct reply *reply, const struct box *selection,
		     uint64_t offset, uint64_t size)
{
	unsigned char *expected = malloc(size + 1), *found = malloc(size + 1);
	struct store mine = store;
	bool right;

	assert_true(expected && found);
	mine.reply = reply;
	right = store_expect(&store, selection, offset, size, expected);
	if (right) {
		store_copy(&mine, found);
		right = memcmp(found, expected, size) == 0;
	}
	free(expected);
	free(found);
	return right;
}

static bool has_hole(const struct box *selection, uint64_t offset,
		     uint64_t size)
{
	unsigned char *expected = malloc(size + 1);
	bool whole;

	assert_non_null(expected);
	whole = store_expect(&store, selection, offset, size, expected);
	free(expected);
	return !whole;
}

/* False: something is wrong. */
static bool check_random_range(struct dice *d, struct reply *reply)
{
	uint64_t element = dtype_info(store.world.dtype)->size;
	uint64_t whole, offset, size;
	struct box selection;
	bool right;
	int error;

	world_pick(d, &store.world.shape, &selection);
	whole = box_volume(&selection) * element;
	offset = dice_below(d, whole + 1);
	size = dice_below(d, whole - offset + 1);
	if (size == 0)
		offset -= offset % element;
	if (size > LIMIT_READ_SIZE)
		size = LIMIT_READ_SIZE;
	reply->copy = dice_chance(d, 20);
	error = read_into(reply, &selection, offset, size);
	right = has_hole(&selection, offset, size) ? error == -EIO :
		error == 0 && is_right(reply, &selection, offset, size);
	reply_release(reply);
	return right;
}

static void check_worlds(const struct world_limits *limits, unsigned worlds,
			 unsigned ranges)
{
	struct world world;
	unsigned i;

	while (worlds-- > 0) {
		world_make(&world, limits, &dice);
		open_store(&world, dice_chance(&dice, 50), -1);
		for (i = 0; i < ranges; i++)
			assert_true(check_random_range(&dice, store.reply));
		close_store();
	}
}

static void small_tensors(void **state)
{
	const struct world_limits limits = {
		.ndim = 6, .volume = 300, .holes = 10, .overlaps = 20,
	};

	(void)state;
	check_worlds(&limits, 30, 8);
}

static void large_tensors(void **state)
{
	const struct world_limits limits = {
		.ndim = 3, .volume = 100000, .holes = 10, .overlaps = 20,
	};

	(void)state;
	check_worlds(&limits, 6, 5);
}

/* What the kernel gets is what has arrived. */
static void long_runs_are_borrowed(void **state)
{
	struct world world = rows_world(4, 16);
	struct engine_counters counters;

	(void)state;
	open_store(&world, true, 1);
	assert_int_equal(read_range(0, store.size), 0);
	assert_null(store.reply->buffer);
	assert_int_equal(store.reply->hold_count, 1);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	engine_count(ranks.rank[0].engine, &counters);
	assert_int_equal(counters.slots, 1);
	reply_release(store.reply);
	ranks_await_free(&ranks, 0);
	/* Our own code will touch them. */
	store.reply->copy = true;
	assert_int_equal(read_range(0, store.size), 0);
	assert_int_equal(store.reply->hold_count, 0);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	ranks_await_free(&ranks, 0);
	close_store();
}

/* Columns of 512 bytes. */
static void short_runs_are_copied(void **state)
{
	struct world world = { .dtype = DTYPE_F32, .part_count = 8 };
	unsigned i;

	(void)state;
	world.shape = BOX2(0, 0, 64, 1024);
	for (i = 0; i < 8; i++)
		world.parts[i] = BOX2(0, 128 * i, 64, 128);
	open_store(&world, true, 1);
	assert_int_equal(read_range(0, store.size), 0);
	assert_int_equal(store.reply->hold_count, 0);
	assert_int_equal(store.reply->iov_count, 1);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	close_store();
}

/* The later part counts, whoever has it. */
static void overlaps_in_their_order(void **state)
{
	struct world world = { .dtype = DTYPE_F32, .part_count = 3 };
	unsigned i;

	(void)state;
	world.shape = BOX2(0, 0, 64, 1024);
	world.parts[0] = BOX2(0, 0, 64, 1024);
	world.parts[1] = BOX2(16, 0, 32, 1024);
	world.parts[2] = BOX2(24, 256, 8, 512);
	for (i = 0; i < 20; i++) {
		open_store(&world, true, -1);
		atomic_store(&spoils, true);
		assert_int_equal(read_range(0, store.size), 0);
		assert_true(is_right(store.reply, NULL, 0, store.size));
		close_store();
	}
}

struct reader {
	pthread_t thread;
	struct dice dice;
	bool right;
};

static void *run_reader(void *argument)
{
	struct reader *reader = argument;
	struct reply *reply = reply_create();
	unsigned i;

	reader->right = reply != NULL;
	for (i = 0; i < 15 && reader->right; i++)
		reader->right = check_random_range(&reader->dice, reply);
	reply_destroy(reply);
	return NULL;
}

static void many_threads(void **state)
{
	const struct world_limits limits = { .ndim = 3, .volume = 30000,
					     .overlaps = 20 };
	struct reader readers[6];
	struct world world;
	unsigned i;

	(void)state;
	world_make(&world, &limits, &dice);
	open_store(&world, true, -1);
	/* Only some know it yet. */
	atomic_store(&knows[1], false);
	for (i = 0; i < COUNT_OF(readers); i++) {
		readers[i].dice.state = dice_any(&dice);
		assert_int_equal(pthread_create(&readers[i].thread, NULL,
						run_reader, &readers[i]), 0);
	}
	for (i = 0; i < COUNT_OF(readers); i++) {
		assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
		assert_true(readers[i].right);
	}
	close_store();
}

/* ---- no bytes ------------------------------------------------------------ */

static void who_must_not_wait(void **state)
{
	struct world world = rows_world(4, 16);

	(void)state;
	open_store(&world, true, 2);
	store.reply->nowait = true;
	assert_int_equal(read_range(0, 4096), -EAGAIN);
	assert_int_equal(store.reply->lane, peers_read_lane(2));
	store.reply->nowait = false;
	assert_int_equal(read_range(0, 4096), 0);
	close_store();
}

static void a_dead_rank(void **state)
{
	struct world world = rows_world(4, 16);
	uint64_t began;

	(void)state;
	open_store(&world, true, 1);
	ranks_stop(&ranks, 1);
	ranks_await_state(&ranks, 0, 1, PEER_LEFT);
	began = ranks_now_ms();
	assert_int_equal(read_range(0, 4096), -EIO);
	store.reply->nowait = true;
	assert_int_equal(read_range(0, 4096), -EIO);
	assert_true(ranks_now_ms() - began < 1000);
	store.reply->nowait = false;
	close_store();
	/* All that others have is there. */
	open_store(&world, true, 2);
	assert_int_equal(read_range(0, store.size), 0);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	close_store();
	open_store(&world, true, 0);
	assert_int_equal(read_range(0, store.size), 0);
	close_store();
}

static void who_does_not_know_the_catalog(void **state)
{
	struct world world = rows_world(4, 16);

	(void)state;
	open_store(&world, true, 1);
	atomic_store(&knows[1], false);
	assert_int_equal(read_range(0, store.size), 0);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	assert_int_equal(atomic_load(&lessons), 1);
	assert_int_equal(read_range(0, store.size), 0);
	assert_int_equal(atomic_load(&lessons), 1);
	/* It does not help: once, not for ever. */
	atomic_store(&knows[1], false);
	atomic_store(&learns, false);
	assert_int_equal(read_range(0, store.size), -ESTALE);
	assert_int_equal(atomic_load(&lessons), 2);
	assert_true(atomic_load(&stale));
	/* It has another one. */
	atomic_store(&stale, false);
	atomic_store(&learn_error, -ESTALE);
	assert_int_equal(read_range(0, store.size), -ESTALE);
	assert_true(atomic_load(&stale));
	close_store();
}

/* Rank 1 has the first part and rank 2 some of the others; neither has looked.
 * Whom the next reads will ask is told to while the first one is read. */
static void who_will_be_asked_next(void **state)
{
	struct world world = rows_world(40, 1);
	const struct catalog_entry *entry;

	(void)state;
	open_store(&world, true, 2);
	entry = catalog_entry(store.catalog, 0);
	owners[catalog_shard(store.catalog, entry, 0)->file] = 1;
	atomic_store(&knows[1], false);
	atomic_store(&knows[2], false);
	assert_int_equal(read_range(0, 4096), 0);
	assert_true(is_right(store.reply, NULL, 0, 4096));
	/* Each once; its slot is free when it has been answered. */
	reply_release(store.reply);
	ranks_await_free(&ranks, 0);
	assert_int_equal(atomic_load(&lessons), 2);
	assert_true(atomic_load(&knows[2]));
	assert_int_equal(read_range(0, store.size), 0);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	assert_int_equal(atomic_load(&lessons), 2);
	/* And not again. */
	atomic_store(&knows[1], false);
	assert_int_equal(read_range(0, store.size), 0);
	reply_release(store.reply);
	ranks_await_free(&ranks, 0);
	assert_int_equal(atomic_load(&lessons), 3);
	close_store();
}

static void errors_of_ranks(void **state)
{
	static const struct {
		int theirs, ours;
		bool stale;
	} cases[] = {
		{ -EIO, -EIO, false }, { -EINVAL, -EIO, false },
		{ -EAGAIN, -EIO, false }, { -EACCES, -EIO, false },
		{ -ENOMEM, -ENOMEM, false },
		{ -EOPNOTSUPP, -EOPNOTSUPP, false },
		{ -ESTALE, -ESTALE, true },
	};
	struct world world = rows_world(4, 16);
	unsigned i;

	(void)state;
	open_store(&world, true, 1);
	for (i = 0; i < COUNT_OF(cases); i++) {
		atomic_store(&read_error, cases[i].theirs);
		assert_int_equal(read_range(0, store.size), cases[i].ours);
		assert_int_equal(atomic_load(&stale), cases[i].stale);
		assert_int_equal(store.reply->hold_count, 0);
	}
	atomic_store(&read_error, 0);
	atomic_store(&cut, 1);
	assert_int_equal(read_range(0, store.size), -EIO);
	close_store();
}

/* Its owner has put another one in its place. */
static void a_file_that_is_another(void **state)
{
	struct world world = rows_world(4, 16);
	const struct pin none = { .inode = 0 };

	(void)state;
	open_store(&world, true, 1);
	store.pins[0].size++;
	assert_int_equal(read_range(0, store.size), -ESTALE);
	assert_true(atomic_load(&stale));
	close_store();
	/* Nobody had it: it is for the source below to say so. */
	open_store(&world, true, 1);
	store.pins[0] = none;
	assert_int_equal(read_range(0, store.size), -EIO);
	close_store();
}

/* ---- slots --------------------------------------------------------------- */

static struct engine_call hogs[SLOTS];

/* All slots but @left wait for rank 2. */
static void hog_slots(unsigned left)
{
	unsigned i;

	ranks_hold(&ranks, 2, true);
	for (i = 0; i < SLOTS - left; i++) {
		hogs[i] = (struct engine_call){
			.rank = 2, .service = SERVICE_LEARN, .payload = "",
			.patient = true,
		};
		assert_int_equal(engine_begin(ranks.rank[0].engine, &hogs[i],
					      1, true), 0);
	}
}

static void free_hogs(unsigned left)
{
	unsigned i;

	for (i = 0; i < SLOTS - left; i++)
		engine_end(ranks.rank[0].engine, &hogs[i]);
	ranks_hold(&ranks, 2, false);
}

/* Who borrows slots does not wait for more: it copies, with one. */
static void one_slot_is_left(void **state)
{
	struct world world = rows_world(40, 1);

	(void)state;
	open_store(&world, true, 1);
	hog_slots(1);
	assert_int_equal(read_range(0, store.size), 0);
	assert_true(is_right(store.reply, NULL, 0, store.size));
	assert_int_equal(store.reply->hold_count, 0);
	/* What needs only one borrows it. */
	assert_int_equal(read_range(0, 4096), 0);
	assert_int_equal(store.reply->hold_count, 1);
	reply_release(store.reply);
	free_hogs(1);
	/* And if there are more, nothing is copied. */
	ranks_await_free(&ranks, 0);
	assert_int_equal(read_range(0, store.size), 0);
	assert_int_equal(store.reply->hold_count, 3);
	close_store();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(small_tensors),
		TEST(large_tensors),
		TEST(long_runs_are_borrowed),
		TEST(short_runs_are_copied),
		TEST(overlaps_in_their_order),
		TEST(many_threads),
		TEST(who_must_not_wait),
		TEST(a_dead_rank),
		TEST(who_does_not_know_the_catalog),
		TEST(who_will_be_asked_next),
		TEST(errors_of_ranks),
		TEST(a_file_that_is_another),
		TEST(one_slot_is_left),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("source_peer", tests, NULL, NULL);
}
