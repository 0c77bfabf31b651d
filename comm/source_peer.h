/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source of shards that other ranks have: what a read needs of each is
 * asked for at once, and what is in files of this machine is read from the
 * source below meanwhile. An answer that is all of a reply is lent to it, in the
 * slot that it arrived in; others are copied.
 *
 * With reply->nowait, a read that needs another rank is -EAGAIN, and
 * reply->rank says which one it waits for.
 */
#ifndef COMM_SOURCE_PEER_H
#define COMM_SOURCE_PEER_H

#include "comm/engine.h"

/* Borrows all but copies @files itself; NULL: no memory. */
struct source *source_peer_create(struct engine *engine, struct peers *peers,
				  const struct shard_files *files,
				  struct source *below);

#endif
