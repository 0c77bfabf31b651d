/* SPDX-License-Identifier: Apache-2.0 */
/* From the headers of several files to a catalog: which files count, and what
 * pieces make up a tensor. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/put.h"
#include "support/refusal.h"
#include "support/safetensors_out.h"

#include "shard/safetensors/hf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILES = 8 };

static struct dice dice;
static struct hf_file files[FILES];
static unsigned file_count;
static struct notes notes;
static struct fault fault;
static unsigned bad;
static struct catalog *catalog;

static void clear(void)
{
	while (file_count > 0)
		safetensors_finish(&files[--file_count].header);
	memset(files, 0, sizeof(files));
	memset(&notes, 0, sizeof(notes));
	memset(&fault, 0, sizeof(fault));
	free(catalog);
	catalog = NULL;
	bad = 77;
}

static int teardown(void **state)
{
	(void)state;
	clear();
	return 0;
}

/* The file @path, with all the data that its header asks for; a header that
 * is refused makes a bad file. */
static void add(const char *path, const char *header)
{
	struct hf_file *file = &files[file_count++];
	struct array bytes = { .data = NULL };
	struct input input;

	assert_true(file_count <= FILES);
	file->path = path;
	safetensors_out(&bytes, header, strlen(header), 65536);
	input = input_memory(bytes.data, bytes.size);
	file->error = safetensors_read(&input, false, &file->header,
				       &file->fault);
	array_finish(&bytes);
}

static int read_index(const char *text)
{
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct array index = { .data = (char *)(uintptr_t)text,
			       .size = text ? strlen(text) : 0 };
	int error = hf_read(builder, files, file_count, text ? &index : NULL,
			    &notes, &fault, &bad);

	if (error) {
		catalog_builder_destroy(builder);
		assert_int_equal(fault.error, error);
		assert_non_null(fault.reason);
		assert_true(bad <= file_count);
	} else {
		catalog = catalog_out_finish(builder);
	}
	return error;
}

static void read_good(const char *index)
{
	if (read_index(index))
		fail_msg("file %u, byte %" PRIu64 ": %s: %s", bad,
			 fault.offset, fault.reason, fault.detail);
}

static void check_refused(int error, unsigned file, const char *reason)
{
	assert_int_equal(read_index(NULL), error);
	refusal_check(reason, &fault, error, fault.offset, reason);
	assert_int_equal(bad, file);
}

static const struct catalog_entry *entry_of(const char *name)
{
	int64_t index = catalog_find_tensor(catalog, name, strlen(name));

	if (index < 0)
		fail_msg("no tensor %s", name);
	return catalog_entry(catalog, (uint64_t)index);
}

/* A row: name, shape, and its shards as "FILE@BEGIN [o,o]+[s,s]; ...", where
 * BEGIN counts from the data of the file. */
static void describe(const char *name, char *out)
{
	const struct catalog_entry *entry = entry_of(name);
	struct box box;
	unsigned i, j;

	catalog_written_shape(catalog, entry, &box);
	*out++ = '(';
	for (j = 0; j < box.ndim; j++)
		out += sprintf(out, "%s%" PRIu64, j ? "," : "", box.size[j]);
	out += sprintf(out, ")");
	for (i = 0; i < entry->shard_count; i++) {
		const struct catalog_shard *shard =
			catalog_shard(catalog, entry, i);
		const char *path = catalog_text(catalog,
			catalog_file(catalog, shard->file)->path);
		unsigned file = 0;

		while (strcmp(files[file].path, path) != 0)
			file++;
		catalog_box(catalog, entry, i, &box);
		assert_int_equal(shard->flags, CATALOG_RAW);
		assert_true(shard->size == box_volume(&box) *
					   dtype_info(entry->dtype)->size);
		out += sprintf(out, " %s@%" PRIu64, path, shard->offset -
			       files[file].header.data_offset);
		for (j = 0; j < 2 * box.ndim; j++)
			out += sprintf(out, "%s%" PRIu64,
				       j == box.ndim ? "+" : j ? "," : ":",
				       j < box.ndim ? box.offset[j] :
						      box.size[j - box.ndim]);
	}
}

static void check_tensor(const char *name, const char *expected)
{
	char text[4096];

	describe(name, text);
	assert_string_equal(text, expected);
}

