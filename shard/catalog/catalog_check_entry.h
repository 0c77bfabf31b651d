/* SPDX-License-Identifier: Apache-2.0 */
/* What of catalog_check.h is about entries and their shards. */
#ifndef SHARD_CATALOG_CATALOG_CHECK_ENTRY_H
#define SHARD_CATALOG_CATALOG_CHECK_ENTRY_H

#include "shard/base/fault.h"
#include "shard/catalog/catalog.h"

struct catalog_checker {
	const struct catalog *catalog;	/* borrowed; its header was checked */
	struct fault *fault;		/* borrowed; may be NULL */
	/* Of what was seen so far: */
	uint64_t text_size;		/* bytes in the names */
	uint64_t shard_count;		/* the next entry's shards begin here */
	uint64_t dims;			/* and its numbers here */
};

/* -EBADMSG, said of what lies at @where in the blob. */
int catalog_checker_refuse(const struct catalog_checker *checker,
			   const void *where, const char *reason);

/*
 * Do @size bytes of text at @offset lie in the names? All texts together must
 * not be larger than these: texts over each other would make many of a few.
 */
bool catalog_checker_text(struct catalog_checker *checker, uint64_t offset,
			  uint64_t size);

/* All entries with their texts, numbers and shards. 0 or -EBADMSG. */
int catalog_checker_entries(struct catalog_checker *checker);

#endif
