/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/dtype.h"

#include <string.h>

/* The order is that of safetensors' enum Dtype. */
#define ROW(id, name, torch, storage, npy, size, bits, order, component, kind) \
	[DTYPE_##id] = { name, torch, storage, npy, size, bits, order, \
			 component, DTYPE_KIND_##kind }

static const struct dtype_info infos[DTYPE_COUNT] = {
	ROW(UNKNOWN, "?", "?", NULL, "|V1",
	    0, 0, 0, 0, BITS),
	ROW(F64, "F64", "float64", "Double", "<f8",
	    8, 64, 20, 8, FLOAT),
	ROW(F32, "F32", "float32", "Float", "<f4",
	    4, 32, 18, 4, FLOAT),
	ROW(F16, "F16", "float16", "Half", "<f2",
	    2, 16, 14, 2, FLOAT),
	ROW(BF16, "BF16", "bfloat16", "BFloat16", "<V2",
	    2, 16, 15, 2, FLOAT),
	ROW(I64, "I64", "int64", "Long", "<i8",
	    8, 64, 21, 8, INTEGER),
	ROW(I32, "I32", "int32", "Int", "<i4",
	    4, 32, 16, 4, INTEGER),
	ROW(I16, "I16", "int16", "Short", "<i2",
	    2, 16, 12, 2, INTEGER),
	ROW(I8, "I8", "int8", "Char", "|i1",
	    1, 8, 6, 1, INTEGER),
	ROW(U8, "U8", "uint8", "Byte", "|u1",
	    1, 8, 5, 1, INTEGER),
	ROW(U16, "U16", "uint16", NULL, "<u2",
	    2, 16, 13, 2, INTEGER),
	ROW(U32, "U32", "uint32", NULL, "<u4",
	    4, 32, 17, 4, INTEGER),
	ROW(U64, "U64", "uint64", NULL, "<u8",
	    8, 64, 22, 8, INTEGER),
	ROW(BOOL, "BOOL", "bool", "Bool", "|b1",
	    1, 8, 1, 1, BITS),
	ROW(C64, "C64", "complex64", "ComplexFloat", "<c8",
	    8, 64, 19, 4, COMPLEX),
	ROW(C128, "C128", "complex128", "ComplexDouble", "<c16",
	    16, 128, 0, 8, COMPLEX),
	ROW(C32, "C32", "complex32", "ComplexHalf", "<V4",
	    4, 32, 0, 2, COMPLEX),
	ROW(BC32, "BC32", "bcomplex32", NULL, "<V4",
	    4, 32, 0, 2, COMPLEX),
	ROW(F8_E4M3, "F8_E4M3", "float8_e4m3fn", NULL, "|V1",
	    1, 8, 8, 1, FLOAT),
	ROW(F8_E5M2, "F8_E5M2", "float8_e5m2", NULL, "|V1",
	    1, 8, 7, 1, FLOAT),
	ROW(F8_E4M3FNUZ, "F8_E4M3FNUZ", "float8_e4m3fnuz", NULL, "|V1",
	    1, 8, 10, 1, FLOAT),
	ROW(F8_E5M2FNUZ, "F8_E5M2FNUZ", "float8_e5m2fnuz", NULL, "|V1",
	    1, 8, 11, 1, FLOAT),
	ROW(F8_E8M0, "F8_E8M0", "float8_e8m0fnu", NULL, "|V1",
	    1, 8, 9, 1, BITS),
	/* One byte holds two values, and torch's shapes count bytes. Shapes in
	 * the header of a safetensors file count values: see CATALOG_PACKED. */
	ROW(F4, "F4", "float4_e2m1fn_x2", NULL, "|V1",
	    1, 4, 2, 1, BITS),
	ROW(QI8, "QI8", "qint8", "QInt8", "|V1",
	    1, 8, 0, 1, BITS),
	ROW(QU8, "QU8", "quint8", "QUInt8", "|V1",
	    1, 8, 0, 1, BITS),
	ROW(QI32, "QI32", "qint32", "QInt32", "<V4",
	    4, 32, 0, 4, BITS),
	ROW(QU4X2, "QU4X2", "quint4x2", "QUInt4x2", "|V1",
	    0, 0, 0, 1, BITS),
	ROW(QU2X4, "QU2X4", "quint2x4", "QUInt2x4", "|V1",
	    0, 0, 0, 1, BITS),
	ROW(BITS8, "BITS8", "bits8", NULL, "|V1",
	    1, 8, 0, 1, BITS),
	ROW(BITS16, "BITS16", "bits16", NULL, "<V2",
	    2, 16, 0, 2, BITS),
	ROW(BITS1X8, "BITS1X8", "bits1x8", NULL, "|V1",
	    1, 8, 0, 1, BITS),
	ROW(BITS2X4, "BITS2X4", "bits2x4", NULL, "|V1",
	    1, 8, 0, 1, BITS),
	ROW(BITS4X2, "BITS4X2", "bits4x2", NULL, "|V1",
	    1, 8, 0, 1, BITS),
	/* torch has none of these; the names are those of ONNX. */
	ROW(F6_E2M3, "F6_E2M3", "float6_e2m3fn", NULL, "|V1",
	    1, 6, 3, 1, BITS),
	ROW(F6_E3M2, "F6_E3M2", "float6_e3m2fn", NULL, "|V1",
	    1, 6, 4, 1, BITS),
};

const struct dtype_info *dtype_info(enum dtype dtype)
{
	return &infos[dtype < DTYPE_COUNT ? dtype : DTYPE_UNKNOWN];
}

enum dtype dtype_from_torch(const char *name, size_t size)
{
	int i;

	for (i = 1; i < DTYPE_COUNT; i++)
		if (strlen(infos[i].torch) == size &&
		    memcmp(infos[i].torch, name, size) == 0)
			return (enum dtype)i;
	return DTYPE_UNKNOWN;
}

enum dtype dtype_from_safetensors(const char *name, size_t size)
{
	int i;

	for (i = 1; i < DTYPE_COUNT; i++)
		if (infos[i].order && strlen(infos[i].name) == size &&
		    memcmp(infos[i].name, name, size) == 0)
			return (enum dtype)i;
	return DTYPE_UNKNOWN;
}

enum dtype dtype_from_storage(const char *name, size_t size)
{
	static const char suffix[] = "Storage";
	const size_t suffix_size = sizeof(suffix) - 1;
	int i;

	if (size <= suffix_size ||
	    memcmp(name + size - suffix_size, suffix, suffix_size) != 0)
		return DTYPE_UNKNOWN;
	size -= suffix_size;
	for (i = 1; i < DTYPE_COUNT; i++)
		if (infos[i].storage && strlen(infos[i].storage) == size &&
		    memcmp(infos[i].storage, name, size) == 0)
			return (enum dtype)i;
	return DTYPE_UNKNOWN;
}
