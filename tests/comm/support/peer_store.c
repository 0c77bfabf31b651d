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
atomic_bool knows[RANKS], learns, spoils, own_is_gone;
atomic_uint lessons, cut, asked[RANKS];
atomic_int read_error, learn_error;

static struct served served[RANKS];
static struct client client;		/* of rank 0 */

/* ---- rank 0's own files --------------------------------------------------- */

static int read_own(struct source *self, const struct plan *plan,
		    const struct piece *pieces, unsigned count,
		    struct reply *reply)
{
	struct source *files = source_file_source(store.source);
	const struct catalog_entry *entry = catalog_entry(store.catalog, 0);
	unsigned i;

	(void)self;
	for (i = 0; i < count && atomic_load(&own_is_gone); i++)
		if (catalog_shard(store.catalog, entry, pieces[i].shard)->file ==
		    0)
			return -ESTALE;
	return files->read(files, plan, pieces, count, reply);
}

static struct source own_files = { .read = read_own };

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
	plan_init(&plan, store.catalog, entry, &dense,
		  (struct plan_range){ 0, 0 });
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

/* What comes in a request for pieces, and of each of them. */
struct pieces_head {
	struct catalog_id id;
	uint64_t entry;
	uint32_t count, ndim;
};

struct piece_head {
	uint64_t shard, has_pin;
};

static void read_wanted(struct service_request *request, unsigned ndim,
			struct piece *piece, struct pin *pin)
{
	struct wire_reader *reader = &request->payload;
	struct piece_head head;

	memset(piece, 0, sizeof(*piece));
	assert_true(wire_get(reader, &head, sizeof(head)));
	if (head.has_pin)
		assert_true(wire_get(reader, pin, sizeof(*pin)));
	assert_true(wire_get(reader, piece->offset, ndim * sizeof(uint64_t)));
	assert_true(wire_get(reader, piece->count, ndim * sizeof(uint64_t)));
	piece->shard = head.shard;
}

/* Does @rank have this file? */
static bool has_file(unsigned rank, uint32_t file, const struct pin *pin)
{
	const struct replica *all = placement_replicas(placed, file);
	uint32_t i;

	for (i = 0; i < placed->files[file].count; i++)
		if (all[i].rank == rank)
			return pin_equal(placement_pin(store.placement, file),
					 pin);
	return false;
}

static int pieces(struct served *one, struct service_request *request)
{
	const struct catalog_entry *entry = catalog_entry(store.catalog, 0);
	unsigned rank = (unsigned)(one - served), i, j;
	struct reply *reply = reply_of_thread();
	struct pin pin = { .inode = 0 };
	struct pieces_head head;
	struct piece piece;
	uint64_t size = 0;
	int error = atomic_load(&read_error);

	atomic_fetch_add(&asked[rank], 1);
	if (!atomic_load(&knows[rank]))
		return -ENODATA;
	assert_non_null(reply);
	assert_int_equal(reply_begin(reply, request->room, ENGINE_BULK_MAX),
			 0);
	assert_true(wire_get(&request->payload, &head, sizeof(head)));
	if (memcmp(head.id.hash, store.catalog->hash, 16) != 0 ||
	    head.entry != 0 || head.ndim != entry->ndim)
		return -EINVAL;
	for (i = 0; i < head.count && !error; i++) {
		uint64_t bytes = dtype_info(entry->dtype)->size;

		read_wanted(request, head.ndim, &piece, &pin);
		if (!has_file(rank, catalog_shard(store.catalog, entry,
						  piece.shard)->file, &pin))
			return -ESTALE;
		for (j = 0; j < entry->ndim; j++)
			bytes *= piece.count[j];
		reply->base = size;
		error = read_piece(&piece, reply);
		if (!error && atomic_load(&spoils))
			spoil(&piece, reply->data + size);
		size += bytes;
	}
	request->size = size - atomic_load(&cut);
	return error;
}

