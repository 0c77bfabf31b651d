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

/* Thread safe, but for destroy. */
struct source {
	/*
	 * Put what the @count pieces of @plan hold where they belong behind
	 * the base of @reply, all of it or -errno; of pieces that overlap the
	 * last one counts. It may fill reply->fault once for each bad item.
	 */
	int (*read)(struct source *source, const struct plan *plan,
		    const struct piece *pieces, unsigned count,
		    struct reply *reply);
	/*
	 * Keep the files that @entry is in, so that it is read whatever becomes
	 * of their names, until `release`; as far as there are descriptors and
	 * ranks for it. 0; -EAGAIN if @nowait; -ESTALE: one is another file
	 * already. Both may be NULL: there is nothing to keep.
	 */
	int (*hold)(struct source *source, const struct catalog_entry *entry,
		    bool nowait);
	void (*release)(struct source *source,
			const struct catalog_entry *entry);
	void (*destroy)(struct source *source);
};

#endif
