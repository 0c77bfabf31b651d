/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tensor of a world in a folder: each part a stored item with a layout of
 * its own, in one of a few files, and the bytes that readers must see.
 */
#ifndef SUPPORT_STORE_H
#define SUPPORT_STORE_H

#include "support/catalog_out.h"
#include "support/folder.h"
#include "support/item_out.h"

#include "shard/io.h"
#include "shard/source_file.h"
#include "shard/transfer.h"

enum { STORE_FILES = 4 };

struct store {
	struct world world;
	struct folder folder;
	struct catalog *catalog;
	struct pin pins[STORE_FILES + 1];
	struct source_file *source;
	struct reply *reply;
	unsigned char *bytes;	/* row-major, little-endian, bits resolved;
				 * zero in holes */
	uint64_t size;		/* bytes */
	unsigned file_count;
};

/* @plain: all parts row-major and little-endian. */
void store_make(struct store *store, const struct world *world, bool plain,
		struct dice *dice);
void store_free(struct store *store);

/* Look at the files again, and make a new source. */
void store_open(struct store *store);

/* Read @size bytes at @offset of @selection, NULL: all of it. Leaves what was
 * read in store->reply. 0 or -errno. */
int store_read(struct store *store, const struct box *selection,
	       uint64_t offset, uint64_t size);
/* The bytes of store->reply, one behind the other. */
void store_copy(const struct store *store, unsigned char *to);
/* The same bytes of the oracle; false when some lie in a hole. */
bool store_expect(const struct store *store, const struct box *selection,
		  uint64_t offset, uint64_t size, unsigned char *to);

#endif
