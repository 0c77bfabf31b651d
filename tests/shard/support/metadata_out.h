/* SPDX-License-Identifier: Apache-2.0 */
/* The pickle `.metadata` of a checkpoint, as PyTorch writes it. */
#ifndef SUPPORT_METADATA_OUT_H
#define SUPPORT_METADATA_OUT_H

#include "support/put.h"

#include "shard/base/box.h"
#include "shard/catalog/catalog_builder.h"

#include <stdbool.h>

struct metadata {
	/* Set before the first call. */
	unsigned protocol;	/* 0: 4 */
	bool old;		/* modules of torch 1.13, enum by getattr */
	bool old_properties;	/* of tensors, as in torch 2.2 */
	bool megatron;		/* its classes and attributes of the root */
	const char *transform;	/* a descriptor in every item, or NULL */
	struct array transforms; /* all of them, instead: a pickled value */
	struct array planner;	/* planner_data: a pickled value */
	struct array root;	/* pickled keys and values that the root has
				 * besides */
	/* Set by the functions below. */
	struct array tensors, storage, paths;
};

/* A tensor, its chunks, its end. @dtype is torch's name of the type. */
void metadata_begin(struct metadata *metadata, const char *name,
		    const char *dtype, unsigned ndim, const uint64_t *size);
void metadata_chunk(struct metadata *metadata, const struct box *box);
void metadata_end(struct metadata *metadata);

void metadata_object(struct metadata *metadata, const char *name);

struct metadata_place {
	const char *path;
	uint64_t offset, length;	/* bytes */
};

/* Where the chunk @box of @name is, or the object @name when @box is NULL. */
void metadata_item(struct metadata *metadata, const char *name,
		   const struct box *box, struct metadata_place place);

/* A tensor of one chunk, and its item. */
void metadata_whole(struct metadata *metadata, const char *name,
		    const char *dtype, const struct box *shape,
		    struct metadata_place place);

/* The path of @name, which the pickled value @path is. */
void metadata_path(struct metadata *metadata, const char *name,
		   const struct array *path);

/* Append the pickle to @out, and free what @metadata holds. */
void metadata_finish(struct metadata *metadata, struct array *out);

/* The catalog of @count files, of which each is freed; @notes is as the
 * reader leaves it. Rank-local when @local. */
struct catalog *metadata_read(struct array *files, unsigned count, bool local,
			      struct notes *notes);
/* The same of one file. */
struct catalog *metadata_catalog(struct metadata *metadata);

#endif
