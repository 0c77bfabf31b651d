/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a catalog, entry by entry: begin, its shards in the order of the
 * checkpoint, end. Every call is 0 or -errno with @fault filled where there
 * is one; after an error only destroy may follow. One thread.
 */
#ifndef SHARD_CATALOG_CATALOG_BUILDER_H
#define SHARD_CATALOG_CATALOG_BUILDER_H

#include "shard/base/fault.h"
#include "shard/base/notes.h"
#include "shard/catalog/catalog.h"
#include "shard/catalog/shard_list.h"

struct catalog_builder;

/* @notes, borrowed, gets a line for each hole and overlap, and for what readers
 * find odd. NULL: no memory. */
struct catalog_builder *catalog_builder_create(struct notes *notes);
void catalog_builder_destroy(struct catalog_builder *builder);
/* The notes that it was created with. */
struct notes *catalog_builder_notes(const struct catalog_builder *builder);

/* The index of the file @path, of @size bytes, which is added when new. */
int catalog_builder_file(struct catalog_builder *builder, const char *path,
			 size_t size, uint32_t *ret_file);

/* What the catalog says of where it comes from. */
void catalog_builder_origin(struct catalog_builder *builder,
			    const struct catalog_origin *origin);

/* Bits for the flags of an item behind the stream extensions @text, of @size
 * bytes as in struct catalog_transform. -E2BIG: too many different ones. */
int catalog_builder_transform(struct catalog_builder *builder,
			      const char *text, size_t size,
			      uint32_t *ret_flags);

struct catalog_tensor {
	const char *name;	/* borrowed during the call */
	size_t name_size;	/* bytes */
	const char *type_name;	/* of an unknown type, else NULL */
	size_t type_name_size;
	enum dtype dtype;
	struct box shape;	/* at the origin */
	const uint64_t *written; /* sizes of a packed one as people write
				 * them; borrowed; else NULL */
	const uint32_t *path;	/* where in the name each part of its path but
				 * the last ends; borrowed; may be NULL */
	uint32_t depth;		/* parts of the path; 0: not known */
	uint64_t source;	/* byte offset in the metadata, for faults */
};

int catalog_builder_begin(struct catalog_builder *builder,
			  const struct catalog_tensor *tensor,
			  struct fault *fault);
/* A box outside of the tensor is refused with -EBADMSG, unless it is empty:
 * old writers left the offsets of empty shards undefined. */
int catalog_builder_shard(struct catalog_builder *builder,
			  const struct box *box,
			  const struct catalog_item *item,
			  struct fault *fault);
int catalog_builder_end(struct catalog_builder *builder, struct fault *fault);

/* An object: the bytes of @item. */
int catalog_builder_object(struct catalog_builder *builder, const char *name,
			   size_t name_size, const struct catalog_item *item,
			   struct fault *fault);

/* The catalog; the caller puts it. */
int catalog_builder_finish(struct catalog_builder *builder,
			   struct catalog **ret_catalog);

#endif
