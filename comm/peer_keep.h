/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What other ranks keep open for a checkpoint of this one: each that has shards
 * of an entry that is open here is asked to keep all its files of the
 * checkpoint, with the first of them, and told that it need not any more with
 * the last.
 * Thread safe.
 */
#ifndef COMM_PEER_KEEP_H
#define COMM_PEER_KEEP_H

#include "comm/client.h"

struct peer_keep;

/* Borrows @peers, of a client, and what @files has. NULL: no memory. */
struct peer_keep *peer_keep_create(struct peers *peers,
				   const struct shard_files *files);
void peer_keep_destroy(struct peer_keep *keep);

/* As source->hold, of what lies elsewhere; and back. */
int peer_keep_hold(struct peer_keep *keep, const struct catalog_entry *entry,
		   bool nowait);
void peer_keep_release(struct peer_keep *keep,
		       const struct catalog_entry *entry);

#endif
