/* SPDX-License-Identifier: Apache-2.0 */
/* From the headers of several files to a catalog: which files count, and what
 * pieces make up a tensor. */
#include "support/test.h"
#include "support/hf_case.h"
#include "support/refusal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- whole tensors ------------------------------------------------------- */

static void one_file(void **state)
{
	(void)state;
	hf_case_add("x.safetensors", "{" T("b", "F32", "[2,3]", "[2,26]") ","
			     T("a", "BF16", "[]", "[0,2]") ","
			     T("none", "I8", "[0,4]", "[26,26]") "}");
	hf_case_read_good(NULL);
	assert_int_equal(hf_case.catalog->tensor_count, 3);
	assert_int_equal(hf_case.catalog->origin.format, CATALOG_SAFETENSORS);
	assert_int_equal(hf_case.catalog->origin.torch_first, 0);
	hf_case_check("b", "(2,3) x.safetensors@2:0,0+2,3");
	hf_case_check("a", "() x.safetensors@0");
	hf_case_check("none", "(0,4) x.safetensors@26:0,0+0,4");
	/* In the order of their data. */
	assert_int_equal(catalog_find_tensor(hf_case.catalog, "a", 1), 0);
	assert_int_equal(catalog_find_tensor(hf_case.catalog, "b", 1), 1);
	assert_int_equal(hf_case.notes.count, 0);
}

static void all_files_of_a_folder(void **state)
{
	(void)state;
	hf_case_add("a", "{" T("x", "U8", "[1]", "[0,1]") "}");
	hf_case_add("b", "{" T("y", "U8", "[2]", "[0,2]") ","
		 T("x", "U8", "[3]", "[2,5]") "}");
	hf_case_read_good(NULL);
	assert_int_equal(hf_case.catalog->tensor_count, 2);
	hf_case_check("x", "(1) a@0:0+1");
	hf_case_check("y", "(2) b@0:0+2");
}

static void one_that_is_called_model(void **state)
{
	(void)state;
	hf_case_add("adapter.safetensors",
		    "{" T("x", "U8", "[1]", "[0,1]") "}");
	hf_case_add("damaged.safetensors", "{");
	hf_case_add("model.safetensors", "{" T("y", "U8", "[2]", "[0,2]") "}");
	hf_case_read_good(NULL);
	assert_int_equal(hf_case.catalog->tensor_count, 1);
	hf_case_check("y", "(2) model.safetensors@0:0+2");
}

static void bad_file(void **state)
{
	(void)state;
	hf_case_add("a", "{" T("x", "U8", "[1]", "[0,1]") "}");
	hf_case_add("b", "{" T("y", "U9", "[2]", "[0,2]") "}");
	assert_int_equal(hf_case_read(NULL), -EBADMSG);
	assert_int_equal(hf_case.bad, 1);
	assert_string_equal(hf_case.fault.detail, "U9");
	assert_memory_equal(&hf_case.fault, &hf_case.files[1].fault,
			    sizeof(hf_case.fault));
}

/* ---- an index ------------------------------------------------------------ */

static void index_names_files_and_tensors(void **state)
{
	(void)state;
	hf_case_add("a", "{" T("x", "U8", "[1]", "[0,1]") ","
		 T("y", "U8", "[1]", "[1,2]") "}");
	hf_case_add("b", "{" T("x", "U8", "[2]", "[0,2]") ","
		 T("z", "U8", "[2]", "[2,4]") "}");
	hf_case_add("c", "{");
	hf_case_add("model.safetensors", "{" T("w", "U8", "[2]", "[0,2]") "}");
	hf_case_read_good("{\"metadata\":{\"total_size\":\"wrong\"},"
		  "\"more\":[1],"
		  "\"weight_map\":{\"y\":\"a\",\"x\":\"b\"}}");
	assert_int_equal(hf_case.catalog->tensor_count, 2);
	hf_case_check("y", "(1) a@1:0+1");
	hf_case_check("x", "(2) b@0:0+2");
	assert_int_equal(hf_case.catalog->origin.lost, 0);
	assert_int_equal(hf_case.notes.count, 0);
}

