/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/source_peer.h"

#include "comm/wire.h"
#include "shard/read/extent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct source_peer {
	struct source base;		/* first: passed as this */
	struct engine *engine;		/* borrowed; const, as are all */
	struct peers *peers;
	struct shard_files files;
	struct source *below;
	atomic_bool hinted;		/* other ranks have been told to look */
};

/* How many ranks are told to look ahead of time, and of how many shards. */
enum { HINT_MAX = 8, HINT_SHARDS = 64 };

/* One request to one rank, and which pieces it is for. */
struct part {
	struct engine_call call;
	struct wire wire;
	unsigned count;
	size_t size;			/* bytes that must come */
	unsigned pieces[LIMIT_PIECES];	/* indices */
};

/* What one call of read has to do. */
struct job {
	struct source_peer *source;
	const struct plan *plan;
	const struct piece *pieces;
	unsigned count;			/* of pieces */
	struct reply *reply;
	unsigned part_count, local_count;
	struct part *parts[LIMIT_PIECES];	/* owned */
	struct piece local[LIMIT_PIECES];
};

static uint32_t file_of(const struct job *job, const struct piece *piece)
{
	return catalog_shard(job->source->files.catalog, job->plan->entry,
			     piece->shard)->file;
}

/* Is its file nowhere on this machine? */
static bool is_remote(const struct job *job, const struct piece *piece,
		      unsigned *ret_rank)
{
	const struct placement *placement = job->source->files.placement;
	uint32_t file = file_of(job, piece);

	if (placement->files[file].count == 0 ||
	    placement_local(placement, file))
		return false;
	*ret_rank = placement_replicas(placement, file)->rank;
	return true;
}

static size_t size_of(const struct job *job, const struct piece *piece)
{
	size_t size = dtype_info((enum dtype)job->plan->entry->dtype)->size;
	unsigned i;

	for (i = 0; i < job->plan->entry->ndim; i++)
		size *= piece->count[i];
	return size;
}

/* ---- asking -------------------------------------------------------------- */

static bool add_to_part(const struct job *job, struct part *part,
			unsigned index)
{
	const struct piece *piece = &job->pieces[index];
	size_t size = size_of(job, piece);

	if (size > ENGINE_BULK_MAX - part->size ||
	    !wire_add_piece(&part->wire, piece,
			    pin_hash(placement_pin(
				    job->source->files.placement,
				    file_of(job, piece)))))
		return false;
	part->pieces[part->count++] = index;
	part->size += size;
	return true;
}

static int add_part(struct job *job, unsigned rank, unsigned index)
{
	const struct catalog *catalog = job->source->files.catalog;
	uint64_t entry = (uint64_t)(job->plan->entry -
				    catalog_entry(catalog, 0));
	struct part *part = malloc(sizeof(*part));
	struct catalog_id id;

	if (!part)
		return -ENOMEM;
	id = (struct catalog_id){
		.hash = { catalog->hash[0], catalog->hash[1] },
		.folder = catalog_folder(job->source->files.path),
	};
	part->call = (struct engine_call){ .rank = rank,
					   .service = SERVICE_PIECES };
	part->count = 0;
	part->size = 0;
	wire_pieces(&part->wire, &id, entry, job->plan->entry->ndim);
	job->parts[job->part_count++] = part;
	return add_to_part(job, part, index) ? 0 : -EIO;
}

/* Shards that overlap are copied in their order: each has a part of its
 * own. */
static int sort_pieces(struct job *job)
{
	bool apart = job->plan->entry->flags & CATALOG_OVERLAP;
	unsigned i, j, rank;
	int error = 0;

	for (i = 0; i < job->count && !error; i++) {
		if (!is_remote(job, &job->pieces[i], &rank)) {
			job->local[job->local_count++] = job->pieces[i];
			continue;
		}
		for (j = 0; j < job->part_count && !apart; j++)
			if (job->parts[j]->call.rank == rank &&
			    add_to_part(job, job->parts[j], i))
				break;
		if (apart || j == job->part_count)
			error = add_part(job, rank, i);
	}
	return error;
}

static int begin(struct job *job)
{
	struct engine_call calls[LIMIT_PIECES];
	unsigned i;
	int error;

	for (i = 0; i < job->part_count; i++) {
		struct part *part = job->parts[i];

		part->call.payload = part->wire.data;
		part->call.size = part->wire.size;
		calls[i] = part->call;
	}
	error = engine_begin(job->source->engine, calls, job->part_count,
			     false);
	for (i = 0; i < job->part_count && !error; i++)
		job->parts[i]->call = calls[i];
	return error;
}

