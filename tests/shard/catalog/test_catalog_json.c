/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"
#include "support/catalog_out.h"

#include "shard/catalog/catalog_json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Whose the files are, unless a test says something else. */
static uint32_t owners[8];

static const struct owned_catalog *own(const struct catalog *catalog)
{
	static struct owned_catalog owned;

	owned = (struct owned_catalog){ catalog, owners };
	return &owned;
}

static void check_text(struct array *out, const char *expected)
{
	assert_int_equal(array_append(out, "", 1), 0);
	assert_string_equal(out->data, expected);
	array_finish(out);
}

static void check_tensor(const struct catalog *catalog, uint64_t index,
			 const char *expected)
{
	struct array out = { .data = NULL };

	assert_int_equal(catalog_json_tensor(own(catalog), index, MIB, &out),
			 0);
	check_text(&out, expected);
}

#define SHARD(offsets, sizes, file, offset, size) \
	"{\"box\":{\"offsets\":" offsets ",\"sizes\":" sizes "},\"rank\":0," \
	"\"file\":\"" file "\",\"offset\":" offset ",\"size\":" size "}"

static void tensors(void **state)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct box shape = BOX2(0, 0, 4, 6), scalar = { .ndim = 0 };
	struct catalog *catalog;

	(void)state;
	catalog_out_begin(builder, "a/b \"c\"\n", DTYPE_BF16, &shape);
	catalog_out_shard(builder, BOX2(2, 0, 2, 6), "sub/__1_0.distcp", 10,
			  11);
	catalog_out_shard(builder, BOX2(0, 0, 2, 6), "__0_0.distcp",
			  UINT64_C(5000000000), 21);
	catalog_out_end(builder);
	catalog_out_begin(builder, "s", DTYPE_F8_E4M3, &scalar);
	catalog_out_shard(builder, scalar, "f", 0, 1);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	check_tensor(catalog, 0,
		"{\"name\":\"a/b \\\"c\\\"\\n\",\"dtype\":\"BF16\","
		"\"torch_dtype\":\"bfloat16\",\"shape\":[4,6],\"nbytes\":48,"
		"\"file\":\"a%2Fb \\\"c\\\"%0A\",\"shards\":["
		SHARD("[0,0]", "[2,6]", "__0_0.distcp", "5000000000", "21") ","
		SHARD("[2,0]", "[2,6]", "sub/__1_0.distcp", "10", "11") "]}");
	check_tensor(catalog, 1,
		"{\"name\":\"s\",\"dtype\":\"F8_E4M3\","
		"\"torch_dtype\":\"float8_e4m3fn\",\"shape\":[],\"nbytes\":1,"
		"\"file\":\"s\",\"shards\":["
		SHARD("[]", "[]", "f", "0", "1") "]}");
	catalog_put(catalog);
}

static void holes_and_overlaps(void **state)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct box shape = BOX1(0, 10);
	struct catalog *catalog;

	(void)state;
	catalog_out_begin(builder, "h", DTYPE_U8, &shape);
	catalog_out_shard(builder, BOX1(0, 4), "f", 0, 1);
	catalog_out_shard(builder, BOX1(2, 4), "f", 1, 1);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	check_tensor(catalog, 0,
		"{\"name\":\"h\",\"dtype\":\"U8\",\"torch_dtype\":\"uint8\","
		"\"shape\":[10],\"nbytes\":10,\"file\":\"h\","
		"\"holes\":[{\"offsets\":[6],\"sizes\":[4]}],"
		"\"overlap\":true,\"shards\":["
		SHARD("[0]", "[4]", "f", "0", "1") ","
		SHARD("[2]", "[4]", "f", "1", "1") "]}");
	catalog_put(catalog);
}

static void names_that_are_not_utf8(void **state)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct box scalar = { .ndim = 0 };
	struct catalog *catalog;

	(void)state;
	catalog_out_begin(builder, "\xc3\xa9\xff\xed\xa0\x80", DTYPE_U8,
			  &scalar);
	catalog_out_shard(builder, scalar, "f", 0, 1);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	check_tensor(catalog, 0,
		"{\"name\":\"\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
		"\xef\xbf\xbd\",\"dtype\":\"U8\",\"torch_dtype\":\"uint8\","
		"\"shape\":[],\"nbytes\":1,"
		"\"file\":\"\xc3\xa9%FF%ED%A0%80\",\"shards\":["
		SHARD("[]", "[]", "f", "0", "1") "]}");
	catalog_put(catalog);
}

/* The rank is not the catalog's, which is the same on all. */
static void ranks_are_those_of_the_files(void **state)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct box shape = BOX1(0, 4);
	struct array out = { .data = NULL };
	struct catalog *catalog;

	(void)state;
	catalog_out_begin(builder, "w", DTYPE_U8, &shape);
	catalog_out_shard(builder, BOX1(0, 1), "one", 0, 1);
	catalog_out_shard(builder, BOX1(1, 3), "two", 0, 3);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	owners[0] = 7;
	owners[1] = 300;
	assert_int_equal(catalog_json_shards(own(catalog),
		catalog_entry(catalog, 0), NULL, 0, &out), 0);
	check_text(&out, "[{\"box\":{\"offsets\":[0],\"sizes\":[1]},"
			 "\"rank\":7,\"file\":\"one\",\"offset\":0,"
			 "\"size\":1},{\"box\":{\"offsets\":[1],"
			 "\"sizes\":[3]},\"rank\":300,\"file\":\"two\","
			 "\"offset\":0,\"size\":3}]");
	memset(owners, 0, sizeof(owners));
	catalog_put(catalog);
}

