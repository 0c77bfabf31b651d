/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Element types: one table with every spelling of a type that ckptfs meets.
 * Sources: torch/csrc/utils/tensor_dtypes.cpp, torch/storage.py,
 * safetensors/src/tensor.rs (Dtype), NumPy's array interface.
 */
#ifndef SHARD_BASE_DTYPE_H
#define SHARD_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>

/* Values are part of the catalog: append only. */
enum dtype {
	DTYPE_UNKNOWN,	/* a type that this table does not have */
	DTYPE_F64,
	DTYPE_F32,
	DTYPE_F16,
	DTYPE_BF16,
	DTYPE_I64,
	DTYPE_I32,
	DTYPE_I16,
	DTYPE_I8,
	DTYPE_U8,
	DTYPE_U16,
	DTYPE_U32,
	DTYPE_U64,
	DTYPE_BOOL,
	DTYPE_C64,
	DTYPE_C128,
	DTYPE_C32,
	DTYPE_BC32,
	DTYPE_F8_E4M3,
	DTYPE_F8_E5M2,
	DTYPE_F8_E4M3FNUZ,
	DTYPE_F8_E5M2FNUZ,
	DTYPE_F8_E8M0,
	DTYPE_F4,
	DTYPE_QI8,
	DTYPE_QU8,
	DTYPE_QI32,
	DTYPE_QU4X2,
	DTYPE_QU2X4,
	DTYPE_BITS8,
	DTYPE_BITS16,
	DTYPE_BITS1X8,
	DTYPE_BITS2X4,
	DTYPE_BITS4X2,
	DTYPE_F6_E2M3,
	DTYPE_F6_E3M2,
	DTYPE_COUNT,
};

enum dtype_kind {
	DTYPE_KIND_BITS,	/* bool, and what has no sign */
	DTYPE_KIND_INTEGER,	/* two's complement */
	DTYPE_KIND_FLOAT,	/* the highest bit is the sign */
	DTYPE_KIND_COMPLEX,	/* two floats: real, imaginary */
};

/* Bytes of the largest element. */
enum { DTYPE_SIZE_MAX = 16 };

struct dtype_info {
	const char *name;	/* safetensors: "F32"; others by its scheme */
	const char *torch;	/* torch.NAME: "float32" */
	const char *storage;	/* torch.NAMEStorage: "Float"; NULL: untyped */
	const char *npy;	/* descr of a .npy header: "<f4" */
	uint8_t size;		/* bytes of an element, 1 of those that share
				 * bytes; 0: cannot be served */
	uint8_t bits;		/* of an element as safetensors counts them:
				 * 8 * size, but 4 of F4 and 6 of F6 */
	uint8_t order;		/* in which safetensors sorts tensors, by
				 * alignment; 0: it has no such type */
	uint8_t component;	/* bytes of what byte order swaps; half of an
				 * element of a complex type */
	enum dtype_kind kind;
};

/* Constant; for DTYPE_UNKNOWN name is "?" and size 0. */
const struct dtype_info *dtype_info(enum dtype dtype);

/* From "float32" (no prefix), @size bytes; DTYPE_UNKNOWN when not known. */
enum dtype dtype_from_torch(const char *name, size_t size);

/* From "BF16", @size bytes, of the types that safetensors has; else
 * DTYPE_UNKNOWN. */
enum dtype dtype_from_safetensors(const char *name, size_t size);

/* From "FloatStorage", @size bytes; DTYPE_UNKNOWN when not known. */
enum dtype dtype_from_storage(const char *name, size_t size);

#endif
