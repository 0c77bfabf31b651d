/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/held_for_others.h"

#include "shard/base/reference.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

void holds_init(struct holds *holds)
{
	pthread_mutex_init(&holds->lock, NULL);
	LIST_INIT(&holds->all);
}

static void destroy(struct hold *hold)
{
	if (hold->fd >= 0)
		close(hold->fd);
	if (hold->held.checkpoint) {
		checkpoint_release_files(hold->held.checkpoint, &hold->files);
		hold->hooks->put(hold->hooks->context, &hold->held);
	}
	pthread_mutex_destroy(&hold->lock);
	array_finish(&hold->files);
	free(hold->path);
	free(hold);
}

void hold_put(struct hold *hold)
{
	if (hold && reference_drop(&hold->references))
		destroy(hold);
}

int holds_add(struct holds *holds, struct hold *made)
{
	unsigned count = 0;
	struct hold *hold;

	made->references = 1;
	pthread_mutex_init(&made->lock, NULL);
	pthread_mutex_lock(&holds->lock);
	LIST_FOREACH(hold, &holds->all, link)
		count += hold->rank == made->rank;
	if (count < HOLDS_MAX)
		LIST_INSERT_HEAD(&holds->all, made, link);
	pthread_mutex_unlock(&holds->lock);
	if (count < HOLDS_MAX)
		return 0;
	destroy(made);
	return -EMFILE;
}

static struct hold *find_locked(struct holds *holds, unsigned rank,
				uint64_t number)
{
	struct hold *hold;

	LIST_FOREACH(hold, &holds->all, link)
		if (hold->rank == rank && hold->number == number)
			break;
	return hold;
}

struct hold *holds_get(struct holds *holds, unsigned rank, uint64_t number)
{
	struct hold *hold;

	pthread_mutex_lock(&holds->lock);
	hold = find_locked(holds, rank, number);
	if (hold)
		atomic_fetch_add(&hold->references, 1);
	pthread_mutex_unlock(&holds->lock);
	return hold;
}

void holds_drop(struct holds *holds, unsigned rank, uint64_t number)
{
	struct hold *hold;

	pthread_mutex_lock(&holds->lock);
	hold = find_locked(holds, rank, number);
	if (hold)
		LIST_REMOVE(hold, link);
	pthread_mutex_unlock(&holds->lock);
	hold_put(hold);
}

static struct hold *take_first(struct holds *holds, unsigned rank, bool any)
{
	struct hold *hold;

	pthread_mutex_lock(&holds->lock);
	LIST_FOREACH(hold, &holds->all, link)
		if (any || hold->rank == rank)
			break;
	if (hold)
		LIST_REMOVE(hold, link);
	pthread_mutex_unlock(&holds->lock);
	return hold;
}

static void drop_all(struct holds *holds, unsigned rank, bool any)
{
	struct hold *hold = take_first(holds, rank, any);

	while (hold) {
		hold_put(hold);
		hold = take_first(holds, rank, any);
	}
}

void holds_drop_rank(struct holds *holds, unsigned rank)
{
	drop_all(holds, rank, false);
}

void holds_finish(struct holds *holds)
{
	drop_all(holds, 0, true);
	pthread_mutex_destroy(&holds->lock);
}
