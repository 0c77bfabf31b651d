/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/source_peer.h"

#include "comm/peer_keep.h"
#include "comm/peer_put.h"

#include <errno.h>
#include <stdlib.h>

struct source_peer {
	struct source base;		/* first: passed as this */
	struct engine *engine;		/* borrowed; const, as are the next */
	struct shard_files files;
	struct source *below;
	atomic_bool hinted;		/* other ranks have been told to look */
	struct peer_keep *keep;		/* owned; const */
};

/* How many ranks are told to look ahead of time, and of how many shards. */
enum { HINT_MAX = 8, HINT_SHARDS = 64 };

/* Whom a piece is read from next. */
struct piece_turn {
	bool done;
	bool not_here;			/* no file of this machine has it, any
					 * more */
	uint32_t next;			/* of its file's replicas */
	int error;			/* of the last one; 0: none was asked */
};

/* What one call of read has to do. */
struct peer_read {
	struct source_peer *source;
	struct peer_target target;
	unsigned count;			/* of its pieces */
	struct piece_turn turns[LIMIT_PIECES];
	/* Of one round: */
	unsigned part_count, local_count;
	struct peer_request *parts[LIMIT_PIECES];	/* owned */
	struct piece local[LIMIT_PIECES];
	unsigned local_index[LIMIT_PIECES];
};

/* ---- whom to ask --------------------------------------------------------- */

static uint32_t file_of(const struct peer_read *job, const struct piece *piece)
{
	return catalog_shard(job->source->files.catalog,
			     job->target.plan->entry, piece->shard)->file;
}

/* Is there something to read it from on this machine? What nobody has is for
 * the source below to say. */
static bool is_here(const struct peer_read *job, const struct piece *piece)
{
	const struct placement *placement = job->source->files.placement;
	uint32_t file = file_of(job, piece);

	return placement->files[file].count == 0 ||
	       placement_local(placement, file);
}

/* The first replica from *@next on that is at a rank which answers; NULL:
 * none. */
static const struct replica *find_replica(const struct peer_read *job,
					  const struct piece *piece,
					  uint32_t *next)
{
	const struct source_peer *s = job->source;
	const struct placement *placement = s->files.placement;
	uint32_t file = file_of(job, piece);
	const struct replica *all = placement_replicas(placement, file);

	for (; *next < placement->files[file].count; ++*next)
		if (placement->folders[all[*next].rank] < 0 &&
		    engine_state(s->engine, all[*next].rank) == PEER_UP)
			return &all[*next];
	return NULL;
}

/* ---- asking -------------------------------------------------------------- */

static bool add_to_part(const struct peer_read *job, struct peer_request *part,
			unsigned index, const struct replica *replica)
{
	const struct piece *piece = &job->target.pieces[index];
	size_t size = peer_put_size(job->target.plan, piece);

	if (size > ENGINE_BULK_MAX - part->size ||
	    !service_pieces_add(&part->pieces, piece, &replica->pin))
		return false;
	part->index[part->count++] = index;
	part->size += size;
	return true;
}

static int add_part(struct peer_read *job, unsigned index,
		    const struct replica *replica)
{
	const struct catalog *catalog = job->source->files.catalog;
	uint64_t entry = (uint64_t)(job->target.plan->entry -
				    catalog_entry(catalog, 0));
	struct peer_request *part = malloc(sizeof(*part));
	struct catalog_id id;

	if (!part)
		return -ENOMEM;
	id = (struct catalog_id){
		.hash = { catalog->hash[0], catalog->hash[1] },
		.folder = catalog_folder_id(job->source->files.path),
	};
	part->call = (struct engine_call){ .rank = replica->rank,
					   .service = SERVICE_PIECES };
	part->count = 0;
	part->size = 0;
	service_pieces_begin(&part->pieces, &id, entry,
			     job->target.plan->entry->ndim);
	job->parts[job->part_count++] = part;
	return add_to_part(job, part, index, replica) ? 0 : -EIO;
}

/* Shards that overlap are copied in their order: each has a part of its
 * own. */
static int add_piece(struct peer_read *job, unsigned index,
		     const struct replica *replica)
{
	bool apart = job->target.plan->entry->flags & CATALOG_OVERLAP;
	unsigned i;

	for (i = 0; i < job->part_count && !apart; i++)
		if (job->parts[i]->call.rank == replica->rank &&
		    add_to_part(job, job->parts[i], index, replica))
			return 0;
	return add_part(job, index, replica);
}

/* What is left to be read, and from whom. -errno: what the last one said of a
 * piece that nobody else has. */