#define T(name, dtype, shape, offsets) \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape \
	",\"data_offsets\":" offsets "}"
/* The sharding of a file, and of one tensor in it. */
#define SHARDS(text) \
	"\"__metadata__\":{\"DCP_VERSION\":\"1.0\"," \
	"\"DCP_SHARDING_INFO\":\"{" text "}\"}"
#define AT(name, offsets) \
	"\\\"" name "\\\": {\\\"saved_offsets\\\": " offsets "}"
#define AT_MORE(name, offsets, more) \
	"\\\"" name "\\\": {\\\"saved_offsets\\\": " offsets ", " more "}"
#define GLOBAL(shape) "\\\"global_shape\\\": " shape
#define NAME(name) "\\\"logical_fqn\\\": \\\"" name "\\\""

/* ---- whole tensors ------------------------------------------------------- */

static void one_file(void **state)
{
	(void)state;
	add("x.safetensors", "{" T("b", "F32", "[2,3]", "[2,26]") ","
			     T("a", "BF16", "[]", "[0,2]") ","
			     T("none", "I8", "[0,4]", "[26,26]") "}");
	read_good(NULL);
	assert_int_equal(catalog->tensor_count, 3);
	assert_int_equal(catalog->origin.format, CATALOG_SAFETENSORS);
	assert_int_equal(catalog->origin.torch_first, 0);
	check_tensor("b", "(2,3) x.safetensors@2:0,0+2,3");
	check_tensor("a", "() x.safetensors@0");
	check_tensor("none", "(0,4) x.safetensors@26:0,0+0,4");
	/* In the order of their data. */
	assert_int_equal(catalog_find_tensor(catalog, "a", 1), 0);
	assert_int_equal(catalog_find_tensor(catalog, "b", 1), 1);
	assert_int_equal(notes.count, 0);
}

static void all_files_of_a_folder(void **state)
{
	(void)state;
	add("a", "{" T("x", "U8", "[1]", "[0,1]") "}");
	add("b", "{" T("y", "U8", "[2]", "[0,2]") ","
		 T("x", "U8", "[3]", "[2,5]") "}");
	read_good(NULL);
	assert_int_equal(catalog->tensor_count, 2);
	check_tensor("x", "(1) a@0:0+1");
	check_tensor("y", "(2) b@0:0+2");
}

static void one_that_is_called_model(void **state)
{
	(void)state;
	add("adapter.safetensors", "{" T("x", "U8", "[1]", "[0,1]") "}");
	add("damaged.safetensors", "{");
	add("model.safetensors", "{" T("y", "U8", "[2]", "[0,2]") "}");
	read_good(NULL);
	assert_int_equal(catalog->tensor_count, 1);
	check_tensor("y", "(2) model.safetensors@0:0+2");
}

static void bad_file(void **state)
{
	(void)state;
	add("a", "{" T("x", "U8", "[1]", "[0,1]") "}");
	add("b", "{" T("y", "U9", "[2]", "[0,2]") "}");
	assert_int_equal(read_index(NULL), -EBADMSG);
	assert_int_equal(bad, 1);
	assert_string_equal(fault.detail, "U9");
	assert_memory_equal(&fault, &files[1].fault, sizeof(fault));
}

/* ---- an index ------------------------------------------------------------ */

static void index_names_files_and_tensors(void **state)
{
	(void)state;
	add("a", "{" T("x", "U8", "[1]", "[0,1]") ","
		 T("y", "U8", "[1]", "[1,2]") "}");
	add("b", "{" T("x", "U8", "[2]", "[0,2]") ","
		 T("z", "U8", "[2]", "[2,4]") "}");
	add("c", "{");
	add("model.safetensors", "{" T("w", "U8", "[2]", "[0,2]") "}");
	read_good("{\"metadata\":{\"total_size\":\"wrong\"},\"more\":[1],"
		  "\"weight_map\":{\"y\":\"a\",\"x\":\"b\"}}");
	assert_int_equal(catalog->tensor_count, 2);
	check_tensor("y", "(1) a@1:0+1");
	check_tensor("x", "(2) b@0:0+2");
	assert_int_equal(notes.count, 0);
}

