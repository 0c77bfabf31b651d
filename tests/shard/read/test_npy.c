/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "shard/read/npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The whole header in NumPy's format 1.0: magic, version, length, a Python
 * dict, blanks, and a line end at a multiple of 64. */
static void check_header(enum dtype dtype, const struct box *shape,
			 const char *dict)
{
	char header[NPY_HEADER_MAX];
	size_t size = npy_header(dtype, shape, header), length, i;

	assert_int_equal(size % 64, 0);
	assert_true(size <= NPY_HEADER_MAX);
	assert_memory_equal(header, "\x93NUMPY\1\0", 8);
	length = (unsigned char)header[8] + 256u * (unsigned char)header[9];
	assert_int_equal(10 + length, size);
	assert_memory_equal(header + 10, dict, strlen(dict));
	for (i = 10 + strlen(dict); i < size - 1; i++)
		assert_int_equal(header[i], ' ');
	assert_int_equal(header[size - 1], '\n');
	/* No block of 64 more than is needed. */
	assert_true(size - 64 < 10 + strlen(dict) + 1);
}

static void headers_as_numpy_writes_them(void **state)
{
	static const struct box scalar = { .ndim = 0 };
	static const struct box vector = { 1, { 0 }, { 7 } };
	static const struct box matrix = { 2, { 0 }, { 4096, 1024 } };
	static const struct box empty = { 3, { 0 }, { 2, 0, 3 } };

	(void)state;
	check_header(DTYPE_F32, &scalar,
		     "{'descr': '<f4', 'fortran_order': False, "
		     "'shape': (), }");
	check_header(DTYPE_U8, &vector,
		     "{'descr': '|u1', 'fortran_order': False, "
		     "'shape': (7,), }");
	check_header(DTYPE_BF16, &matrix,
		     "{'descr': '<V2', 'fortran_order': False, "
		     "'shape': (4096, 1024), }");
	check_header(DTYPE_C128, &empty,
		     "{'descr': '<c16', 'fortran_order': False, "
		     "'shape': (2, 0, 3), }");
}

static void every_length_is_aligned(void **state)
{
	struct box shape = { .ndim = 0 };

	(void)state;
	for (; shape.ndim < LIMIT_NDIM; shape.ndim++) {
		char dict[NPY_HEADER_MAX] = "";
		size_t used;
		unsigned i;

		used = (size_t)sprintf(dict, "{'descr': '<i8', "
				       "'fortran_order': False, 'shape': (");
		for (i = 0; i < shape.ndim; i++)
			used += (size_t)sprintf(dict + used, "%s%" PRIu64,
						i ? ", " : "", shape.size[i]);
		sprintf(dict + used, "%s), }", shape.ndim == 1 ? "," : "");
		check_header(DTYPE_I64, &shape, dict);
		shape.size[shape.ndim] = UINT64_C(1) << (shape.ndim * 7 % 60);
	}
}

static void longest_header_has_room(void **state)
{
	struct box shape = { .ndim = LIMIT_NDIM };
	char header[NPY_HEADER_MAX + 1];
	unsigned i;

	(void)state;
	for (i = 0; i < LIMIT_NDIM; i++)
		shape.size[i] = INT64_MAX;
	header[NPY_HEADER_MAX] = 'x';
	assert_true(npy_header(DTYPE_C128, &shape, header) <= NPY_HEADER_MAX);
	assert_int_equal(header[NPY_HEADER_MAX], 'x');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers_as_numpy_writes_them),
		cmocka_unit_test(every_length_is_aligned),
		cmocka_unit_test(longest_header_has_room),
	};

	return cmocka_run_group_tests_name("npy", tests, NULL, NULL);
}