static int sort_pieces(struct peer_read *job)
{
	const struct replica *replica;
	unsigned i;
	int error = 0;

	job->local_count = 0;
	for (i = 0; i < job->count && !error; i++) {
		const struct piece *piece = &job->target.pieces[i];
		struct piece_turn *turn = &job->turns[i];

		if (turn->done)
			continue;
		if (!turn->not_here && is_here(job, piece)) {
			job->local_index[job->local_count] = i;
			job->local[job->local_count++] = *piece;
			continue;
		}
		replica = find_replica(job, piece, &turn->next);
		if (!replica)
			return turn->error ? turn->error : -EIO;
		error = add_piece(job, i, replica);
	}
	return error;
}

static int begin(struct peer_read *job)
{
	struct engine_call calls[LIMIT_PIECES];
	unsigned i;
	int error;

	for (i = 0; i < job->part_count; i++) {
		struct peer_request *part = job->parts[i];

		part->call.payload = part->pieces.wire.data;
		part->call.size = part->pieces.wire.size;
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

/* @rank, and others that have the shards behind @piece. */
static unsigned find_next_ranks(const struct peer_read *job, unsigned rank,
				const struct piece *piece,
				unsigned ranks[HINT_MAX])
{
	const struct catalog_entry *entry = job->target.plan->entry;
	const struct replica *replica;
	struct piece next = *piece;
	unsigned count = 1, i;

	ranks[0] = rank;
	for (i = 0; i < HINT_SHARDS && count < HINT_MAX; i++) {
		uint32_t first = 0;

		if (++next.shard >= entry->shard_count ||
		    file_of(job, &next) == CATALOG_NO_FILE ||
		    is_here(job, &next))
			continue;
		replica = find_replica(job, &next, &first);
		if (replica && !is_among(replica->rank, ranks, count))
			ranks[count++] = replica->rank;
	}
	return count;
}

/* A rank had to be made to look: those that will be asked next may do so while
 * this one is read. Nobody waits for them. */
static void hint_others(struct peer_read *job, const struct peer_request *part)
{
	struct source_peer *s = job->source;
	struct engine_call calls[HINT_MAX];
	unsigned ranks[HINT_MAX], count, i;
	struct wire wire;

	if (atomic_exchange(&s->hinted, true) ||
	    service_learn_write(&wire, s->files.path, s->files.catalog->hash))
		return;
	count = find_next_ranks(job, part->call.rank,
				&job->target.pieces[part->index[0]], ranks);
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
static int ask_again(struct peer_read *job, struct peer_request *part)
{
	struct source_peer *s = job->source;
	struct engine_call learn = {
		.rank = part->call.rank, .service = SERVICE_LEARN,
		.patient = true,
	};
	struct wire wire;
	int error = service_learn_write(&wire, s->files.path,
					s->files.catalog->hash);

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

/* What came of a part that was asked for: @error, or its bytes. Of what a rank
 * says only some is for who reads a file; what only concerns its copy, the next
 * one may have. */
static int finish_part(struct peer_read *job, struct peer_request *part,
		       int error)
{
	unsigned i;

	if (!error)
		error = peer_put(&job->target, part);
	if (error == -ENOMEM || error == -EOPNOTSUPP)
		return error;
	if (error == -ESTALE)
		atomic_store(job->source->files.stale, true);
	else if (error)
		error = -EIO;
	for (i = 0; i < part->count; i++) {
		struct piece_turn *turn = &job->turns[part->index[i]];

		turn->done = !error;
		turn->error = error;
		turn->next++;
	}
	return 0;
}

/* All that have come first, so that no slot is held while a rank learns. */
static int finish_parts(struct peer_read *job)
{
	struct peer_request *again[LIMIT_PIECES];
	unsigned count = 0, i;
	int error = 0;

	for (i = 0; i < job->part_count && !error; i++) {
		struct peer_request *part = job->parts[i];
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

static int read_below(struct peer_read *job, const struct piece *pieces,
		      unsigned count)
{
	struct source *below = job->source->below;

	return below->read(below, job->target.plan, pieces, count,
			   job->target.reply);
}

/* Others may have what is not in a file of this machine any more. */
static bool has_others(const struct peer_read *job, unsigned index)
{
	return find_replica(job, &job->target.pieces[index], &(uint32_t){ 0 });
}

/* One by one, to find out which. */
static int read_local_apart(struct peer_read *job)
{
	unsigned i;
	int error;

	for (i = 0; i < job->local_count; i++) {
		struct piece_turn *turn = &job->turns[job->local_index[i]];

		error = read_below(job, &job->local[i], 1);
		turn->done = !error;
		turn->error = error;
		turn->not_here = error == -ESTALE &&
				 has_others(job, job->local_index[i]);
		if (error && !turn->not_here)
			return error;
	}
	return 0;
}

static int read_local(struct peer_read *job)
{
	int error = job->local_count > 0 ?
		    read_below(job, job->local, job->local_count) : 0;
	unsigned i;

	if (error == -ESTALE)
		return read_local_apart(job);
	for (i = 0; i < job->local_count; i++)
		job->turns[job->local_index[i]].done = !error;
	return error;
}

static bool is_done(const struct peer_read *job)
{
	unsigned i;

	for (i = 0; i < job->count && job->turns[i].done; i++)
		;
	return i == job->count;
}

static void end_parts(struct peer_read *job)
{
	while (job->part_count > 0) {
		struct peer_request *part = job->parts[--job->part_count];

		engine_end(job->source->engine, &part->call);
		free(part);
	}
}

/* Round after round, until each piece has come from somebody. */
static int run_job(struct peer_read *job)
{
	int error = 0;

	while (!error && !is_done(job)) {
		error = sort_pieces(job);
		if (!error)
			error = begin(job);
		if (!error)
			error = read_local(job);
		if (!error)
			error = finish_parts(job);
		end_parts(job);
	}
	return error;
}

/* One by one, in their order. */
static int read_ordered(struct source_peer *s, const struct plan *plan,
			const struct piece *pieces, unsigned count,
			struct reply *reply)
{
	unsigned i;
	int error = 0;

	for (i = 0; i < count && !error; i++) {
		struct peer_read job = {
			.source = s, .count = 1,
			.target = { plan, &pieces[i], reply, s->engine },
		};

		error = run_job(&job);
	}
	return error;
}

/* Of the pieces that are not here, the first that nobody can be asked for says
 * -EIO. 0: all are here; 1: some are elsewhere, and reply->rank has one. */
static int look_at_ranks(struct peer_read *job)
{
	const struct replica *replica, *all;
	unsigned i;
	int elsewhere = 0;

	for (i = 0; i < job->count; i++) {
		const struct piece *piece = &job->target.pieces[i];
		uint32_t first = 0;

		if (is_here(job, piece))
			continue;
		replica = find_replica(job, piece, &first);
		elsewhere = 1;
		all = placement_replicas(job->source->files.placement,
					 file_of(job, piece));
		job->target.reply->rank = (int)(replica ? replica : all)->rank;
		if (!replica)
			return -EIO;
		if (job->target.reply->nowait)
			return -EAGAIN;
	}
	return elsewhere;
}

/* Of pieces that are all here. */
static int read_here(struct peer_read *job)
{
	unsigned i;
	int error = read_below(job, job->target.pieces, job->count);

	if (error != -ESTALE)
		return error;
	for (i = 0; i < job->count && !has_others(job, i); i++)
		;
	if (i == job->count)
		return error;
	return job->target.reply->nowait ? -EAGAIN : 1;
}

static int read_pieces(struct source *source, const struct plan *plan,
		       const struct piece *pieces, unsigned count,
		       struct reply *reply)
{
	struct source_peer *s = (struct source_peer *)source;
	struct peer_read job = {
		.source = s, .count = count,
		.target = { plan, pieces, reply, s->engine },
	};
	int error = look_at_ranks(&job);

	if (error == 0)
		error = read_here(&job);
	if (error <= 0)
		return error;
	return plan->entry->flags & CATALOG_OVERLAP ?
	       read_ordered(s, plan, pieces, count, reply) : run_job(&job);
}

/* ---- keeping ------------------------------------------------------------- */

static int hold(struct source *source, const struct catalog_entry *entry,
		bool nowait)
{
	struct source_peer *s = (struct source_peer *)source;
	int error = s->below->hold(s->below, entry, nowait);

	if (error)
		return error;
	error = peer_keep_hold(s->keep, entry, nowait);
	if (error)
		s->below->release(s->below, entry);
	return error;
}

static void release(struct source *source, const struct catalog_entry *entry)
{
	struct source_peer *s = (struct source_peer *)source;

	s->below->release(s->below, entry);
	peer_keep_release(s->keep, entry);
}

static void destroy(struct source *source)
{
	struct source_peer *s = (struct source_peer *)source;

	peer_keep_destroy(s->keep);
	free(s);
}

struct source *source_peer_create(struct peers *peers,
				  const struct shard_files *files,
				  struct source *below)
{
	struct source_peer *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->keep = peer_keep_create(peers, files);
	if (!s->keep) {
		free(s);
		return NULL;
	}
	s->base = (struct source){ .read = read_pieces, .hold = hold,
				   .release = release, .destroy = destroy };
	s->engine = client_of(peers)->engine;
	s->files = *files;
	s->below = below;
	return &s->base;
}