static bool is_among(unsigned rank, const unsigned *ranks, unsigned count)
{
	while (count > 0)
		if (ranks[--count] == rank)
			return true;
	return false;
}

/* The rank of @piece, and others that have the shards behind it. */
static unsigned find_next_ranks(const struct job *job,
				const struct piece *piece,
				unsigned ranks[HINT_MAX])
{
	const struct catalog_entry *entry = job->plan->entry;
	struct piece next = *piece;
	unsigned count = 1, rank, i;

	is_remote(job, piece, &ranks[0]);
	for (i = 0; i < HINT_SHARDS && count < HINT_MAX; i++)
		if (++next.shard < entry->shard_count &&
		    file_of(job, &next) != CATALOG_NO_FILE &&
		    is_remote(job, &next, &rank) &&
		    !is_among(rank, ranks, count) &&
		    engine_state(job->source->engine, rank) == PEER_UP)
			ranks[count++] = rank;
	return count;
}

/* A rank had to be made to look: those that will be asked next may do so while
 * this one is read. Nobody waits for them. */
static void hint_others(struct job *job, const struct part *part)
{
	struct source_peer *s = job->source;
	struct engine_call calls[HINT_MAX];
	unsigned ranks[HINT_MAX], count, i;
	struct wire wire;

	if (atomic_exchange(&s->hinted, true) ||
	    wire_learn(&wire, s->files.path, s->files.catalog->hash))
		return;
	count = find_next_ranks(job, &job->pieces[part->pieces[0]], ranks);
	for (i = 1; i < count; i++)
		calls[i - 1] = (struct engine_call){
			.rank = ranks[i], .service = SERVICE_LEARN,
			.payload = wire.data, .size = wire.size,
			.patient = true,
		};
	if (count == 1 || engine_begin(s->engine, calls, count - 1, true))
		return;
	for (i = 1; i < count; i++)
		engine_end(s->engine, &calls[i - 1]);
}

/* The rank has no such catalog yet, or other files: make it look, and ask once
 * more. */
static int ask_again(struct job *job, struct part *part)
{
	struct source_peer *s = job->source;
	struct engine_call learn = {
		.rank = part->call.rank, .service = SERVICE_LEARN,
		.patient = true,
	};
	struct wire wire;
	int error = wire_learn(&wire, s->files.path, s->files.catalog->hash);

	engine_end(s->engine, &part->call);
	learn.payload = wire.data;
	learn.size = wire.size;
	if (!error)
		error = engine_begin(s->engine, &learn, 1, false);
	if (!error)
		error = engine_wait(s->engine, &learn);
	engine_end(s->engine, &learn);
	if (!error)
		error = engine_begin(s->engine, &part->call, 1, false);
	return error ? error : engine_wait(s->engine, &part->call);
}

/* ---- what comes ---------------------------------------------------------- */

static void release_slot(void *context, void *loan)
{
	struct engine_call call = { .slot = loan };

	engine_end(context, &call);
}

/* The runs of a piece whose elements are dense at @data. */
static void init_extents(const struct job *job, const struct piece *piece,
			 struct extents *extents)
{
	struct layout layout = { .offset = 0 };
	struct piece dense = *piece;

	memset(dense.offset, 0, sizeof(dense.offset));
	box_strides(job->plan->entry->ndim, piece->count, layout.stride);
	extents_init(extents, job->plan, &dense, &layout);
}

static void put_piece(const struct job *job, const struct piece *piece,
		      const unsigned char *data)
{
	unsigned char *to = job->reply->data + job->reply->base;
	struct extents extents;
	struct extent extent;
	uint64_t i;

	init_extents(job, piece, &extents);
	while (extents_next(&extents, &extent))
		for (i = 0; i < extent.count; i++)
			memcpy(to + extent.target + i * extent.target_stride,
			       data + extent.offset + i * extent.stride,
			       extent.size);
}

/* Are the bytes that came all that the reply will ever have, in their order? */
static bool is_whole_reply(const struct job *job, const struct part *part)
{
	uint64_t element = dtype_info((enum dtype)job->plan->entry->dtype)->size;
	uint64_t at = 0;
	unsigned i;

	if (job->reply->base > 0 || part->size != job->reply->size ||
	    job->plan->entry->flags & CATALOG_OVERLAP)
		return false;
	for (i = 0; i < part->count; i++) {
		const struct piece *piece = &job->pieces[part->pieces[i]];
		struct extents extents;
		struct extent extent;

		init_extents(job, piece, &extents);
		extents_next(&extents, &extent);
		if (piece->target * element != at ||
		    extent.size != size_of(job, piece))
			return false;
		at += extent.size;
	}
	return true;
}