static int learn(struct served *one, struct service_request *request)
{
	unsigned rank = (unsigned)(one - served);
	char path[LIMIT_PATH_SIZE + 1];
	uint64_t hash[2];

	/* A request may only be there to take a slot. */
	if (!wire_get(&request->payload, hash, sizeof(hash)) ||
	    !wire_get_path(&request->payload, path))
		return -EPROTO;
	if (strcmp(path, "folder") != 0 ||
	    memcmp(hash, store.catalog->hash, 16) != 0)
		return -EINVAL;
	atomic_fetch_add(&lessons, 1);
	if (atomic_load(&learns))
		atomic_store(&knows[rank], true);
	return atomic_load(&learn_error);
}

/* ---- life ---------------------------------------------------------------- */

static int wait_ready(struct peers *peers)
{
	(void)peers;
	return 0;
}

int peer_store_start(void **state)
{
	const struct ranks_options options = {
		.count = RANKS, .deadline_ms = 10000,
		.workers = RANKS_WORKERS, .work = handlers_work,
		.context = served, .seed = dice_any(&dice),
	};
	const struct fake_faults slow = { .delay_us = 200 };
	unsigned i;

	(void)state;
	for (i = 0; i < RANKS; i++) {
		handlers_init(&served[i]);
		served[i].handlers[SERVICE_PIECES] = pieces;
		served[i].handlers[SERVICE_LEARN] = learn;
	}
	ranks_start(&ranks, &options);
	fake_net_set_faults(ranks.net, &slow);
	assert_int_equal(client_init(&client, 0, RANKS), 0);
	client.peers.wait_ready = wait_ready;
	client.engine = ranks.rank[0].engine;
	return 0;
}

int peer_store_stop(void **state)
{
	unsigned i;

	(void)state;
	ranks_finish(&ranks);
	client.engine = NULL;
	client_finish(&client);
	for (i = 0; i < RANKS; i++)
		handlers_finish(&served[i]);
	return 0;
}

/* Each file has one owner, and of their folders only rank 0's is here. */
static void place_files(int owner)
{
	uint64_t count = store.catalog->file_count, i;

	placed = placement_create(RANKS, count, count * RANKS);
	assert_non_null(placed);
	placed->folders[0] = fcntl(store.folder.fd, F_DUPFD_CLOEXEC, 0);
	for (i = 0; i < count; i++) {
		placed->files[i] = store.placement->files[i];
		placed->files[i].first = i * RANKS;
		*first_of(i) = store.placement->replicas[i];
		first_of(i)->rank = owner >= 0 ? (uint32_t)owner :
				    (uint32_t)dice_below(&dice, RANKS);
	}
}

struct replica *first_of(uint64_t file)
{
	return &placed->replicas[placed->files[file].first];
}

void also_at(unsigned rank)
{
	uint64_t i;

	for (i = 0; i < placed->file_count; i++) {
		struct replica *next = first_of(i) + placed->files[i].count++;

		*next = *first_of(i);
		next->rank = rank;
	}
}

void open_store(const struct world *world, bool plain, int owner)
{
	struct shard_files files;
	unsigned i;

	test_store_make(&store, world, plain, &dice);
	place_files(owner);
	files = (struct shard_files){
		.path = "folder", .catalog = store.catalog,
		.placement = placed, .stale = &stale,
	};
	atomic_store(&stale, false);
	atomic_store(&read_error, 0);
	atomic_store(&learn_error, 0);
	atomic_store(&cut, 0);
	atomic_store(&spoils, false);
	atomic_store(&own_is_gone, false);
	atomic_store(&learns, true);
	atomic_store(&lessons, 0);
	for (i = 0; i < RANKS; i++) {
		atomic_store(&knows[i], true);
		atomic_store(&asked[i], 0);
	}
	source = source_peer_create(&client.peers, &files,
				    &own_files);
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
