/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"
#include "support/dice.h"

#include "fs/cli/columns.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *text_of(struct array *out, double number)
{
	out->size = 0;
	assert_int_equal(columns_json_double(number, out), 0);
	return out->data;
}

static void doubles_are_read_back(void **state)
{
	struct array out = { .data = NULL };
	struct dice dice = dice_make();
	unsigned i;

	(void)state;
	assert_string_equal(text_of(&out, 0.1), "0.1");
	assert_string_equal(text_of(&out, 1), "1");
	assert_string_equal(text_of(&out, -2.5), "-2.5");
	assert_string_equal(text_of(&out, 1e300), "1e+300");
	assert_string_equal(text_of(&out, (double)NAN), "null");
	assert_string_equal(text_of(&out, (double)-INFINITY), "null");
	for (i = 0; i < 100000; i++) {
		uint64_t bits = dice_any(&dice);
		double number;

		memcpy(&number, &bits, sizeof(number));
		if (isfinite(number))
			assert_true(strtod(text_of(&out, number), NULL) ==
				    number);
	}
	array_finish(&out);
}

static void cells_count_characters(void **state)
{
	static char name[] = "n\xc3\xa4me";
	struct array cell = { name, strlen(name), strlen(name) };
	struct array out = { .data = NULL };

	(void)state;
	assert_int_equal(columns_width(&cell), 4);
	assert_int_equal(columns_cell(&cell, 6, false, &out), 0);
	assert_int_equal(tool_print(&out, "|"), 0);
	assert_int_equal(columns_cell(&cell, 6, true, &out), 0);
	assert_int_equal(tool_print(&out, "|"), 0);
	assert_int_equal(columns_cell(&cell, 2, true, &out), 0);
	assert_int_equal(tool_print(&out, "|"), 0);
	assert_string_equal(out.data, "n\xc3\xa4me  |  n\xc3\xa4me|n\xc3\xa4me|");
	array_finish(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(doubles_are_read_back),
		cmocka_unit_test(cells_count_characters),
	};

	return cmocka_run_group_tests_name("columns", tests, NULL, NULL);
}
