/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of one file of a view, or of an export: a header, and behind it
 * tensors one after the other. Nothing of the tensors is materialised: a read
 * is planned and put together when it comes. Immutable once made, reference
 * counted, and thread safe.
 *
 *	raw		no header, one tensor or a slice of it
 *	npy		a NumPy header, likewise
 *	safetensors	a safetensors header, any number of tensors
 */
#ifndef SHARD_READ_VIRTUAL_FILE_H
#define SHARD_READ_VIRTUAL_FILE_H

#include "shard/read/source.h"

struct image;

/* Where bytes come from. */
struct image_origin {
	const struct catalog *catalog;	/* borrowed; outlives the image */
	uint64_t entry;			/* index of the tensor or object */
	struct box selection;		/* a part of it: geometry of the entry,
					 * see catalog_select */
	enum dtype dtype;		/* to convert to (convert.h);
					 * DTYPE_UNKNOWN: as stored */
};

/* 0, -EOPNOTSUPP when the type cannot be served or not be converted so,
 * -ENOMEM. The caller has one reference. */
int image_raw(const struct image_origin *origin, struct image **ret_image);
int image_npy(const struct image_origin *origin, struct image **ret_image);

/* A tensor of a safetensors image. */
struct image_part {
	uint64_t entry;		/* index of the tensor */
	enum dtype dtype;	/* to convert to; DTYPE_UNKNOWN: as stored */
	size_t key;		/* where in its name its key begins, bytes */
	bool left_out;		/* not to be there, but named as such */
};

/*
 * A safetensors file of @parts, sorted as the library wants it. The header is
 * padded so that the data starts at a multiple of 4096; `__metadata__` has
 * "format": "pt". Parts with holes, and of types that safetensors has no name
 * for, are left out, too; `__metadata__` names all that are in
 * "ckptfs.left_out", a JSON array.
 * 0; -E2BIG when the header is larger than the format allows; -ENOMEM.
 */
int image_safetensors(const struct catalog *catalog,
		      const struct image_part *parts, uint64_t count,
		      struct image **ret_image);

/* A safetensors file of a part of one tensor, under its own name. When it is
 * a slice, `__metadata__` has where it lies, as DCP's shards do. */
int image_safetensors_slice(const struct image_origin *origin,
			    struct image **ret_image);

struct image *image_get(struct image *image);
/* NULL is fine. */
void image_put(struct image *image);

/* Bytes of the whole. */
uint64_t image_size(const struct image *image);
/* Where the data begins, bytes. */
uint64_t image_header_size(const struct image *image);

/*
 * Make @reply hold bytes [@offset, @offset + @size), inside of the image and
 * at most LIMIT_READ_SIZE, laid out in reply->iov until it is released. The
 * image must live as long. 0 or -errno (source.h). Thread safe for different
 * replies.
 */
int image_read(const struct image *image, struct source *source,
	       uint64_t offset, uint64_t size, struct reply *reply);

#endif
