/* SPDX-License-Identifier: Apache-2.0 */
/* The tensor of a store, written again with its items behind stream
 * extensions, and a source that decodes them. */
#ifndef SUPPORT_CODED_H
#define SUPPORT_CODED_H

#include "support/test_store.h"

#include "shard/read/source_decoded.h"

enum { CODED_FILES = 3 };

struct coded {
	struct test_store store;	/* what must be read; its reply is used */
	struct catalog *catalog;
	struct placement *placement;	/* owned */
	atomic_bool stale;
	struct source_file *files;
	struct source_decoded *source;
};

/* How one item is to be stored: compressed so often, in these forms (see
 * zstd_out.h), and said to be behind the extensions @chain. */
struct coded_form {
	unsigned depth, forms;
	const char *chain;	/* NULL: what it is */
};

/* @plain as in test_store_make. @form is asked for each part, in the order of the
 * catalog. */
void coded_make(struct coded *coded, const struct world *world, bool plain,
		struct dice *dice,
		struct coded_form (*form)(struct dice *dice, unsigned part));
void coded_free(struct coded *coded);

/* The tensor of CODED_PARTS parts in one column, row-major, each of which has
 * CODED_PART_SIZE bytes. */
enum { CODED_PARTS = 4, CODED_PART_SIZE = 16 * 1024 };
void coded_rows(struct coded *coded, struct dice *dice,
		struct coded_form (*form)(struct dice *dice, unsigned part));
/* One part of it, into the reply of the store; and the same, compared. */
int coded_read_part(const struct coded *coded, unsigned part);
void coded_check_part(const struct coded *coded, unsigned part);

/* Look at the files again, and make a new source, with @cache. */
void coded_open(struct coded *coded, struct decoded_cache *cache);
/* Without the source. */
void coded_close(struct coded *coded);

const struct catalog_shard *coded_shard(const struct coded *coded,
					unsigned part);
const char *coded_path(const struct coded *coded, unsigned part);

/* As test_store_read, into @reply. */
int coded_read(const struct coded *coded, struct reply *reply,
	       const struct box *selection, uint64_t offset, uint64_t size);

/* Read and compare; the oracle says whether a hole is met. */
void coded_check(const struct coded *coded, const struct box *selection,
		 uint64_t offset, uint64_t size);

#endif