static void what_an_index_names_in_vain(void **state)
{
	(void)state;
	add("a", "{" T("x", "U8", "[1]", "[0,1]") "}");
	read_good("{\"weight_map\":{\"x\":\"a\",\"y\":\"a\",\"z\":\"gone\","
		  "\"u\":\"gone\"}}");
	assert_int_equal(catalog->tensor_count, 1);
	assert_int_equal(notes.count, 4);
	assert_non_null(strstr(notes.line[0], "gone: named in the index"));
	assert_non_null(strstr(notes.line[1], "y: not in a"));
	assert_non_null(strstr(notes.line[2], "z: not in gone"));
}

static void index_names_a_bad_file(void **state)
{
	(void)state;
	add("a", "{" T("x", "U8", "[1]", "[0,1]") "}");
	add("b", "{");
	assert_int_equal(read_index("{\"weight_map\":{\"x\":\"a\",\"y\":"
				    "\"b\"}}"), -EBADMSG);
	assert_int_equal(bad, 1);
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
	add("a", "{" T("x", "U8", "[1]", "[0,1]") "}");
	for (i = 0; i < COUNT_OF(rows); i++) {
		assert_int_equal(read_index(rows[i].text), -EBADMSG);
		assert_int_equal(bad, 1);
		refusal_check(rows[i].text, &fault, -EBADMSG, rows[i].offset,
			      rows[i].reason);
	}
	/* Dots that lead nowhere. */
	read_good("{\"weight_map\":{\"x\":\"..a/b...c\"}}");
	assert_int_equal(catalog->tensor_count, 0);
}

/* ---- shards -------------------------------------------------------------- */

static void shards_of_ranks(void **state)
{
	(void)state;
	add("s1", "{" SHARDS(AT("w", "[0,0]") "," AT("s", "[]") ","
			     AT("e", "[0,0]") "," AT("gone", "[7]"))
		  "," T("w", "F32", "[2,3]", "[0,24]") ","
		  T("s", "I64", "[]", "[24,32]") ","
		  T("e", "U8", "[1,5]", "[32,37]") "}");
	add("s2", "{" SHARDS(AT("w", "[2,0]") "," AT("e", "[1,0]")) ","
		  T("w", "F32", "[1,3]", "[0,12]") ","
		  T("e", "U8", "[0,5]", "[12,12]") "}");
	read_good(NULL);
	assert_int_equal(catalog->origin.format, CATALOG_SAFETENSORS_SHARDED);
	assert_int_equal(catalog->origin.torch_first, 207);
	assert_int_equal(catalog->tensor_count, 3);
	check_tensor("w", "(3,3) s1@0:0,0+2,3 s2@0:2,0+1,3");
	check_tensor("s", "() s1@24");
	check_tensor("e", "(1,5) s1@32:0,0+1,5 s2@12:1,0+0,5");
	assert_int_equal(notes.count, 0);
}

/* The writer keeps one of two parts that a rank has: the rest is a hole. */
static void lossy_save(void **state)
{
	(void)state;
	add("s1", "{" SHARDS(AT("w", "[0,3]")) ","
		  T("w", "F32", "[2,2]", "[0,16]") "}");
	add("s2", "{" SHARDS(AT("w", "[2,3]")) ","
		  T("w", "F32", "[2,2]", "[0,16]") "}");
	read_good(NULL);
	check_tensor("w", "(4,5) s1@0:0,3+2,2 s2@0:2,3+2,2");
	assert_int_equal(entry_of("w")->flags, CATALOG_HOLES);
	assert_int_equal(notes.count, 1);
}

static void tensor_without_sharding(void **state)
{
	(void)state;
	add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[2]", "[0,2]") ","
		  T("whole", "U8", "[3,4]", "[2,14]") "}");
	read_good(NULL);
	check_tensor("whole", "(3,4) s1@2:0,0+3,4");
}

/* Files that were made from the shards do not count, even when an index names
 * them; what is only there does. */
static void files_beside_shards(void **state)
{
	(void)state;
	add("model.safetensors", "{" T("w", "U8", "[9]", "[0,9]") ","
				 T("only", "U8", "[2]", "[9,11]") "}");
	add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	add("z", "{" T("only", "U8", "[5]", "[0,5]") "}");
	read_good("{\"weight_map\":{\"w\":\"model.safetensors\"}}");
	assert_int_equal(catalog->tensor_count, 2);
	check_tensor("w", "(2) s1@0:0+2");
	check_tensor("only", "(2) model.safetensors@9:0+2");
}

