/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint's metadata in memory: one flat blob of offsets, without
 * pointers, built once by catalog_builder and then only read, by any number
 * of threads, and reference counted. Flat, so that a rank can send it to
 * another as it is.
 *
 * An entry is a tensor or an object. Objects (what torch.save made of
 * anything but a tensor) are entries of bytes with one shard, the stored
 * item itself; they come after the tensors. The shards of an entry that tiles
 * exactly are sorted by their first axis; those of an overlapping one keep
 * the order of the checkpoint, since the last one wins. Boxes around what is
 * missing stand behind the shards, as shards of no file, for people to read.
 *
 * Boxes count elements. Elements of less than a byte, which only safetensors
 * has, are counted by bytes (CATALOG_PACKED): the last axes, as many as it
 * takes for a row to be whole bytes, are one axis of bytes, and those in front
 * of it in that row have the size 1. The shape as people write it is kept
 * beside.
 *
 * Memory: an entry 64 bytes, its name, and 4 per further part of its path; a
 * shard 32 bytes and 8 (a tensor with an axis of 2^32 or more: 16) per axis.
 */
#ifndef SHARD_CATALOG_CATALOG_H
#define SHARD_CATALOG_CATALOG_H

#include "shard/base/box.h"
#include "shard/base/dtype.h"
#include "shard/base/hash_table.h"

enum catalog_entry_flag {
	CATALOG_OBJECT = 1,	/* bytes as stored */
	CATALOG_HOLES = 2,	/* parts are missing */
	CATALOG_OVERLAP = 4,	/* shards overlap, and are not sorted */
	CATALOG_PACKED = 8,	/* elements share bytes, boxes count bytes */
};

/* What a shard's `file` holds when there is none. */
enum { CATALOG_NO_FILE = UINT32_MAX };

enum catalog_shard_flag {
	CATALOG_TRANSFORMED = 1,	/* behind stream extensions */
	CATALOG_RAW = 2,		/* no item: the elements, row-major */
	CATALOG_TRANSFORM_SHIFT = 8,	/* above: index of the transforms */
};

/* What wrote the checkpoint. Values are part of the catalog: append only. */
enum catalog_format {
	CATALOG_DCP,		/* .metadata, .distcp */
	CATALOG_DCP_LOCAL,	/* __N.metadata, .distcp */
	CATALOG_SAFETENSORS,	/* one file, or several with or without an
				 * index: each tensor is whole */
	CATALOG_SAFETENSORS_SHARDED, /* DCP's, with DCP_SHARDING_INFO */
};

struct catalog_origin {
	uint32_t format;	/* enum catalog_format */
	/* The releases of torch that write such metadata, 100 * major + minor;
	 * 0: not known, or without an end. */
	uint16_t torch_first, torch_last;
	uint64_t lost;		/* tensors that an index names, and that are in
				 * no file: nobody knows more of them */
};

struct catalog_entry {
	uint64_t name;		/* offset in the blob, bytes */
	uint64_t type_name;	/* likewise: what the checkpoint calls an
				 * unknown type; 0: none */
	uint64_t dims;		/* likewise: shape, then the shape that people
				 * write if packed, then the shards' boxes */
	uint64_t size;		/* bytes of the whole, 0 for unknown types */
	uint64_t first_shard;	/* index */
	uint32_t name_size, type_name_size;
	uint32_t shard_count;	/* without the holes */
	uint32_t hole_count;	/* behind them */
	uint8_t dtype;		/* enum dtype */
	uint8_t ndim;
	uint8_t width;		/* bytes of a number at `dims`: 4 or 8 */
	uint8_t flags;		/* enum catalog_entry_flag */
	uint32_t depth;		/* parts of its path in the state dict; 0: not
				 * known. Behind the name, unaligned uint32_t:
				 * where in it each part but the last ends */
};

struct catalog_shard {
	uint64_t offset;	/* of the stored item in its file, bytes */
	uint64_t size;		/* of the stored item, bytes */
	uint64_t reach;		/* largest end on axis 0 up to this shard */
	uint32_t file;		/* index, or CATALOG_NO_FILE */
	uint32_t flags;		/* enum catalog_shard_flag */
};

