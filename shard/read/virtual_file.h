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

struct virtual_file;

/* Where bytes come from. */
struct virtual_file_origin {
	const struct catalog *catalog; /* borrowed; outlives the file */
	uint64_t entry;			/* index of the tensor or object */
	struct box selection;		/* a part of it: geometry of the entry,
					 * see catalog_select */
	enum dtype dtype;		/* to convert to (convert.h);
					 * DTYPE_UNKNOWN: as stored */
};

/* 0, -EOPNOTSUPP when the type cannot be served or not be converted so,
 * -ENOMEM. The caller has one reference. */
int virtual_file_raw(const struct virtual_file_origin *origin,
		     struct virtual_file **ret_file);
int virtual_file_npy(const struct virtual_file_origin *origin,
		     struct virtual_file **ret_file);

/* A tensor of a safetensors file. */
struct virtual_file_part {
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
int virtual_file_safetensors(const struct catalog *catalog,
			     const struct virtual_file_part *parts,
			     uint64_t count, struct virtual_file **ret_file);

/* A safetensors file of a part of one tensor, under its own name. When it is
 * a slice, `__metadata__` has where it lies, as DCP's shards do. */
int virtual_file_safetensors_slice(const struct virtual_file_origin *origin,
				   struct virtual_file **ret_file);

struct virtual_file *virtual_file_get(struct virtual_file *file);
/* NULL is fine. */
void virtual_file_put(struct virtual_file *file);

/* Bytes of the whole. */
uint64_t virtual_file_size(const struct virtual_file *file);
/* Where the data begins, bytes. */
uint64_t virtual_file_header_size(const struct virtual_file *file);

/*
 * Fill @reply, which was begun, with what is at @offset: all of its size is
 * inside of the file. 0 or -errno (source.h). Thread safe for different
 * replies.
 */
int virtual_file_read(const struct virtual_file *file, struct source *source,
		      uint64_t offset, struct reply *reply);

/* Keep all that the file is made of, as source->hold. */
int virtual_file_hold(const struct virtual_file *file, struct source *source,
		      bool nowait);
void virtual_file_release(const struct virtual_file *file,
			  struct source *source);

#endif
