/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/peer_keep.h"

#include "comm/service.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* What a rank keeps for this checkpoint. */
struct rank_hold {
	pthread_mutex_t lock;		/* held while the rank is asked: nobody
					 * waits for it who does not need it */
	uint64_t count;			/* of shards that want it; guarded by
					 * lock, as is the next one */
	uint64_t number;		/* 0: it does not */
};

struct peer_keep {
	struct peers *peers;		/* borrowed; const, as are the next */
	struct engine *engine;
	struct shard_files files;
	struct rank_hold holds[];	/* of each rank */
};

/* The rank that is to keep the file of a shard; -1: it is here, or nowhere. */
static int keeper_of(const struct peer_keep *k,
		     const struct catalog_entry *entry, uint64_t shard)
{
	const struct placement *placement = k->files.placement;
	uint32_t file = catalog_shard(k->files.catalog, entry, shard)->file;

	return file == CATALOG_NO_FILE || placement->files[file].count == 0 ||
	       placement_local(placement, file) ? -1 :
	       (int)placement_replicas(placement, file)->rank;
}

/* Of a rank that does not answer, or not well, nothing is kept: it is read as
 * long as its files have their names. */
static int hold_rank(struct peer_keep *k, unsigned rank, bool nowait)
{
	struct rank_hold *hold = &k->holds[rank];
	bool ask;

	if (nowait ? pthread_mutex_trylock(&hold->lock) :
		     pthread_mutex_lock(&hold->lock))
		return -EAGAIN;
	ask = hold->count == 0 && engine_state(k->engine, rank) == PEER_UP;
	if (ask && nowait) {
		pthread_mutex_unlock(&hold->lock);
		return -EAGAIN;
	}
	hold->count++;
	if (ask && service_hold_checkpoint_ask(k->peers, rank, k->files.path,
					       k->files.catalog->hash,
					       &hold->number))
		hold->number = 0;
	pthread_mutex_unlock(&hold->lock);
	return 0;
}

static void release_rank(struct peer_keep *k, unsigned rank)
{
	struct rank_hold *hold = &k->holds[rank];

	pthread_mutex_lock(&hold->lock);
	assert(hold->count > 0);
	if (--hold->count == 0 && hold->number > 0) {
		service_release_send(k->peers, rank, hold->number);
		hold->number = 0;
	}
	pthread_mutex_unlock(&hold->lock);
}

/* Of the first @count shards. */
static void release_some(struct peer_keep *k, const struct catalog_entry *entry,
			 uint64_t count)
{
	uint64_t i;
	int rank;

	for (i = 0; i < count; i++) {
		rank = keeper_of(k, entry, i);
		if (rank >= 0)
			release_rank(k, (unsigned)rank);
	}
}

int peer_keep_hold(struct peer_keep *k, const struct catalog_entry *entry,
		   bool nowait)
{
	uint64_t i;
	int rank, error;

	for (i = 0; i < entry->shard_count; i++) {
		rank = keeper_of(k, entry, i);
		error = rank >= 0 ? hold_rank(k, (unsigned)rank, nowait) : 0;
		if (!error)
			continue;
		release_some(k, entry, i);
		return error;
	}
	return 0;
}

void peer_keep_release(struct peer_keep *k, const struct catalog_entry *entry)
{
	release_some(k, entry, entry->shard_count);
}

struct peer_keep *peer_keep_create(struct peers *peers,
				   const struct shard_files *files)
{
	unsigned ranks = files->placement->ranks, i;
	struct peer_keep *k = calloc(1, sizeof(*k) + ranks *
						      sizeof(k->holds[0]));

	if (!k)
		return NULL;
	k->peers = peers;
	k->engine = client_of(peers)->engine;
	k->files = *files;
	for (i = 0; i < ranks; i++)
		pthread_mutex_init(&k->holds[i].lock, NULL);
	return k;
}

void peer_keep_destroy(struct peer_keep *k)
{
	unsigned i;

	for (i = 0; i < k->files.placement->ranks; i++)
		pthread_mutex_destroy(&k->holds[i].lock);
	free(k);
}