static void what_an_index_names_in_vain(void **state)
{
	(void)state;
	hf_case_add("a", "{" T("x", "U8", "[1]", "[0,1]") "}");
	hf_case_read_good("{\"weight_map\":{\"x\":\"a\",\"y\":\"a\","
		  "\"z\":\"gone\","
		  "\"u\":\"gone\"}}");
	assert_int_equal(hf_case.catalog->tensor_count, 1);
	assert_int_equal(hf_case.catalog->origin.lost, 3);
	assert_int_equal(hf_case.notes.count, 4);
	assert_non_null(strstr(hf_case.notes.line[0],
			       "gone: named in the index"));
	assert_non_null(strstr(hf_case.notes.line[1], "y: not in a"));
	assert_non_null(strstr(hf_case.notes.line[2], "z: not in gone"));
}

static void index_names_a_bad_file(void **state)
{
	(void)state;
	hf_case_add("a", "{" T("x", "U8", "[1]", "[0,1]") "}");
	hf_case_add("b", "{");
	assert_int_equal(hf_case_read("{\"weight_map\":{\"x\":\"a\",\"y\":"
				    "\"b\"}}"), -EBADMSG);
	assert_int_equal(hf_case.bad, 1);
}

static void refused_indices(void **state)
{
	static const struct {
		const char *text;
		uint64_t offset;
		const char *reason;
	} rows[] = {
		{ "", 0, "no JSON object" },
		{ "{}", 2, "without a weight_map" },
		{ "{\"metadata\":{}}", 15, "without a weight_map" },
		{ "{\"weight_map\":[]}", 14, "no JSON object" },
		{ "{\"weight_map\":{},\"weight_map\":{}}", 30, "twice" },
		{ "{\"weight_map\":{\"x\":1}}", 20, "no string" },
		{ "{\"weight_map\":{\"x\":null}}", 23, "no string" },
		{ "{\"weight_map\":{\"x\":\"a\",\"x\":\"a\"}}", 27, "twice" },
		{ "{\"weight_map\":{\"x\":\"/a\"}}", 23, "bad name" },
		{ "{\"weight_map\":{\"x\":\"\"}}", 21, "bad name" },
		{ "{\"weight_map\":{\"x\":\"..\"}}", 23, "bad name" },
		{ "{\"weight_map\":{\"x\":\"../a\"}}", 25, "bad name" },
		{ "{\"weight_map\":{\"x\":\"b/../a\"}}", 27, "bad name" },
		{ "{\"weight_map\":{\"x\":\"b/..\"}}", 25, "bad name" },
		{ "{\"weight_map\":{\"x\":\"a\\u0000b\"}}", 29, "bad name" },
		{ "{\"weight_map\":{\"x\":\"a\\nb\"}}", 25, "bad name" },
		{ "{\"weight_map\":{\"x\":\"a\"}}.", 24, "bytes behind" },
	};
	unsigned i;

	(void)state;
	hf_case_add("a", "{" T("x", "U8", "[1]", "[0,1]") "}");
	for (i = 0; i < COUNT_OF(rows); i++) {
		assert_int_equal(hf_case_read(rows[i].text), -EBADMSG);
		assert_int_equal(hf_case.bad, 1);
		refusal_check(rows[i].text, &hf_case.fault, -EBADMSG,
			      rows[i].offset,
			      rows[i].reason);
	}
	/* Dots that lead nowhere. */
	hf_case_read_good("{\"weight_map\":{\"x\":\"..a/b...c\"}}");
	assert_int_equal(hf_case.catalog->tensor_count, 0);
}

/* ---- shards -------------------------------------------------------------- */

static void shards_of_ranks(void **state)
{
	(void)state;
	hf_case_add("s1", "{" SHARDS(AT("w", "[0,0]") "," AT("s", "[]") ","
			     AT("e", "[0,0]") "," AT("gone", "[7]"))
		  "," T("w", "F32", "[2,3]", "[0,24]") ","
		  T("s", "I64", "[]", "[24,32]") ","
		  T("e", "U8", "[1,5]", "[32,37]") "}");
	hf_case_add("s2", "{" SHARDS(AT("w", "[2,0]") "," AT("e", "[1,0]")) ","
		  T("w", "F32", "[1,3]", "[0,12]") ","
		  T("e", "U8", "[0,5]", "[12,12]") "}");
	hf_case_read_good(NULL);
	assert_int_equal(hf_case.catalog->origin.format,
			 CATALOG_SAFETENSORS_SHARDED);
	assert_int_equal(hf_case.catalog->origin.torch_first, 207);
	assert_int_equal(hf_case.catalog->tensor_count, 3);
	hf_case_check("w", "(3,3) s1@0:0,0+2,3 s2@0:2,0+1,3");
	hf_case_check("s", "() s1@24");
	hf_case_check("e", "(1,5) s1@32:0,0+1,5 s2@12:1,0+0,5");
	assert_int_equal(hf_case.notes.count, 0);
}

