/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/source_peer.h"

#include "comm/service.h"
#include "shard/read/extent.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct source_peer {
	struct source base;		/* first: passed as this */
	struct peers *peers;		/* borrowed; const, as are the next */
	struct engine *engine;
	struct shard_files files;
	struct source *below;
	atomic_bool hinted;		/* other ranks have been told to look */
	struct rank_hold *holds;	/* owned; of each rank */
};

/* What a rank keeps for this checkpoint. */
struct rank_hold {
	pthread_mutex_t lock;		/* held while the rank is asked: nobody
					 * waits for it who does not need it */
	uint64_t count;			/* of shards that want it; guarded by
					 * lock, as is the next one */
	uint64_t number;		/* 0: it does not */
};

/* How many ranks are told to look ahead of time, and of how many shards. */
enum { HINT_MAX = 8, HINT_SHARDS = 64 };

/* One request to one rank, and which pieces it is for. */
struct peer_request {
	struct engine_call call;
	struct pieces_wire pieces;
	unsigned count;
	size_t size;			/* bytes that must come */
	unsigned index[LIMIT_PIECES];	/* of the job's pieces */
};

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
	const struct plan *plan;
	const struct piece *pieces;
	unsigned count;			/* of pieces */
	struct reply *reply;
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
	return catalog_shard(job->source->files.catalog, job->plan->entry,
			     piece->shard)->file;
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

static size_t size_of(const struct peer_read *job, const struct piece *piece)
{
	size_t size = dtype_info((enum dtype)job->plan->entry->dtype)->size;
	unsigned i;

	for (i = 0; i < job->plan->entry->ndim; i++)
		size *= piece->count[i];
	return size;
}

/* ---- asking -------------------------------------------------------------- */