static int put_part(struct job *job, struct part *part)
{
	const unsigned char *data = part->call.data;
	unsigned i;

	if (part->call.got != part->size)
		return -EPROTO;
	if (job->reply->takes_loans && is_whole_reply(job, part)) {
		reply_lend(job->reply, data, release_slot, job->source->engine,
			   part->call.slot);
		part->call.slot = NULL;
		return 0;
	}
	for (i = 0; i < part->count; i++) {
		const struct piece *piece = &job->pieces[part->pieces[i]];

		put_piece(job, piece, data);
		data += size_of(job, piece);
	}
	return 0;
}

/* What came of a part that was asked for: @error, or its bytes. Of what a rank
 * says only some is for who reads a file. */
static int finish_part(struct job *job, struct part *part, int error)
{
	if (!error)
		error = put_part(job, part);
	if (error == -ESTALE)
		atomic_store(job->source->files.stale, true);
	switch (-error) {
	case 0: case ENOMEM: case ESTALE: case EOPNOTSUPP:
		return error;
	default:
		return -EIO;
	}
}

/* All that have come first, so that no slot is held while a rank learns. */
static int finish_parts(struct job *job)
{
	struct part *again[LIMIT_PIECES];
	unsigned count = 0, i;
	int error = 0;

	for (i = 0; i < job->part_count && !error; i++) {
		struct part *part = job->parts[i];
		int said = engine_wait(job->source->engine, &part->call);

		if (said == -ENODATA) {
			again[count++] = part;
			continue;
		}
		error = finish_part(job, part, said);
		engine_end(job->source->engine, &part->call);
	}
	if (count > 0 && !error)
		hint_others(job, again[0]);
	for (i = 0; i < count && !error; i++) {
		int said = ask_again(job, again[i]);

		/* It has looked, and does not have what we know. */
		error = finish_part(job, again[i],
				    said == -ENODATA ? -ESTALE : said);
	}
	return error;
}

/* ---- reading ------------------------------------------------------------- */

static void finish_job(struct job *job)
{
	unsigned i;

	for (i = 0; i < job->part_count; i++) {
		engine_end(job->source->engine, &job->parts[i]->call);
		free(job->parts[i]);
	}
}

static int run_job(struct job *job)
{
	struct source *below = job->source->below;
	int error = begin(job);

	if (!error && job->local_count > 0)
		error = below->read(below, job->plan, job->local,
				    job->local_count, job->reply);
	return error ? error : finish_parts(job);
}

/* One by one, in their order. */
static int read_ordered(struct source_peer *s, const struct plan *plan,
			const struct piece *pieces, unsigned count,
			struct reply *reply)
{
	unsigned i;
	int error = 0;

	for (i = 0; i < count && !error; i++) {
		struct job job = { .source = s, .plan = plan, .count = 1,
				   .pieces = &pieces[i], .reply = reply };

		error = sort_pieces(&job);
		if (!error)
			error = run_job(&job);
		finish_job(&job);
	}
	return error;
}

/* 0: everything is on this machine. Else whether to wait for a rank. */
static int look_at_ranks(struct job *job)
{
	unsigned i, rank, remote = 0;

	for (i = 0; i < job->count; i++) {
		if (!is_remote(job, &job->pieces[i], &rank))
			continue;
		remote++;
		job->reply->rank = (int)rank;
		if (engine_state(job->source->engine, rank) != PEER_UP)
			return -EIO;
		if (job->reply->nowait)
			return -EAGAIN;
	}
	return (int)remote;
}

static int read_pieces(struct source *source, const struct plan *plan,
		       const struct piece *pieces, unsigned count,
		       struct reply *reply)
{
	struct source_peer *s = (struct source_peer *)source;
	struct job job = { .source = s, .plan = plan, .pieces = pieces,
			   .count = count, .reply = reply };
	int error = look_at_ranks(&job);

	if (error < 0)
		return error;
	if (error == 0)
		return s->below->read(s->below, plan, pieces, count, reply);
	if (plan->entry->flags & CATALOG_OVERLAP)
		return read_ordered(s, plan, pieces, count, reply);
	error = sort_pieces(&job);
	if (!error)
		error = run_job(&job);
	finish_job(&job);
	return error;
}

static void destroy(struct source *source)
{
	free(source);
}

struct source *source_peer_create(struct engine *engine, struct peers *peers,
				  const struct shard_files *files,
				  struct source *below)
{
	struct source_peer *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->base = (struct source){ .read = read_pieces, .destroy = destroy };
	s->engine = engine;
	s->peers = peers;
	s->files = *files;
	s->below = below;
	return &s->base;
}