/* The writer keeps one of two parts that a rank has: the rest is a hole. */
static void lossy_save(void **state)
{
	(void)state;
	hf_case_add("s1", "{" SHARDS(AT("w", "[0,3]")) ","
		  T("w", "F32", "[2,2]", "[0,16]") "}");
	hf_case_add("s2", "{" SHARDS(AT("w", "[2,3]")) ","
		  T("w", "F32", "[2,2]", "[0,16]") "}");
	hf_case_read_good(NULL);
	hf_case_check("w", "(4,5) s1@0:0,3+2,2 s2@0:2,3+2,2");
	assert_int_equal(hf_case_entry("w")->flags, CATALOG_HOLES);
	assert_int_equal(hf_case.notes.count, 1);
}

static void tensor_without_sharding(void **state)
{
	(void)state;
	hf_case_add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[2]", "[0,2]") ","
		  T("whole", "U8", "[3,4]", "[2,14]") "}");
	hf_case_read_good(NULL);
	hf_case_check("whole", "(3,4) s1@2:0,0+3,4");
}

/* Files that were made from the shards do not count, even when an index names
 * them; what is only there does. */
static void files_beside_shards(void **state)
{
	(void)state;
	hf_case_add("model.safetensors", "{" T("w", "U8", "[9]", "[0,9]") ","
				 T("only", "U8", "[2]", "[9,11]") "}");
	hf_case_add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	hf_case_add("z", "{" T("only", "U8", "[5]", "[0,5]") "}");
	hf_case_read_good("{\"weight_map\":{\"w\":\"model.safetensors\"}}");
	assert_int_equal(hf_case.catalog->tensor_count, 2);
	hf_case_check("w", "(2) s1@0:0+2");
	hf_case_check("only", "(2) model.safetensors@9:0+2");
}

/* It does not say which files count, but what there should be; a bad one says
 * nothing. */
static void an_index_beside_shards(void **state)
{
	(void)state;
	hf_case_add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	hf_case_read_good("{\"weight_map\":{\"w\":\"s1\",\"v\":\"s2\"}}");
	assert_int_equal(hf_case.catalog->tensor_count, 1);
	assert_int_equal(hf_case.catalog->origin.lost, 1);
	catalog_put(hf_case.catalog);
	hf_case_read_good("{\"weight_map\":{\"w\":");
	assert_int_equal(hf_case.catalog->origin.lost, 0);
}

/* It may be a shard. */
static void bad_file_beside_shards(void **state)
{
	(void)state;
	hf_case_add("model.safetensors", "{");
	hf_case_add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	hf_case_refused(-EBADMSG, 0, "no key");
}