/* It may be a shard. */
static void bad_file_beside_shards(void **state)
{
	(void)state;
	add("model.safetensors", "{");
	add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	check_refused(-EBADMSG, 0, "no key");
}

static void stated_shape(void **state)
{
	(void)state;
	add("s1", "{" SHARDS(AT_MORE("w", "[0,0]", GLOBAL("[5,3]"))) ","
		  T("w", "U8", "[2,3]", "[0,6]") "}");
	add("s2", "{" SHARDS(AT_MORE("w", "[2,0]", GLOBAL("null"))) ","
		  T("w", "U8", "[2,3]", "[0,6]") "}");
	read_good(NULL);
	check_tensor("w", "(5,3) s1@0:0,0+2,3 s2@0:2,0+2,3");
	assert_int_equal(entry_of("w")->flags, CATALOG_HOLES);
	clear();
	add("s1", "{" SHARDS(AT_MORE("w", "[0]", GLOBAL("[5]"))) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	add("s2", "{" SHARDS(AT_MORE("w", "[2]", GLOBAL("[4]"))) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	check_refused(-EBADMSG, 1, "differ in its shape");
	clear();
	add("s1", "{" SHARDS(AT_MORE("w", "[3]", GLOBAL("[4]"))) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	check_refused(-EBADMSG, 0, "out of the bounds");
}

/* Several pieces of one tensor in one file, under keys of their own. */
static void stated_name(void **state)
{
	(void)state;
	add("s1", "{" SHARDS(AT_MORE("k1", "[2]", NAME("w")) ","
			     AT_MORE("k0", "[0]", NAME("w")) ","
			     AT_MORE("k2", "[0]", NAME("k1")))
		  "," T("k0", "U8", "[2]", "[0,2]") ","
		  T("k1", "U8", "[2]", "[2,4]") ","
		  T("k2", "U8", "[1]", "[4,5]") "}");
	add("s2", "{" SHARDS(AT("w", "[4]")) ","
		  T("w", "U8", "[1]", "[0,1]") "}");
	read_good(NULL);
	assert_int_equal(catalog->tensor_count, 2);
	check_tensor("w", "(5) s1@0:0+2 s1@2:2+2 s2@0:4+1");
	check_tensor("k1", "(1) s1@4:0+1");
}

static void shards_that_disagree(void **state)
{
	(void)state;
	add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	add("s2", "{" SHARDS(AT("w", "[2]")) ","
		  T("w", "I8", "[2]", "[0,2]") "}");
	check_refused(-EBADMSG, 1, "differ in type");
	clear();
	add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[2]", "[0,2]") "}");
	add("s2", "{" SHARDS(AT("w", "[2,0]")) ","
		  T("w", "U8", "[2,1]", "[0,2]") "}");
	check_refused(-EBADMSG, 1, "differ in axes");
}

static void overlapping_shards(void **state)
{
	(void)state;
	add("s1", "{" SHARDS(AT("w", "[0]")) ","
		  T("w", "U8", "[3]", "[0,3]") "}");
	add("s2", "{" SHARDS(AT("w", "[1]")) ","
		  T("w", "U8", "[3]", "[0,3]") "}");
	read_good(NULL);
	check_tensor("w", "(4) s1@0:0+3 s2@0:1+3");
	assert_int_equal(entry_of("w")->flags, CATALOG_OVERLAP);
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
		add("s", header);
		assert_int_equal(files[0].error, 0);
		assert_int_equal(read_index(NULL), rows[i].error);
		assert_non_null(strstr(fault.reason, rows[i].reason));
		assert_int_equal(bad, 0);
		/* Where that text begins, or the tensor. */
		assert_true(fault.offset == (uint64_t)(strstr(header, "INFO")
						       - header) + 8 + 6 ||
			    fault.offset == safetensors_tensor(
				&files[0].header, 0)->source);
		clear();
	}
}

/* ---- elements that share bytes ------------------------------------------- */

static void packed_whole(void **state)
{
	(void)state;
	add("a", "{" T("f4", "F4", "[3,4]", "[0,6]") ","
		 T("odd", "F4", "[2,3]", "[6,9]") ","
		 T("f6", "F6_E2M3", "[2,4]", "[9,15]") "}");
	read_good(NULL);
	check_tensor("f4", "(3,4) a@0:0,0+3,2");
	check_tensor("odd", "(2,3) a@6:0,0+1,3");
	check_tensor("f6", "(2,4) a@9:0,0+2,3");
	assert_int_equal(entry_of("f4")->flags, CATALOG_PACKED);
	assert_int_equal(entry_of("f4")->size, 6);
}

/* The offsets are torch's, and count bytes. */
static void packed_shards(void **state)
{
	(void)state;
	add("s1", "{" SHARDS(AT("w", "[0,0]")) ","
		  T("w", "F4", "[2,4]", "[0,4]") "}");
	add("s2", "{" SHARDS(AT_MORE("w", "[0,2]", GLOBAL("[2,3]"))) ","
		  T("w", "F4", "[2,2]", "[0,2]") "}");
	read_good(NULL);
	check_tensor("w", "(2,6) s1@0:0,0+2,2 s2@0:0,2+2,1");
	clear();
	add("s1", "{" SHARDS(AT("w", "[0,0]")) ","
		  T("w", "F4", "[2,3]", "[0,3]") "}");
	read_good(NULL);
	check_tensor("w", "(2,3) s1@0:0,0+1,3");
}

static void packed_shards_that_are_no_bytes(void **state)
{
	(void)state;
	add("s1", "{" SHARDS(AT("w", "[0,0]")) ","
		  T("w", "F4", "[2,3]", "[0,3]") "}");
	add("s2", "{" SHARDS(AT("w", "[2,0]")) ","
		  T("w", "F4", "[2,3]", "[0,3]") "}");
	check_refused(-EBADMSG, 0, "no whole bytes");
	clear();
	add("s1", "{" SHARDS(AT("w", "[0,1]")) ","
		  T("w", "F6_E3M2", "[2,4]", "[0,6]") "}");
	check_refused(-EBADMSG, 0, "no whole elements");
}

/* ---- at random ----------------------------------------------------------- */

/* The parts of a world in some files: those of one file have keys of their
 * own. */
static void add_world(const struct world *world, unsigned in_files,
		      bool stated)
{
	struct array texts[FILES][2];
	uint64_t ends[FILES] = { 0 };
	static char paths[FILES][8];
	unsigned i, j;

	memset(texts, 0, sizeof(texts));
	for (i = 0; i < world->part_count; i++) {
		const struct box *part = &world->parts[i];
		unsigned file = (unsigned)dice_below(&dice, in_files);
		uint64_t size = box_volume(part) *
				dtype_info(world->dtype)->size;
		char offsets[300] = "", sizes[300] = "", global[300] = "";
		char text[1400];

		for (j = 0; j < part->ndim; j++) {
			sprintf(strchr(offsets, 0), "%s%" PRIu64,
				j ? ", " : "", part->offset[j]);
			sprintf(strchr(sizes, 0), "%s%" PRIu64, j ? ", " : "",
				part->size[j]);
			sprintf(strchr(global, 0), "%s%" PRIu64, j ? ", " : "",
				world->shape.size[j]);
		}
		snprintf(text, sizeof(text), "%s\\\"k%u\\\": {"
			 "\\\"saved_offsets\\\": [%s], %s%s%s"
			 "\\\"logical_fqn\\\": \\\"w\\\"}",
			 texts[file][0].size ? ", " : "", i, offsets,
			 stated ? "\\\"global_shape\\\": [" : "",
			 stated ? global : "", stated ? "], " : "");
		put_bytes(&texts[file][0], text, strlen(text));
		snprintf(text, sizeof(text), ",\"k%u\":{\"dtype\":\"%s\","
			 "\"shape\":[%s],\"data_offsets\":[%" PRIu64
			 ",%" PRIu64 "]}", i, dtype_info(world->dtype)->name,
			 sizes, ends[file], ends[file] + size);
		ends[file] += size;
		put_bytes(&texts[file][1], text, strlen(text));
	}
	for (i = 0; i < in_files; i++) {
		struct array header = { .data = NULL };

		PUT(&header, "{\"__metadata__\":{\"DCP_SHARDING_INFO\":\"{");
		put_bytes(&header, texts[i][0].data, texts[i][0].size);
		PUT(&header, "}\"}");
		put_bytes(&header, texts[i][1].data, texts[i][1].size);
		PUT(&header, "}\0");
		sprintf(paths[i], "f%u", i);
		add(paths[i], header.data);
		assert_int_equal(files[i].error, 0);
		array_finish(&header);
		array_finish(&texts[i][0]);
		array_finish(&texts[i][1]);
	}
}

/* Which part does shard @index hold? Its place in the file tells. */
static void check_shard(const struct world *world,
			const struct catalog_entry *entry, uint64_t index)
{
	const struct catalog_shard *shard =
		catalog_shard(catalog, entry, index);
	const char *path = catalog_text(catalog,
		catalog_file(catalog, shard->file)->path);
	const struct safetensors *header = &files[path[1] - '0'].header;
	uint64_t begin = shard->offset - header->data_offset, i;
	struct box box;

	catalog_box(catalog, entry, index, &box);
	for (i = 0; i < header->tensor_count; i++) {
		const struct safetensors_tensor *tensor =
			safetensors_tensor(header, i);
		const struct box *part;
		char name[8] = "";

		memcpy(name, safetensors_name(header, tensor),
		       tensor->name_size);
		part = &world->parts[atoi(name + 1)];
		if (tensor->begin == begin && tensor->end - begin ==
					      shard->size &&
		    memcmp(box.size, part->size, box.ndim * 8) == 0 &&
		    memcmp(box.offset, part->offset, box.ndim * 8) == 0)
			return;
	}
	fail_msg("shard %d of %s is none of the parts", (int)index, path);
}

static void random_shards(void **state)
{
	static const struct world_limits limits = { 5, 400, 20, 20 };
	unsigned i, taken = 0;

	(void)state;
	for (i = 0; i < 1000; i++) {
		const struct catalog_entry *entry;
		struct world world;
		struct box shape;
		uint64_t j, filled = 0;

		world_make(&world, &limits, &dice);
		if (!dtype_info(world.dtype)->order || world.part_count == 0)
			continue;
		taken++;
		add_world(&world, 1 + (unsigned)dice_below(&dice, FILES), true);
		read_good(NULL);
		entry = entry_of("w");
		assert_int_equal(entry->dtype, world.dtype);
		catalog_shape(catalog, entry, &shape);
		assert_int_equal(shape.ndim, world.shape.ndim);
		assert_memory_equal(shape.size, world.shape.size,
				    shape.ndim * sizeof(uint64_t));
		/* Of empty parts in one place one is enough. */
		assert_true(entry->shard_count <= world.part_count);
		for (j = 0; j < world.part_count; j++)
			filled += box_volume(&world.parts[j]) > 0;
		assert_true(entry->shard_count >= filled);
		for (j = 0; j < entry->shard_count; j++)
			check_shard(&world, entry, j);
		clear();
	}
	assert_true(taken > 300);
}

/* Without a stated shape it is what the parts reach. */
static void random_reach(void **state)
{
	static const struct world_limits limits = { 4, 300, 30, 0 };
	unsigned i, j, k;

	(void)state;
	for (i = 0; i < 300; i++) {
		uint64_t reach[LIMIT_NDIM] = { 0 };
		struct world world;
		struct box shape;

		world_make(&world, &limits, &dice);
		if (!dtype_info(world.dtype)->order || world.part_count == 0)
			continue;
		for (j = 0; j < world.part_count; j++)
			for (k = 0; k < world.shape.ndim; k++) {
				uint64_t end = world.parts[j].offset[k] +
					       world.parts[j].size[k];

				reach[k] = end > reach[k] ? end : reach[k];
			}
		add_world(&world, 3, false);
		read_good(NULL);
		catalog_shape(catalog, entry_of("w"), &shape);
		assert_memory_equal(shape.size, reach,
				    shape.ndim * sizeof(uint64_t));
		clear();
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, teardown)
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
		TEST(bad_file_beside_shards),
		TEST(stated_shape),
		TEST(stated_name),
		TEST(shards_that_disagree),
		TEST(overlapping_shards),
		TEST(refused_sharding),
		TEST(packed_whole),
		TEST(packed_shards),
		TEST(packed_shards_that_are_no_bytes),
		TEST(random_shards),
		TEST(random_reach),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("hf", tests, NULL, NULL);
}
