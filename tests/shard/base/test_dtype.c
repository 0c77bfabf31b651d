/* SPDX-License-Identifier: Apache-2.0 */
/* The table of types against another one, made of the documents of PyTorch,
 * safetensors and NumPy. */
#include "support/test.h"

#include "shard/base/dtype.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct row {
	enum dtype dtype;
	const char *name, *torch, *storage, *npy;
	unsigned size, component;
};

static const struct row rows[] = {
	{ DTYPE_F64, "F64", "float64", "DoubleStorage", "<f8", 8, 8 },
	{ DTYPE_F32, "F32", "float32", "FloatStorage", "<f4", 4, 4 },
	{ DTYPE_F16, "F16", "float16", "HalfStorage", "<f2", 2, 2 },
	{ DTYPE_BF16, "BF16", "bfloat16", "BFloat16Storage", "<V2", 2, 2 },
	{ DTYPE_I64, "I64", "int64", "LongStorage", "<i8", 8, 8 },
	{ DTYPE_I32, "I32", "int32", "IntStorage", "<i4", 4, 4 },
	{ DTYPE_I16, "I16", "int16", "ShortStorage", "<i2", 2, 2 },
	{ DTYPE_I8, "I8", "int8", "CharStorage", "|i1", 1, 1 },
	{ DTYPE_U8, "U8", "uint8", "ByteStorage", "|u1", 1, 1 },
	{ DTYPE_U16, "U16", "uint16", NULL, "<u2", 2, 2 },
	{ DTYPE_U32, "U32", "uint32", NULL, "<u4", 4, 4 },
	{ DTYPE_U64, "U64", "uint64", NULL, "<u8", 8, 8 },
	{ DTYPE_BOOL, "BOOL", "bool", "BoolStorage", "|b1", 1, 1 },
	{ DTYPE_C64, "C64", "complex64", "ComplexFloatStorage", "<c8", 8, 4 },
	{ DTYPE_C128, "C128", "complex128", "ComplexDoubleStorage", "<c16",
	  16, 8 },
	{ DTYPE_C32, "C32", "complex32", NULL, "<V4", 4, 2 },
	{ DTYPE_BC32, "BC32", "bcomplex32", NULL, NULL, 4, 2 },
	{ DTYPE_F8_E4M3, "F8_E4M3", "float8_e4m3fn", NULL, "|V1", 1, 1 },
	{ DTYPE_F8_E5M2, "F8_E5M2", "float8_e5m2", NULL, "|V1", 1, 1 },
	{ DTYPE_F8_E4M3FNUZ, "F8_E4M3FNUZ", "float8_e4m3fnuz", NULL, "|V1",
	  1, 1 },
	{ DTYPE_F8_E5M2FNUZ, "F8_E5M2FNUZ", "float8_e5m2fnuz", NULL, "|V1",
	  1, 1 },
	{ DTYPE_F8_E8M0, "F8_E8M0", "float8_e8m0fnu", NULL, "|V1", 1, 1 },
	{ DTYPE_F4, "F4", "float4_e2m1fn_x2", NULL, "|V1", 1, 1 },
	{ DTYPE_QI8, "QI8", "qint8", "QInt8Storage", "|V1", 1, 1 },
	{ DTYPE_QU8, "QU8", "quint8", "QUInt8Storage", "|V1", 1, 1 },
	{ DTYPE_QI32, "QI32", "qint32", "QInt32Storage", NULL, 4, 4 },
	{ DTYPE_QU4X2, "QU4X2", "quint4x2", "QUInt4x2Storage", NULL, 0, 1 },
	{ DTYPE_QU2X4, "QU2X4", "quint2x4", "QUInt2x4Storage", NULL, 0, 1 },
	{ DTYPE_BITS8, "BITS8", "bits8", NULL, "|V1", 1, 1 },
	{ DTYPE_BITS16, "BITS16", "bits16", NULL, NULL, 2, 2 },
	{ DTYPE_BITS1X8, "BITS1X8", "bits1x8", NULL, "|V1", 1, 1 },
	{ DTYPE_BITS2X4, "BITS2X4", "bits2x4", NULL, "|V1", 1, 1 },
	{ DTYPE_BITS4X2, "BITS4X2", "bits4x2", NULL, "|V1", 1, 1 },
	{ DTYPE_F6_E2M3, "F6_E2M3", "float6_e2m3fn", NULL, "|V1", 1, 1 },
	{ DTYPE_F6_E3M2, "F6_E3M2", "float6_e3m2fn", NULL, "|V1", 1, 1 },
};

/* safetensors/src/tensor.rs, enum Dtype, as it stands there: that is the order
 * in which it sorts. */
static const struct {
	const char *name;
	unsigned bits;
} safetensors_types[] = {
	{ "BOOL", 8 }, { "F4", 4 }, { "F6_E2M3", 6 }, { "F6_E3M2", 6 },
	{ "U8", 8 }, { "I8", 8 }, { "F8_E5M2", 8 }, { "F8_E4M3", 8 },
	{ "F8_E8M0", 8 }, { "F8_E4M3FNUZ", 8 }, { "F8_E5M2FNUZ", 8 },
	{ "I16", 16 }, { "U16", 16 }, { "F16", 16 }, { "BF16", 16 },
	{ "I32", 32 }, { "U32", 32 }, { "F32", 32 }, { "C64", 64 },
	{ "F64", 64 }, { "I64", 64 }, { "U64", 64 },
};

/* By the name: E8M0 is an exponent without a sign, F4 two numbers in one, and
 * those of 6 bits share bytes. */