/* A chain of stream extensions, innermost first, each behind a line end. */
struct catalog_transform {
	uint64_t text;		/* offset in the blob, bytes */
	uint64_t text_size;
};

struct catalog_file {
	uint64_t path;		/* offset in the blob; NUL terminated, relative
				 * to the checkpoint's folder */
	uint32_t path_size;
	uint32_t reserved;	/* 0 */
};

/* The start of the blob. Offsets are bytes from here, multiples of 8. */
struct catalog {
	uint64_t magic;
	uint64_t size;			/* of the blob, bytes */
	uint64_t hash[2];		/* XXH3-128 of all from the entries to
					 * the names, low half first */
	uint64_t seed;			/* of the hash tables */
	struct catalog_origin origin;
	uint64_t tensor_count, object_count, shard_count, file_count;
	uint64_t transform_count;
	uint64_t entries, shards, files, transforms, dims, names;
	uint64_t tensor_slots, object_slots; /* hash tables of uint32_t */
	uint64_t tensor_slot_count, object_slot_count; /* powers of two */
};

/* Memory for one of @size bytes, all zero, with one reference. NULL: there is
 * none. */
struct catalog *catalog_create(uint64_t size);
struct catalog *catalog_get(struct catalog *catalog);
/* NULL is fine. */
void catalog_put(struct catalog *catalog);

const struct catalog_entry *catalog_entry(const struct catalog *catalog,
					  uint64_t index);
const struct catalog_shard *catalog_shard(const struct catalog *catalog,
					  const struct catalog_entry *entry,
					  uint64_t index);
/* Shard @index of all, holes too. */
const struct catalog_shard *catalog_shard_at(const struct catalog *catalog,
					     uint64_t index);
const struct catalog_file *catalog_file(const struct catalog *catalog,
					uint64_t index);
/* Bytes at @offset of the blob. */
const char *catalog_text(const struct catalog *catalog, uint64_t offset);

/* The names of the stream extensions of a CATALOG_TRANSFORMED shard, as in
 * struct catalog_transform; not terminated. */
const char *catalog_transforms(const struct catalog *catalog,
			       const struct catalog_shard *shard,
			       size_t *ret_size);

/* The whole entry as a box at the origin. */
void catalog_shape(const struct catalog *catalog,
		   const struct catalog_entry *entry, struct box *ret_box);
/* The box of shard @index of @entry. */
void catalog_box(const struct catalog *catalog,
		 const struct catalog_entry *entry, uint64_t index,
		 struct box *ret_box);

/* Its shape as people write it: as above, unless it is packed. */
void catalog_written_shape(const struct catalog *catalog,
			   const struct catalog_entry *entry,
			   struct box *ret_box);
/* From a box of the written shape to one of the entry; false when it does not
 * fall on bytes. */
bool catalog_select(const struct catalog *catalog,
		    const struct catalog_entry *entry,
		    const struct box *written, struct box *ret_box);
/* And back: the part of the written shape that @box of the entry is. */
void catalog_written(const struct catalog *catalog,
		     const struct catalog_entry *entry, const struct box *box,
		     struct box *ret_written);
/* Does the path of @entry lie below the key @key, a join of parts by dots
 * such as "app.model"? Its rest then begins at key_size + 1 of the name. */
bool catalog_is_below(const struct catalog *catalog,
		      const struct catalog_entry *entry, const char *key,
		      size_t key_size);
/* Bytes of the first @parts parts of its path, 0 < @parts < depth. */
size_t catalog_path_size(const struct catalog *catalog,
			 const struct catalog_entry *entry, unsigned parts);

/* Index of the tensor, or of the object, whose encoded name is @name;
 * -1 when there is none. */
int64_t catalog_find_tensor(const struct catalog *catalog, const char *name,
			    size_t size);
int64_t catalog_find_object(const struct catalog *catalog, const char *name,
			    size_t size);

/*
 * The hash tables of tensors and of objects: from a struct hash_table_text, the
 * encoded name, to the index of an entry. Their owner is the catalog, which has
 * the slots, so nothing is to be finished: they are for who fills them, once,
 * and for looking up.
 */
struct hash_table catalog_tensor_table(const struct catalog *catalog);
struct hash_table catalog_object_table(const struct catalog *catalog);

#endif
