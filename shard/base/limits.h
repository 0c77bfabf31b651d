/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every limit on what a checkpoint may ask of us, one line each, with its
 * reason. Beyond a limit the answer is E2BIG (or the refusal of the
 * checkpoint), never a guess and never a large allocation.
 */
#ifndef SHARD_BASE_LIMITS_H
#define SHARD_BASE_LIMITS_H

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

/* Axes of a tensor: what NumPy 1 can hold; PyTorch stops at 64. */
#define LIMIT_NDIM 32

/* Bytes of a tensor: offsets in files are signed 64-bit numbers. */
#define LIMIT_TENSOR_SIZE ((uint64_t)INT64_MAX / 2)

/* Bytes of a fully qualified name: an extended attribute must hold it. */
#define LIMIT_NAME_SIZE (64 * KIB)

/* Bytes of an encoded name before it is cut and hashed: leaves room below
 * the kernel's 255 for the hash, a slice and a suffix. */
#define LIMIT_ENCODED_SIZE 180

/* Bytes of one extended attribute: the kernel's XATTR_SIZE_MAX. */
#define LIMIT_XATTR_SIZE (64 * KIB)

/* Bytes of one .metadata file: 30 million shards at 143 bytes each; it is
 * read whole, so this also bounds the memory of a hostile one. */
#define LIMIT_METADATA_SIZE (4 * GIB)

/* Rank-local metadata files of one checkpoint: more ranks than any job. */
#define LIMIT_METADATA_FILES 65536

/* Memory for the values of a pickle, per byte of input: real ones need
 * about 5, the densest possible opcodes would need 40. The slack lets small
 * pickles be dense. */
#define LIMIT_PICKLE_FACTOR 16
#define LIMIT_PICKLE_SLACK (16 * KIB)

/* Attributes of one object: classes of PyTorch and Megatron have up to 8. Many
 * objects may share one dict of them, which is searched for each. */
#define LIMIT_ATTRIBUTES 64

/* Bytes of metadata for one shard or tensor of it and again for each 4 axes:
 * real ones have over 100, and a list of shards that many tensors share would
 * make many out of a few. */
#define LIMIT_SHARD_COST 8

/* Different chains of stream extensions in one checkpoint, extensions in one
 * chain, and bytes of the name of one: a writer is configured with one chain,
 * of one or two, and "stream.zstd/1" has 13. */
#define LIMIT_TRANSFORMS 256
#define LIMIT_TRANSFORM_DEPTH 8
#define LIMIT_TRANSFORM_NAME 256

/* Parts of the path of a tensor in its state dict. Real ones have up to 8. */
#define LIMIT_PATH_DEPTH 256

/* Bytes of the header of a safetensors file: the format's own limit. */
#define LIMIT_SAFETENSORS_HEADER ((uint64_t)100 * 1000 * 1000)

/* Bytes of a value in JSON that is no string: real ones have under 1000, and
 * one takes up to 40 times its size in memory. */
#define LIMIT_JSON_VALUE_SIZE MIB

/* Bytes of the name of a type: "float8_e4m3fnuz" has 15. */
#define LIMIT_TYPE_NAME_SIZE 64

/* Bytes of the data.pkl of a tensor: real ones have 150 to 400. */
#define LIMIT_TENSOR_PICKLE_SIZE (64 * KIB)

/* Bytes of the data.pkl of an object that is shown as JSON, depth of its
 * nesting, and memory that its tree may take, per byte of input and in all:
 * shared parts could make it exponentially larger than its input. */
#define LIMIT_OBJECT_PICKLE_SIZE (16 * MIB)
#define LIMIT_OBJECT_DEPTH 64
#define LIMIT_OBJECT_FACTOR 128
#define LIMIT_OBJECT_SLACK MIB
#define LIMIT_OBJECT_MEMORY (256 * MIB)

/* Bytes of the central directory of a stored item: a tensor has 7 records of
 * about 70 bytes, and many shards may claim one item; objects that hold
 * tensors have a record more for each of them. */
#define LIMIT_TENSOR_DIRECTORY_SIZE (16 * KIB)
#define LIMIT_OBJECT_DIRECTORY_SIZE (16 * MIB)

/* Bytes of tensors.json per byte of its catalog: real ones need 3 to 6, but
 * shards may share a long path. The slack is for small ones. */
#define LIMIT_JSON_FACTOR 32
#define LIMIT_JSON_SLACK MIB

/* Bytes of the name of a record, and of a path inside a checkpoint. */
#define LIMIT_PATH_SIZE 4096

/* Tensors, objects, shards and files of one checkpoint: 32-bit indices. */
#define LIMIT_COUNT ((uint64_t)1 << 31)

/* Slots in use one behind the other in a catalog's tables of names. Half of the
 * slots are free: under a seed that nobody knew, 2^31 names make runs of about
 * 120. Names that were chosen for a seed would make every look-up slow. */
#define LIMIT_SLOT_RUN 1024

/* Comparisons of two boxes that an overlap may cost us to find: about a second
 * of work. A mesh of 96 x 8 x 64 shards needs 2^24. */
#define LIMIT_TILE_STEPS ((uint64_t)1 << 26)

/* Boxes that tensors.json names as the holes of one tensor; beyond, it names
 * the whole tensor, within which they lie. */
#define LIMIT_HOLES 256

/* Bytes of one read: what the kernel asks for at most (256 pages). */
#define LIMIT_READ_SIZE MIB

/* Pieces that one rank asks another for at once: what the loop of a read
 * gathers before it calls a source. */
#define LIMIT_PIECES 16

/* Bytes of a file that two ranks have which are compared: metadata and
 * configurations; of larger ones the sizes are. */
#define LIMIT_COMPARE_SIZE (16 * MIB)

/* What is said to be wrong with one stored item: an archive of many records
 * that was overwritten would say it of each. */
#define LIMIT_ITEM_FINDINGS 16

/* Parts in which one stored item is verified: 1 TiB in parts of 16 MiB. */
#define LIMIT_VERIFY_PARTS 65536

/* Lines that one catalog may say about what is odd in it. */
#define LIMIT_NOTES 32

#endif