static enum dtype_kind kind_of(const char *torch)
{
	if (strstr(torch, "complex"))
		return DTYPE_KIND_COMPLEX;
	if (strstr(torch, "e8m0") || strstr(torch, "_x2") ||
	    strstr(torch, "float6_"))
		return DTYPE_KIND_BITS;
	if (strstr(torch, "float"))
		return DTYPE_KIND_FLOAT;
	return strncmp(torch, "int", 3) == 0 || strncmp(torch, "uint", 4) == 0 ?
	       DTYPE_KIND_INTEGER : DTYPE_KIND_BITS;
}

static void every_type_is_in_the_table(void **state)
{
	unsigned i;

	(void)state;
	assert_int_equal(COUNT_OF(rows), DTYPE_COUNT - 1);
	for (i = 0; i < COUNT_OF(rows); i++) {
		const struct row *row = &rows[i];
		const struct dtype_info *info = dtype_info(row->dtype);

		assert_string_equal(info->name, row->name);
		assert_string_equal(info->torch, row->torch);
		assert_int_equal(info->size, row->size);
		assert_int_equal(info->component, row->component);
		assert_int_equal(info->kind, kind_of(row->torch));
	}
}

/* NumPy's own types by name; all others as void of their size. */
static void npy_spelling(void **state)
{
	char void_type[16];
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(rows); i++) {
		const struct dtype_info *info = dtype_info(rows[i].dtype);

		if (rows[i].npy) {
			assert_string_equal(info->npy, rows[i].npy);
		} else if (rows[i].size > 0) {
			snprintf(void_type, sizeof(void_type), "V%u",
				 rows[i].size);
			assert_string_equal(info->npy + 1, void_type);
		}
	}
}

static void names_lead_back(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(rows); i++) {
		const struct row *row = &rows[i];

		assert_int_equal(dtype_from_torch(row->torch,
						  strlen(row->torch)),
				 row->dtype);
		if (row->storage)
			assert_int_equal(dtype_from_storage(row->storage,
						strlen(row->storage)),
					 row->dtype);
	}
}

static void other_names_are_unknown(void **state)
{
	static const char *const names[] = {
		"", "float", "float3", "float320", "Float32", "int1", "?",
		"torch.float32", "uint7",
	};
	static const char *const storages[] = {
		"", "Storage", "Float", "FloatStorag", "floatStorage",
		"UntypedStorage", "XFloatStorage", "FloatStorageX",
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(names); i++)
		assert_int_equal(dtype_from_torch(names[i], strlen(names[i])),
				 DTYPE_UNKNOWN);
	for (i = 0; i < COUNT_OF(storages); i++)
		assert_int_equal(dtype_from_storage(storages[i],
						    strlen(storages[i])),
				 DTYPE_UNKNOWN);
}

static unsigned safetensors_bits(const char *name)
{
	unsigned i;

	for (i = 0; i < COUNT_OF(safetensors_types); i++)
		if (strcmp(safetensors_types[i].name, name) == 0)
			return safetensors_types[i].bits;
	return 0;
}

/* Types that share bytes count as one byte; all others have as many bits as
 * their bytes have. */
static void bits(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(rows); i++) {
		const struct dtype_info *info = dtype_info(rows[i].dtype);
		unsigned known = safetensors_bits(rows[i].name);

		assert_int_equal(info->bits, known ? known : 8 * rows[i].size);
	}
}

static void types_of_safetensors(void **state)
{
	unsigned i, last = 0;
	enum dtype dtype;

	(void)state;
	for (i = 0; i < COUNT_OF(safetensors_types); i++) {
		const char *name = safetensors_types[i].name;

		dtype = dtype_from_safetensors(name, strlen(name));
		assert_string_equal(dtype_info(dtype)->name, name);
		assert_true(dtype_info(dtype)->order > last);
		last = dtype_info(dtype)->order;
	}
	/* It has no others, whatever we call them. */
	for (i = 0; i < COUNT_OF(rows); i++) {
		bool known = safetensors_bits(rows[i].name);

		assert_int_equal(dtype_info(rows[i].dtype)->order != 0, known);
		dtype = dtype_from_safetensors(rows[i].name,
					       strlen(rows[i].name));
		assert_int_equal(dtype, known ? rows[i].dtype : DTYPE_UNKNOWN);
	}
	assert_int_equal(dtype_from_safetensors("", 0), DTYPE_UNKNOWN);
	assert_int_equal(dtype_from_safetensors("f32", 3), DTYPE_UNKNOWN);
	assert_int_equal(dtype_from_safetensors("F32 ", 4), DTYPE_UNKNOWN);
	assert_int_equal(dtype_from_safetensors("?", 1), DTYPE_UNKNOWN);
}

static void unknown_type_has_no_size(void **state)
{
	(void)state;
	assert_string_equal(dtype_info(DTYPE_UNKNOWN)->name, "?");
	assert_int_equal(dtype_info(DTYPE_UNKNOWN)->size, 0);
	assert_ptr_equal(dtype_info(DTYPE_COUNT), dtype_info(DTYPE_UNKNOWN));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_is_in_the_table),
		cmocka_unit_test(npy_spelling),
		cmocka_unit_test(names_lead_back),
		cmocka_unit_test(other_names_are_unknown),
		cmocka_unit_test(bits),
		cmocka_unit_test(types_of_safetensors),
		cmocka_unit_test(unknown_type_has_no_size),
	};

	return cmocka_run_group_tests_name("dtype", tests, NULL, NULL);
}