static void stated_shape(void **state)
{
	(void)state;
	hf_case_add("s1", "{" SHARDS(AT_MORE("w", "[0,0]", GLOBAL("[5,3]"))) ","
		  T("w", "U8", "[2,3]", "[0,6]") "}");
	hf_case_add("s2", "{" SHARDS(AT_MORE("w", "[2,0]", GLOBAL("null"))) ","
		  T("w", "U8", "[2,3]", "[0,6]") "}");
	hf_case_read_good(NULL);
	hf_case_check("w", "(5,3) s1@0:0,0+2,3 s2@0:2,0+2,3");
	assert_int_equal(hf_case_entry("w")->flags, CATALOG_HOLES);
	hf_case_clear();
	hf_case_add("s1", "{" SHARDS(AT_MORE("w", "[0]", GLOBAL("[5]"))) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	hf_case_add("s2", "{" SHARDS(AT_MORE("w", "[2]", GLOBAL("[4]"))) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	hf_case_refused(-EBADMSG, 1, "differ in its shape");
	hf_case_clear();
	hf_case_add("s1", "{" SHARDS(AT_MORE("w", "[3]", GLOBAL("[4]"))) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	hf_case_refused(-EBADMSG, 0, "out of the bounds");
}

/* Several pieces of one tensor in one file, under keys of their own. */
static void stated_name(void **state)
{
	(void)state;
	hf_case_add("s1", "{" SHARDS(AT_MORE("k1", "[2]", NAME("w")) ","
			     AT_MORE("k0", "[0]", NAME("w")) ","
			     AT_MORE("k2", "[0]", NAME("k1")))
		  "," T("k0", "U8", "[2]", "[0,2]") ","
		  T("k1", "U8", "[2]", "[2,4]") ","
		  T("k2", "U8", "[1]", "[4,5]") "}");
	hf_case_add("s2", "{" SHARDS(AT("w", "[4]")) ","
		  T("w", "U8", "[1]", "[0,1]") "}");
	hf_case_read_good(NULL);
	assert_int_equal(hf_case.catalog->tensor_count, 2);
	hf_case_check("w", "(5) s1@0:0+2 s1@2:2+2 s2@0:4+1");
	hf_case_check("k1", "(1) s1@4:0+1");
}

static void shards_that_disagree(void **state)
{
	(void)state;
	hf_case_add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	hf_case_add("s2", "{" SHARDS(AT("w", "[2]")) ","
		  T("w", "I8", "[2]", "[0,2]") "}");
	hf_case_refused(-EBADMSG, 1, "differ in type");
	hf_case_clear();
	hf_case_add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	hf_case_add("s2", "{" SHARDS(AT("w", "[2,0]")) ","
		  T("w", "U8", "[2,1]", "[0,2]") "}");
	hf_case_refused(-EBADMSG, 1, "differ in axes");
}

static void overlapping_shards(void **state)
{
	(void)state;
	hf_case_add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[3]", "[0,3]") "}");
	hf_case_add("s2", "{" SHARDS(AT("w", "[1]")) ","
		  T("w", "U8", "[3]", "[0,3]") "}");
	hf_case_read_good(NULL);
	hf_case_check("w", "(4) s1@0:0+3 s2@0:1+3");
	assert_int_equal(hf_case_entry("w")->flags, CATALOG_OVERLAP);
}

static void refused_sharding(void **state)
{
	static const struct {
		const char *text;
		int error;
		const char *reason;
	} rows[] = {
		{ "\\\"w\\\": 1", -EBADMSG, "no JSON object" },
		{ "\\\"w\\\": {}", -EBADMSG, "without saved_offsets" },
		{ "\\\"w\\\": {\\\"saved_offsets\\\": 0}", -EBADMSG, "axes" },
		{ "\\\"w\\\": {\\\"saved_offsets\\\": []}", -EBADMSG, "axes" },
		{ "\\\"w\\\": {\\\"saved_offsets\\\": null}", -EBADMSG,
		  "axes" },
		{ AT("w", "[0,0]"), -EBADMSG, "axes" },
		{ AT("w", "[-1]"), -EBADMSG, "bad number" },
		{ AT("w", "[1.0]"), -EBADMSG, "bad number" },
		{ AT("w", "[9223372036854775807]"), -E2BIG, "too large" },
		{ AT("w", "[18446744073709551615]"), -E2BIG, "" },
		{ AT("w", "[0]") "," AT("w", "[0]"), -EBADMSG, "twice" },
		{ AT_MORE("w", "[0]", "\\\"saved_offsets\\\": [0]"), -EBADMSG,
		  "twice" },
		{ AT_MORE("w", "[0]", GLOBAL("[1]") "," GLOBAL("[1]")),
		  -EBADMSG, "twice" },
		{ AT_MORE("w", "[0]", GLOBAL("[2,2]")), -EBADMSG, "axes" },
		{ AT_MORE("w", "[0]", NAME("w") "," NAME("w")), -EBADMSG,
		  "twice" },
		{ AT_MORE("w", "[0]", "\\\"logical_fqn\\\": 1"), -EBADMSG,
		  "no string" },
		{ AT("w", "[0]") ",", -EBADMSG, "no key" },
		/* The tensor's size times its type would overflow. */
		{ AT("w", "[4611686018427387000]"), -E2BIG, "" },
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(rows); i++) {
		char header[600];

		snprintf(header, sizeof(header), "{" SHARDS("%s") ","
			 T("w", "U8", "[2]", "[0,2]") "}", rows[i].text);
		hf_case_add("s", header);
		assert_int_equal(hf_case.files[0].error, 0);
		assert_int_equal(hf_case_read(NULL), rows[i].error);
		assert_non_null(strstr(hf_case.fault.reason, rows[i].reason));
		assert_int_equal(hf_case.bad, 0);
		/* Where that text begins, or the tensor. */
		assert_true(hf_case.fault.offset ==
			    (uint64_t)(strstr(header, "INFO")
						       - header) + 8 + 6 ||
			    hf_case.fault.offset == safetensors_tensor(
				&hf_case.files[0].header, 0)->source);
		hf_case_clear();
	}
}

/* ---- elements that share bytes ------------------------------------------- */

static void packed_whole(void **state)
{
	(void)state;
	hf_case_add("a", "{" T("f4", "F4", "[3,4]", "[0,6]") ","
		 T("odd", "F4", "[2,3]", "[6,9]") ","
		 T("f6", "F6_E2M3", "[2,4]", "[9,15]") "}");
	hf_case_read_good(NULL);
	hf_case_check("f4", "(3,4) a@0:0,0+3,2");
	hf_case_check("odd", "(2,3) a@6:0,0+1,3");
	hf_case_check("f6", "(2,4) a@9:0,0+2,3");
	assert_int_equal(hf_case_entry("f4")->flags, CATALOG_PACKED);
	assert_int_equal(hf_case_entry("f4")->size, 6);
}

/* The offsets are torch's, and count bytes. */
static void packed_shards(void **state)
{
	(void)state;
	hf_case_add("s1", "{" SHARDS(AT("w", "[0,0]")) ","
		  T("w", "F4", "[2,4]", "[0,4]") "}");
	hf_case_add("s2", "{" SHARDS(AT_MORE("w", "[0,2]", GLOBAL("[2,3]"))) ","
		  T("w", "F4", "[2,2]", "[0,2]") "}");
	hf_case_read_good(NULL);
	hf_case_check("w", "(2,6) s1@0:0,0+2,2 s2@0:0,2+2,1");
	hf_case_clear();
	hf_case_add("s1", "{" SHARDS(AT("w", "[0,0]")) ","
		  T("w", "F4", "[2,3]", "[0,3]") "}");
	hf_case_read_good(NULL);
	hf_case_check("w", "(2,3) s1@0:0,0+1,3");
}

static void packed_shards_that_are_no_bytes(void **state)
{
	(void)state;
	hf_case_add("s1", "{" SHARDS(AT("w", "[0,0]")) ","
		  T("w", "F4", "[2,3]", "[0,3]") "}");
	hf_case_add("s2", "{" SHARDS(AT("w", "[2,0]")) ","
		  T("w", "F4", "[2,3]", "[0,3]") "}");
	hf_case_refused(-EBADMSG, 0, "no whole bytes");
	hf_case_clear();
	hf_case_add("s1", "{" SHARDS(AT("w", "[0,1]")) ","
		  T("w", "F6_E3M2", "[2,4]", "[0,6]") "}");
	hf_case_refused(-EBADMSG, 0, "no whole elements");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, hf_case_teardown)
	const struct CMUnitTest tests[] = {
		TEST(one_file),
		TEST(all_files_of_a_folder),
		TEST(one_that_is_called_model),
		TEST(bad_file),
		TEST(index_names_files_and_tensors),
		TEST(what_an_index_names_in_vain),
		TEST(index_names_a_bad_file),
		TEST(refused_indices),
		TEST(shards_of_ranks),
		TEST(lossy_save),
		TEST(tensor_without_sharding),
		TEST(files_beside_shards),
		TEST(an_index_beside_shards),
		TEST(bad_file_beside_shards),
		TEST(stated_shape),
		TEST(stated_name),
		TEST(shards_that_disagree),
		TEST(overlapping_shards),
		TEST(refused_sharding),
		TEST(packed_whole),
		TEST(packed_shards),
		TEST(packed_shards_that_are_no_bytes),
	};

	return cmocka_run_group_tests_name("hf", tests, NULL, NULL);
}