static bool add_to_part(const struct peer_read *job, struct peer_request *part,
			unsigned index, const struct replica *replica)
{
	const struct piece *piece = &job->pieces[index];
	size_t size = size_of(job, piece);

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
	uint64_t entry = (uint64_t)(job->plan->entry -
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
	service_pieces_begin(&part->pieces, &id, entry, job->plan->entry->ndim);
	job->parts[job->part_count++] = part;
	return add_to_part(job, part, index, replica) ? 0 : -EIO;
}

/* Shards that overlap are copied in their order: each has a part of its
 * own. */
static int add_piece(struct peer_read *job, unsigned index,
		     const struct replica *replica)
{
	bool apart = job->plan->entry->flags & CATALOG_OVERLAP;
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
		struct piece_turn *turn = &job->turns[i];

		if (turn->done)
			continue;
		if (!turn->not_here && is_here(job, &job->pieces[i])) {
			job->local_index[job->local_count] = i;
			job->local[job->local_count++] = job->pieces[i];
			continue;
		}
		replica = find_replica(job, &job->pieces[i], &turn->next);
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
	const struct catalog_entry *entry = job->plan->entry;
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
				&job->pieces[part->index[0]], ranks);
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

static void release_slot(void *context, void *loan)
{
	struct engine_call call = { .slot = loan };

	engine_end(context, &call);
}

/* The runs of a piece whose elements are dense at @data. */
static void init_extents(const struct peer_read *job, const struct piece *piece,
			 struct extents *extents)
{
	struct layout layout = { .offset = 0 };
	struct piece dense = *piece;

	memset(dense.offset, 0, sizeof(dense.offset));
	box_strides(job->plan->entry->ndim, piece->count, layout.stride);
	extents_init(extents, job->plan, &dense, &layout);
}

static void put_piece(const struct peer_read *job, const struct piece *piece,
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
static bool is_whole_reply(const struct peer_read *job,
			   const struct peer_request *part)
{
	enum dtype dtype = (enum dtype)job->plan->entry->dtype;
	uint64_t element = dtype_info(dtype)->size, at = 0;
	unsigned i;

	if (job->reply->base > 0 || part->size != job->reply->size ||
	    job->plan->entry->flags & CATALOG_OVERLAP)
		return false;
	for (i = 0; i < part->count; i++) {
		const struct piece *piece = &job->pieces[part->index[i]];
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

static int put_part(struct peer_read *job, struct peer_request *part)
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
		const struct piece *piece = &job->pieces[part->index[i]];

		put_piece(job, piece, data);
		data += size_of(job, piece);
	}
	return 0;
}

/* What came of a part that was asked for: @error, or its bytes. Of what a rank
 * says only some is for who reads a file; what only concerns its copy, the next
 * one may have. */
static int finish_part(struct peer_read *job, struct peer_request *part,
		       int error)
{
	unsigned i;

	if (!error)
		error = put_part(job, part);
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

	return below->read(below, job->plan, pieces, count, job->reply);
}

/* Others may have what is not in a file of this machine any more. */
static bool has_others(const struct peer_read *job, unsigned index)
{
	return find_replica(job, &job->pieces[index], &(uint32_t){ 0 });
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
		struct peer_read job = { .source = s, .plan = plan, .count = 1,
				   .pieces = &pieces[i], .reply = reply };

		error = run_job(&job);
	}
	return error;
}

/* Of the pieces that are not here, the first that nobody can be asked for says
 * -EIO. 0: all are here; 1: some are elsewhere, and reply->rank has one. */
static int look_at_ranks(struct peer_read *job)
{
	const struct replica *replica;
	unsigned i;
	int elsewhere = 0;

	for (i = 0; i < job->count; i++) {
		uint32_t first = 0;

		if (is_here(job, &job->pieces[i]))
			continue;
		replica = find_replica(job, &job->pieces[i], &first);
		elsewhere = 1;
		job->reply->rank = (int)(replica ? replica :
			placement_replicas(job->source->files.placement,
					   file_of(job, &job->pieces[i])))->rank;
		if (!replica)
			return -EIO;
		if (job->reply->nowait)
			return -EAGAIN;
	}
	return elsewhere;
}

/* Of pieces that are all here. */
static int read_here(struct peer_read *job)
{
	unsigned i;
	int error = read_below(job, job->pieces, job->count);

	if (error != -ESTALE)
		return error;
	for (i = 0; i < job->count && !has_others(job, i); i++)
		;
	if (i == job->count)
		return error;
	return job->reply->nowait ? -EAGAIN : 1;
}

static int read_pieces(struct source *source, const struct plan *plan,
		       const struct piece *pieces, unsigned count,
		       struct reply *reply)
{
	struct source_peer *s = (struct source_peer *)source;
	struct peer_read job = { .source = s, .plan = plan, .pieces = pieces,
			   .count = count, .reply = reply };
	int error = look_at_ranks(&job);

	if (error == 0)
		error = read_here(&job);
	if (error <= 0)
		return error;
	return plan->entry->flags & CATALOG_OVERLAP ?
	       read_ordered(s, plan, pieces, count, reply) : run_job(&job);
}

/* ---- keeping ------------------------------------------------------------- */

/* The rank that is to keep the file of a shard; -1: it is here, or nowhere. */
static int keeper_of(const struct source_peer *s,
		     const struct catalog_entry *entry, uint64_t shard)
{
	const struct placement *placement = s->files.placement;
	uint32_t file = catalog_shard(s->files.catalog, entry, shard)->file;

	return file == CATALOG_NO_FILE || placement->files[file].count == 0 ||
	       placement_local(placement, file) ? -1 :
	       (int)placement_replicas(placement, file)->rank;
}

/* Of a rank that does not answer, or not well, nothing is kept: it is read as
 * long as its files have their names. */
static int hold_rank(struct source_peer *s, unsigned rank, bool nowait)
{
	struct rank_hold *hold = &s->holds[rank];
	bool ask;

	if (nowait ? pthread_mutex_trylock(&hold->lock) :
		     pthread_mutex_lock(&hold->lock))
		return -EAGAIN;
	ask = hold->count == 0 && engine_state(s->engine, rank) == PEER_UP;
	if (ask && nowait) {
		pthread_mutex_unlock(&hold->lock);
		return -EAGAIN;
	}
	hold->count++;
	if (ask && service_hold_checkpoint_ask(s->peers, rank, s->files.path,
					       s->files.catalog->hash,
					       &hold->number))
		hold->number = 0;
	pthread_mutex_unlock(&hold->lock);
	return 0;
}

static void release_rank(struct source_peer *s, unsigned rank)
{
	struct rank_hold *hold = &s->holds[rank];

	pthread_mutex_lock(&hold->lock);
	assert(hold->count > 0);
	if (--hold->count == 0 && hold->number > 0) {
		service_release_send(s->peers, rank, hold->number);
		hold->number = 0;
	}
	pthread_mutex_unlock(&hold->lock);
}

/* Of the first @count shards. */
static void release_ranks(struct source_peer *s,
			  const struct catalog_entry *entry, uint64_t count)
{
	uint64_t i;
	int rank;

	for (i = 0; i < count; i++) {
		rank = keeper_of(s, entry, i);
		if (rank >= 0)
			release_rank(s, (unsigned)rank);
	}
}

static int hold_ranks(struct source_peer *s, const struct catalog_entry *entry,
		      bool nowait)
{
	uint64_t i;
	int rank, error;

	for (i = 0; i < entry->shard_count; i++) {
		rank = keeper_of(s, entry, i);
		error = rank >= 0 ? hold_rank(s, (unsigned)rank, nowait) : 0;
		if (!error)
			continue;
		release_ranks(s, entry, i);
		return error;
	}
	return 0;
}

static int hold(struct source *source, const struct catalog_entry *entry,
		bool nowait)
{
	struct source_peer *s = (struct source_peer *)source;
	int error = s->below->hold(s->below, entry, nowait);

	if (error)
		return error;
	error = hold_ranks(s, entry, nowait);
	if (error)
		s->below->release(s->below, entry);
	return error;
}

static void release(struct source *source, const struct catalog_entry *entry)
{
	struct source_peer *s = (struct source_peer *)source;

	s->below->release(s->below, entry);
	release_ranks(s, entry, entry->shard_count);
}

static void destroy(struct source *source)
{
	struct source_peer *s = (struct source_peer *)source;
	unsigned i;

	for (i = 0; i < s->files.placement->ranks; i++)
		pthread_mutex_destroy(&s->holds[i].lock);
	free(s->holds);
	free(s);
}

struct source *source_peer_create(struct peers *peers,
				  const struct shard_files *files,
				  struct source *below)
{
	struct source_peer *s = calloc(1, sizeof(*s));
	unsigned i;

	if (!s)
		return NULL;
	s->holds = calloc(files->placement->ranks, sizeof(*s->holds));
	if (!s->holds) {
		free(s);
		return NULL;
	}
	s->base = (struct source){ .read = read_pieces, .hold = hold,
				   .release = release, .destroy = destroy };
	s->peers = peers;
	s->engine = client_of(peers)->engine;
	s->files = *files;
	s->below = below;
	for (i = 0; i < files->placement->ranks; i++)
		pthread_mutex_init(&s->holds[i].lock, NULL);
	return &s->base;
}
