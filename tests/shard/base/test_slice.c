/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "shard/base/slice.h"

#include <stdlib.h>
#include <string.h>

/* Of a tensor of 10 x 4 x 3. */
struct row {
	const char *text;
	uint64_t offset[3], size[3];
};

static const struct row accepted[] = {
	{ "[:]", { 0, 0, 0 }, { 10, 4, 3 } },
	{ "[:,:,:]", { 0, 0, 0 }, { 10, 4, 3 } },
	{ "[0:10]", { 0, 0, 0 }, { 10, 4, 3 } },
	{ "[7]", { 7, 0, 0 }, { 1, 4, 3 } },
	{ "[9]", { 9, 0, 0 }, { 1, 4, 3 } },
	{ "[0]", { 0, 0, 0 }, { 1, 4, 3 } },
	{ "[2:5]", { 2, 0, 0 }, { 3, 4, 3 } },
	{ "[2:]", { 2, 0, 0 }, { 8, 4, 3 } },
	{ "[:5]", { 0, 0, 0 }, { 5, 4, 3 } },
	{ "[5:5]", { 5, 0, 0 }, { 0, 4, 3 } },
	{ "[10:10]", { 10, 0, 0 }, { 0, 4, 3 } },
	{ "[10:]", { 10, 0, 0 }, { 0, 4, 3 } },
	{ "[:0]", { 0, 0, 0 }, { 0, 4, 3 } },
	{ "[:,1:3]", { 0, 1, 0 }, { 10, 2, 3 } },
	{ "[:,2]", { 0, 2, 0 }, { 10, 1, 3 } },
	{ "[1,2,0:2]", { 1, 2, 0 }, { 1, 1, 2 } },
	{ "[:,:,2:3]", { 0, 0, 2 }, { 10, 4, 1 } },
};

static const char *const refused[] = {
	"", "[", "]", "[]", "[,]", "[:", ":]", "[1", "1]", "x[:]", "[:]x",
	"[[:]]", "[ :]", "[: ]", "[1: 2]", "[1 :2]", "[\t1]", "[10]", "[11]",
	"[0:11]", "[11:11]", "[11:]", "[:11]", "[5:4]", "[-1]", "[-1:]",
	"[:-1]", "[+1]", "[01]", "[00]", "[0:010]", "[00:10]", "[1:2:1]",
	"[::]", "[::2]", "[:,]", "[,:]", "[:,,:]", "[:,:,:,]", "[:,:,:,:]",
	"[:,:,:,0]", "[1.0]", "[1e1]", "[0x1]", "[a]", "[...]", "[None]",
	"[18446744073709551616]", "[0:18446744073709551626]",
	"[184467440737095516160]", "[99999999999999999999999999:]", "[;]",
	"[:;:]", "[1]2]", "[1][2]", "[1\n]",
};

static const struct box whole = { 3, { 0 }, { 10, 4, 3 } };

/* A copy that ends where the text ends, so that reading on is noticed. */
static bool parse(const char *text, const struct box *box, struct box *ret)
{
	size_t size = strlen(text);
	char *copy = malloc(size + 1);
	bool good;

	assert_non_null(copy);
	memmove(copy + 1, text, size);
	good = slice_parse(copy + 1, size, box, ret);
	free(copy);
	return good;
}

static void accepted_slices(void **state)
{
	unsigned i, axis;

	(void)state;
	for (i = 0; i < COUNT_OF(accepted); i++) {
		const struct row *row = &accepted[i];
		struct box box;

		if (!parse(row->text, &whole, &box))
			fail_msg("%s was refused", row->text);
		assert_int_equal(box.ndim, 3);
		for (axis = 0; axis < 3; axis++) {
			assert_int_equal(box.offset[axis], row->offset[axis]);
			assert_int_equal(box.size[axis], row->size[axis]);
		}
	}
}

static void refused_slices(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(refused); i++) {
		struct box box;

		memset(&box, 0xaa, sizeof(box));
		if (parse(refused[i], &whole, &box))
			fail_msg("%s was accepted", refused[i]);
		assert_int_equal(box.ndim, 0xaaaaaaaa);
	}
}

static void embedded_nul_is_refused(void **state)
{
	struct box box;

	(void)state;
	assert_false(slice_parse("[1\0]", 4, &whole, &box));
	assert_false(slice_parse("[1:\0002]", 6, &whole, &box));
}

static void scalar_has_no_slices(void **state)
{
	static const struct box scalar = { .ndim = 0 };
	struct box box;

	(void)state;
	assert_false(parse("[]", &scalar, &box));
	assert_false(parse("[:]", &scalar, &box));
	assert_false(parse("[0]", &scalar, &box));
}

static void empty_axis_has_empty_slices(void **state)
{
	static const struct box empty = { 2, { 0 }, { 0, 5 } };
	struct box box;

	(void)state;
	assert_true(parse("[:,1:2]", &empty, &box));
	assert_int_equal(box.size[0], 0);
	assert_int_equal(box.size[1], 1);
	assert_true(parse("[0:0]", &empty, &box));
	assert_false(parse("[0]", &empty, &box));
	assert_false(parse("[0:1]", &empty, &box));
}

static void axes_beyond_32_bits(void **state)
{
	static const struct box big = { 1, { 0 }, { UINT64_C(1) << 40 } };
	struct box box;

	(void)state;
	assert_true(parse("[4294967296:1099511627776]", &big, &box));
	assert_true(box.offset[0] == UINT64_C(1) << 32);
	assert_true(box.size[0] == (UINT64_C(1) << 40) - (UINT64_C(1) << 32));
	assert_false(parse("[0:1099511627777]", &big, &box));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepted_slices),
		cmocka_unit_test(refused_slices),
		cmocka_unit_test(embedded_nul_is_refused),
		cmocka_unit_test(scalar_has_no_slices),
		cmocka_unit_test(empty_axis_has_empty_slices),
		cmocka_unit_test(axes_beyond_32_bits),
	};

	return cmocka_run_group_tests_name("slice", tests, NULL, NULL);
}
