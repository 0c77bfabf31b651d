/* SPDX-License-Identifier: Apache-2.0 */
#include "support/peer_store.h"

#include "support/test.h"
#include "support/reading.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

struct dice dice;
struct ranks ranks;
struct test_store store;
struct source *source;
struct placement *placed;
atomic_bool stale;
atomic_bool knows[RANKS], learns, spoils;
atomic_uint lessons, cut;
atomic_int read_error, learn_error;

static struct served served[RANKS];
static struct peers peers;
static int stores[RANKS];

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
	for (i = 0; i < request->count && !error; i++) {
		const struct piece *piece = &request->pieces[i];
		uint32_t file = catalog_shard(store.catalog, entry,
					      piece->shard)->file;
		uint64_t bytes = dtype_info(entry->dtype)->size;

		if (placed->replicas[file].rank != rank ||
		    pin_hash(placement_pin(store.placement, file)) !=
			    request->pins[i])
			return -ESTALE;
		for (j = 0; j < entry->ndim; j++)
			bytes *= piece->count[j];
		reply->base = size;
		error = read_piece(piece, reply);
		if (!error && atomic_load(&spoils))
			spoil(piece, reply->data + size);
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

int peer_store_start(void **state)
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

int peer_store_stop(void **state)
{
	unsigned i;

	(void)state;
	ranks_finish(&ranks);
	for (i = 0; i < RANKS; i++)
		handlers_finish(&served[i]);
	return 0;
}

/* Each file has one owner, and of their folders only rank 0's is here. */
static void place_files(int owner)
{
	uint64_t count = store.catalog->file_count, i;

	placed = placement_create(RANKS, count, count);
	assert_non_null(placed);
	placed->folders[0] = fcntl(store.folder.fd, F_DUPFD_CLOEXEC, 0);
	for (i = 0; i < count; i++) {
		placed->files[i] = store.placement->files[i];
		placed->replicas[i] = store.placement->replicas[i];
		placed->replicas[i].rank =
			owner >= 0 ? (uint32_t)owner :
			(uint32_t)dice_below(&dice, RANKS);
	}
}

void open_store(const struct world *world, bool plain, int owner)
{
	struct shard_files files;
	unsigned i;

	test_store_make(&store, world, plain, &dice);
	place_files(owner);
	stores[0] = store.folder.fd;
	files = (struct shard_files){
		.path = "folder", .catalog = store.catalog,
		.placement = placed, .stale = &stale,
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

void close_store(void)
{
	reply_release(store.reply);
	source->destroy(source);
	ranks_await_free(&ranks, 0);
	placement_destroy(placed);
	test_store_free(&store);
}

int read_into(struct reply *reply, const struct box *selection,
	      uint64_t offset, uint64_t size)
{
	const struct transfer transfer = {
		.source = source, .catalog = store.catalog,
		.entry = catalog_entry(store.catalog, 0),
		.selection = selection ? selection : &store.world.shape,
		.offset = offset, .size = size,
	};

	return reading(&transfer, reply);
}

int read_range(uint64_t offset, uint64_t size)
{
	return read_into(store.reply, NULL, offset, size);
}

struct world rows_world(unsigned parts, unsigned rows)
{
	struct world world = { .dtype = DTYPE_F32, .part_count = parts };
	unsigned i;

	world.shape = BOX2(0, 0, parts * rows, 1024);
	for (i = 0; i < parts; i++)
		world.parts[i] = BOX2(rows * i, 0, rows, 1024);
	return world;
}

bool is_right(struct reply *reply, const struct box *selection,
	      uint64_t offset, uint64_t size)
{
	unsigned char *expected = malloc(size + 1), *found = malloc(size + 1);
	struct test_store mine = store;
	bool right;

	assert_true(expected && found);
	mine.reply = reply;
	right = test_store_expect(&store, selection, offset, size, expected);
	if (right) {
		test_store_copy(&mine, found);
		right = memcmp(found, expected, size) == 0;
	}
	free(expected);
	free(found);
	return right;
}
