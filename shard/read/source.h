/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A place that holds bytes of shards.
 *
 * errno vocabulary of reads:
 *	EIO		damaged, missing, or contradicts the metadata
 *	EOPNOTSUPP	stored in a form, or of a type, that is not read
 *	ESTALE		the store changed since the catalog was built
 *	E2BIG		beyond a limit of limits.h
 *	ENOMEM, EMFILE	no room here; may work later
 *	EAGAIN		would block, and the reply said not to; never seen by
 *			who reads a file
 */
#ifndef SHARD_READ_SOURCE_H
#define SHARD_READ_SOURCE_H

#include "shard/read/plan.h"
#include "shard/read/reply.h"

/*
 * `read` puts what the @count pieces of @plan hold where they belong behind the
 * base of @reply, all of it or -errno; of pieces that overlap the last one
 * counts. Thread safe. It may fill reply->fault once for each bad item.
 */
struct source {
	int (*read)(struct source *source, const struct plan *plan,
		    const struct piece *pieces, unsigned count,
		    struct reply *reply);
	void (*destroy)(struct source *source);
};

#endif
