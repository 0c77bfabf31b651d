/* SPDX-License-Identifier: Apache-2.0 */
/* Catalogs for tests: the calls of the builder, none of which may fail. */
#ifndef SUPPORT_CATALOG_OUT_H
#define SUPPORT_CATALOG_OUT_H

#include "support/world.h"

#include "shard/catalog/catalog_builder.h"

struct catalog_builder *catalog_out_create(struct notes *notes);
void catalog_out_begin(struct catalog_builder *builder, const char *name,
		       enum dtype dtype, const struct box *shape);
void catalog_out_shard(struct catalog_builder *builder, struct box box,
		       const char *file, uint64_t offset, uint64_t size);
void catalog_out_end(struct catalog_builder *builder);
/* The catalog; the builder is destroyed. */
struct catalog *catalog_out_finish(struct catalog_builder *builder);

/* One of so many files and nothing in them. */
struct catalog *catalog_out_files(const char *const *names, unsigned count);

/* The tensor "w" of @world, whose part N is "stored" at offset N: of a shard
 * the catalog then tells which part it is. */
struct catalog *catalog_out_world(const struct world *world);

/* A box at @offset. */
struct box catalog_out_box(unsigned ndim, const uint64_t *offset,
			   const uint64_t *size);
/* Boxes in one line: BOX2(first row, first column, rows, columns). */
#define BOX1(a, m) \
	catalog_out_box(1, (const uint64_t[]){ a }, (const uint64_t[]){ m })
#define BOX2(a, b, m, n) \
	catalog_out_box(2, (const uint64_t[]){ a, b }, \
			(const uint64_t[]){ m, n })

#endif