/* JSON is UTF-8, also where it names a file. */
static void paths_that_are_not_utf8(void **state)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct box scalar = { .ndim = 0 };
	struct array out = { .data = NULL };
	struct catalog *catalog;

	(void)state;
	catalog_out_begin(builder, "w", DTYPE_U8, &scalar);
	catalog_out_shard(builder, scalar, "f\xff", 0, 1);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	assert_int_equal(catalog_json_shards(own(catalog),
		catalog_entry(catalog, 0), NULL, 0, &out), 0);
	check_text(&out, "[" SHARD("[]", "[]", "f\xef\xbf\xbd", "0", "1") "]");
	catalog_put(catalog);
}

static void unknown_type(void **state)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct catalog_tensor tensor = {
		.name = "w", .name_size = 1, .dtype = DTYPE_UNKNOWN,
		.type_name = "int3\xff", .type_name_size = 5,
		.shape = BOX1(0, 6),
	};
	struct catalog *catalog;
	struct fault fault;

	(void)state;
	assert_int_equal(catalog_builder_begin(builder, &tensor, &fault), 0);
	catalog_out_shard(builder, tensor.shape, "f", 0, 1);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	check_tensor(catalog, 0,
		"{\"name\":\"w\",\"dtype\":\"?\","
		"\"torch_dtype\":\"int3\xef\xbf\xbd\",\"shape\":[6],"
		"\"nbytes\":0,\"file\":\"w\",\"shards\":["
		SHARD("[0]", "[6]", "f", "0", "1") "]}");
	catalog_put(catalog);
}

static void shapes(void **state)
{
	const struct box shape = BOX2(0, 0, 4096, UINT64_C(1) << 40);
	const struct box scalar = { .ndim = 0 };
	struct array out = { .data = NULL };

	(void)state;
	assert_int_equal(catalog_json_shape(&shape, &out), 0);
	check_text(&out, "[4096,1099511627776]");
	assert_int_equal(catalog_json_shape(&scalar, &out), 0);
	check_text(&out, "[]");
}

/* Ten rows in ten shards. */
static struct catalog *make_rows(void)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	const struct box shape = BOX2(0, 0, 10, 3);
	uint64_t i;

	catalog_out_begin(builder, "w", DTYPE_U8, &shape);
	for (i = 0; i < 10; i++)
		catalog_out_shard(builder, BOX2(i, 0, 1, 3), "f", i, 1);
	catalog_out_end(builder);
	return catalog_out_finish(builder);
}

static void shards_that_a_selection_touches(void **state)
{
	struct catalog *catalog = make_rows();
	struct array out = { .data = NULL };
	struct box selection = BOX2(3, 1, 2, 1);

	(void)state;
	assert_int_equal(catalog_json_shards(own(catalog),
		catalog_entry(catalog, 0), &selection, 0, &out), 0);
	check_text(&out, "[" SHARD("[3,0]", "[1,3]", "f", "3", "1") ","
			 SHARD("[4,0]", "[1,3]", "f", "4", "1") "]");
	selection = BOX2(3, 1, 2, 0);
	assert_int_equal(catalog_json_shards(own(catalog),
		catalog_entry(catalog, 0), &selection, 0, &out), 0);
	check_text(&out, "[]");
	catalog_put(catalog);
}

static void limit_of_the_text(void **state)
{
	struct catalog *catalog = make_rows();
	const struct catalog_entry *entry = catalog_entry(catalog, 0);
	struct array out = { .data = NULL };
	size_t size, limit;

	(void)state;
	assert_int_equal(catalog_json_shards(own(catalog), entry, NULL, 0, &out),
			 0);
	size = out.size;
	array_finish(&out);
	for (limit = 1; limit < size + 5; limit++) {
		int error = catalog_json_shards(own(catalog), entry, NULL, limit,
						&out);

		assert_int_equal(error, limit < size ? -E2BIG : 0);
		array_finish(&out);
	}
	catalog_put(catalog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tensors),
		cmocka_unit_test(holes_and_overlaps),
		cmocka_unit_test(names_that_are_not_utf8),
		cmocka_unit_test(ranks_are_those_of_the_files),
		cmocka_unit_test(paths_that_are_not_utf8),
		cmocka_unit_test(unknown_type),
		cmocka_unit_test(shapes),
		cmocka_unit_test(shards_that_a_selection_touches),
		cmocka_unit_test(limit_of_the_text),
	};

	return cmocka_run_group_tests_name("catalog_json", tests, NULL, NULL);
}
