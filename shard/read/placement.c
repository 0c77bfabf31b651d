/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/read/placement.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct placement *placement_create(unsigned ranks, uint64_t file_count,
				   uint64_t replica_count)
{
	struct placement *placement = calloc(1, sizeof(*placement));
	unsigned i;

	if (!placement)
		return NULL;
	placement->folders = malloc(ranks * sizeof(*placement->folders));
	placement->files = calloc(file_count + 1, sizeof(*placement->files));
	placement->replicas = calloc(replica_count + 1,
				     sizeof(*placement->replicas));
	for (i = 0; placement->folders && i < ranks; i++)
		placement->folders[i] = -1;
	placement->ranks = placement->folders ? ranks : 0;
	placement->file_count = file_count;
	placement->owners = calloc(file_count + 1, sizeof(*placement->owners));
	if (placement->folders && placement->files && placement->owners &&
	    placement->replicas)
		return placement;
	placement_destroy(placement);
	return NULL;
}

void placement_destroy(struct placement *placement)
{
	unsigned i;

	if (!placement)
		return;
	for (i = 0; i < placement->ranks; i++)
		if (placement->folders[i] >= 0)
			close(placement->folders[i]);
	free(placement->folders);
	free(placement->files);
	free(placement->owners);
	free(placement->replicas);
	free(placement);
}

const struct replica *placement_replicas(const struct placement *placement,
					 uint64_t index)
{
	return &placement->replicas[placement->files[index].first];
}

const struct pin *placement_pin(const struct placement *placement,
				uint64_t index)
{
	static const struct pin none = { .inode = 0 };

	return placement->files[index].count > 0 ?
	       &placement_replicas(placement, index)->pin : &none;
}

const struct replica *placement_local(const struct placement *placement,
				      uint64_t index)
{
	const struct replica *replica = placement_replicas(placement, index);
	uint32_t i;

	for (i = 0; i < placement->files[index].count; i++)
		if (placement->folders[replica[i].rank] >= 0)
			return &replica[i];
	return NULL;
}

const struct replica *placement_here(const struct placement *placement,
				     uint64_t index)
{
	const struct placed_file *file = &placement->files[index];
	const struct replica *local = placement_local(placement, index);

	return local || !file->has_own ? local :
	       placement_replicas(placement, index) + file->count;
}
