/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source of shards that other ranks have: what a read needs of each is
 * asked for at once, and what is in files of this machine is read from the
 * source below meanwhile. Of a file that several ranks have, the nearest is
 * read; when that one does not answer, or does not have it any more, the next,
 * round after round:
 *
 *	in a file of this machine -> elsewhere	it is another one now
 *	replica n -> replica n + 1		its rank is suspect or lost, fails,
 *						or has another one now
 *
 * until nobody is left: then what the last one said is the answer. A rank that
 * does not know the checkpoint is told to look, and asked once more.
 *
 * An answer that is all of a reply is lent to it, in the slot that it arrived
 * in; others are copied. With reply->nowait, a read that needs another rank is
 * -EAGAIN, and reply->rank says which one it waits for.
 */
#ifndef COMM_SOURCE_PEER_H
#define COMM_SOURCE_PEER_H

#include "comm/client.h"

/* As peers->source, of the peers of a client. */
struct source *source_peer_create(struct peers *peers,
				  const struct shard_files *files,
				  struct source *below);

#endif
