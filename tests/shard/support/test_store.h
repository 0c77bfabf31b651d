/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tensor of a world in a folder: each part a stored item with a layout of
 * its own, in one of a few files, and the bytes that readers must see.
 */
#ifndef SUPPORT_TEST_STORE_H
#define SUPPORT_TEST_STORE_H

#include "support/catalog_out.h"
#include "support/folder.h"
#include "support/item_out.h"

#include "shard/base/io.h"
#include "shard/read/source_file.h"
#include "shard/read/transfer.h"

enum { STORE_FILES = 4 };

struct test_store {
	struct world world;
	struct test_folder folder;
	struct catalog *catalog;
	struct placement *placement;	/* owned */
	atomic_bool stale;	/* a file was found to be another */
	struct source_file *source;
	struct reply *reply;
	unsigned char *bytes;	/* row-major, little-endian, bits resolved;
				 * zero in holes */
	uint64_t size;		/* bytes */
	unsigned file_count;
};

/* @plain: all parts row-major and little-endian. */
void test_store_make(struct test_store *store, const struct world *world, bool plain,
		struct dice *dice);
void test_store_free(struct test_store *store);

/* Look at the files again, and make a new source. */
void test_store_open(struct test_store *store);

/* Read @size bytes at @offset of @selection, NULL: all of it. Leaves what was
 * read in store->reply. 0 or -errno. */
int test_store_read(struct test_store *store, const struct box *selection,
	       uint64_t offset, uint64_t size);
/* The bytes of store->reply, one behind the other. */
void test_store_copy(const struct test_store *store, unsigned char *to);
/* The same bytes of the oracle; false when some lie in a hole. */
bool test_store_expect(const struct test_store *store, const struct box *selection,
		  uint64_t offset, uint64_t size, unsigned char *to);

#endif
