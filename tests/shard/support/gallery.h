/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several tensors in one catalog, and what each element of them is, in any
 * type that it may be read as. The bytes come from stored items in a folder,
 * or from a shelf: a source in memory that fails when it is told to.
 */
#ifndef SUPPORT_GALLERY_H
#define SUPPORT_GALLERY_H

#include "support/catalog_out.h"
#include "support/folder.h"

#include "shard/base/array.h"
#include "shard/read/source_file.h"

struct gallery_tensor {
	char *name;		/* owned */
	const struct world *world;	/* borrowed */
	bool numbers;		/* whole numbers from -8 to 8, which every
				 * type with a sign and an exponent holds */
	unsigned char *bytes;	/* owned: row-major, as stored */
};

struct shelf {
	struct source base;
	const struct gallery *gallery;
	unsigned calls;
	unsigned countdown;	/* the read that fails; 0: none */
	int error;		/* with which */
};

enum { GALLERY_FILES = 4 };

struct gallery {
	uint64_t count;
	struct gallery_tensor *tensors;	/* owned */
	struct catalog_builder *builder;	/* until gallery_finish */
	struct notes notes;
	struct catalog *catalog;	/* owned */
	struct shelf shelf;
	/* Only when there are stored items. */
	bool stored;
	struct test_folder folder;
	struct placement *placement;	/* owned */
	atomic_bool stale;
	struct source_file *file;	/* owned */
};

/* Types of float that hold whole numbers: what convert.h converts from. */
bool gallery_has_numbers(enum dtype dtype);

void gallery_init(struct gallery *gallery, bool stored);
/* A tensor called @name, cut as @world, which outlives the gallery. Stored
 * parts are row-major or not, in either byte order. */
void gallery_add(struct gallery *gallery, const char *name,
		 const struct world *world, bool numbers, struct dice *dice);
/* Make the catalog. @gallery does not move from here on. */
void gallery_finish(struct gallery *gallery);
void gallery_free(struct gallery *gallery);

/* Whatever the bytes come from. */
struct source *gallery_source(struct gallery *gallery);

/* The elements of @selection of tensor @index as @dtype, row-major, appended
 * to @out; a hole is zeros. True: there is no hole. */
bool gallery_expect(const struct gallery *gallery, uint64_t index,
		    const struct box *selection, enum dtype dtype,
		    struct array *out);

#endif
