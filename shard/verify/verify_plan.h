/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What verify.c works on.
 *
 *	refs	every shard with a stored item, in the order of the store
 *	items	runs of refs to the same bytes: entries may share an item
 *	units	parts of items; one, unless the item is large
 */
#ifndef SHARD_VERIFY_VERIFY_PLAN_H
#define SHARD_VERIFY_VERIFY_PLAN_H

#include "shard/verify/verify.h"

#include <pthread.h>
#include <stdatomic.h>

/* What is known of an entry; all of it that applies. */
enum {
	ENTRY_UNCHECKED = 1,	/* some checksum was not computed */
	ENTRY_HASHED = 2,	/* some were */
	ENTRY_BARE = 4,		/* some item or file has none */
};

struct verify_ref {
	uint32_t entry, shard;
};

/* An item in parts, while they are being verified. */
struct verify_split {
	uint64_t done;			/* parts; guarded by lock */
	bool failed;			/* likewise: some part is not read */
	struct verify_part parts[];	/* each its unit's, until all are
					 * done */
};

struct verify_place {
	uint64_t first_ref, first_unit;	/* const */
	struct verify_split *split;	/* owned; guarded by lock */
};

struct verify {
	const struct checkpoint *checkpoint;	/* borrowed; const, as are all
						 * that name no guard */
	const struct catalog *catalog;
	const struct verify_sink *sink;		/* borrowed */
	bool quick;
	struct verify_ref *refs;		/* owned */
	uint64_t ref_count;
	struct verify_place *items;		/* owned; one more, the end */
	uint64_t item_count, size;
	_Atomic unsigned char *entries;		/* owned */
	bool *cut;				/* owned; by file: items end
						 * beyond its end */
	pthread_mutex_t lock;
	uint64_t fault_count;			/* guarded by lock */
};

/* Fill refs and items, and tell what can be said without reading. 0 or
 * -ENOMEM. */
int verify_plan(struct verify *verify);

const struct catalog_shard *verify_shard(const struct verify *verify,
					 const struct verify_ref *ref);
uint64_t verify_part_size(const struct catalog_shard *shard);
/* 1: it is not verified in parts. */
uint64_t verify_part_count(const struct verify *verify,
			   const struct catalog_shard *shard);

/* All of the file from where the item of @shard begins. */
struct catalog_shard verify_rest(const struct verify *verify,
				 const struct catalog_shard *shard);

/* The shard itself: where it stands. */
void verify_tell(struct verify *verify, const struct verify_ref *ref,
		 enum verify_kind kind, const char *reason,
		 const char *detail);
/* Something in its item. */
void verify_tell_findings(struct verify *verify, const struct verify_ref *ref,
			  const struct verify_findings *findings);
void verify_mark(struct verify *verify, uint32_t entry, unsigned what);

#endif
