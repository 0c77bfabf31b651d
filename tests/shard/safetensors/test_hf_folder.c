/* SPDX-License-Identifier: Apache-2.0 */
/* Folders of safetensors files as checkpoints: what is opened, what is
 * noticed later. */
#include "support/test.h"
#include "support/opening.h"
#include "support/put.h"
#include "support/safetensors_out.h"
#include "support/sample.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct test_folder folder;
static struct checkpoint_options options;
static struct checkpoint_report report;
static struct checkpoint *checkpoint;
static struct reply *reply;
static unsigned descriptors;

static int setup(void **state)
{
	(void)state;
	descriptors = folder_count_descriptors();
	folder_make(&folder);
	options.file = NULL;
	checkpoint = NULL;
	reply = reply_create();
	return reply ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	reply_destroy(reply);
	opening_close(checkpoint);
	folder_remove(&folder);
	assert_int_equal(folder_count_descriptors(), descriptors);
	return 0;
}

#define T(name, size) \
	"\"" name "\":{\"dtype\":\"U8\",\"shape\":[" #size "]," \
	"\"data_offsets\":[0," #size "]}"
#define SHARD(name, offset) \
	"\"__metadata__\":{\"DCP_SHARDING_INFO\":\"{\\\"" name \
	"\\\":{\\\"saved_offsets\\\":[" #offset "]}}\"},"

/* A file with one tensor of @size bytes. */
static void put(const char *name, const char *header, uint64_t size)
{
	struct array out = { .data = NULL };

	safetensors_out(&out, header, strlen(header), size);
	folder_write(&folder, name, out.data, out.size);
	array_finish(&out);
}

static void write_text(const char *name, const char *text)
{
	folder_write(&folder, name, text, strlen(text));
}

static void open_now(void)
{
	int error = opening_checkpoint(folder.fd, &options, &checkpoint, &report);

	if (error)
		fail_msg("%d: %s, byte %llu: %s", error, report.file,
			 (unsigned long long)report.fault.offset,
			 report.fault.reason);
}

static void check_refusal(int error, const char *file, uint64_t offset,
			  const char *reason)
{
	assert_int_equal(opening_checkpoint(folder.fd, &options, &checkpoint,
					 &report), error);
	assert_null(checkpoint);
	assert_string_equal(report.file, file);
	assert_int_equal(report.fault.error, error);
	assert_true(report.fault.offset == offset);
	assert_non_null(strstr(report.fault.reason, reason));
}

/* Tensor @name is @size bytes as put() writes them. */
static void check_tensor(const char *name, uint64_t size)
{
	uint64_t done = 0;
	uint64_t i;

	assert_int_equal(sample_read(checkpoint, name, reply), 0);
	for (i = 0; i < reply->size; i++)
		assert_int_equal(reply->data[i], safetensors_byte(done++));
	assert_true(done == size);
	reply_release(reply);
}

static bool has(const char *name)
{
	return catalog_find_tensor(checkpoint->catalog, name, strlen(name)) >=
	       0;
}

static void reopen(void)
{
	opening_close(checkpoint);
	checkpoint = NULL;
	open_now();
}

/* ---- what counts --------------------------------------------------------- */

static void one_file(void **state)
{
	struct stat status;

	(void)state;
	put("any name.safetensors", "{" T("x", 5000) "}", 5000);
	open_now();
	assert_int_equal(report.notes.count, 0);
	assert_int_equal(checkpoint->markers.kind, METADATA_SAFETENSORS);
	assert_int_equal(checkpoint->markers.count, 1);
	assert_int_equal(checkpoint->catalog->origin.format,
			 CATALOG_SAFETENSORS);
	check_tensor("x", 5000);
	assert_int_equal(fstatat(folder.fd, "any name.safetensors", &status,
				 0), 0);
	assert_int_equal(checkpoint_marker_pin(checkpoint)->inode, status.st_ino);
}

static void samples(void **state)
{
	(void)state;
	sample_write_safetensors(&folder, SAMPLE_INDEXED, 3);
	open_now();
	assert_int_equal(checkpoint->markers.count, 3);
	assert_int_equal(sample_read(checkpoint, "w", reply), 0);
	sample_check(reply, 3);
	assert_int_equal(sample_read(checkpoint, "s", reply), 0);
	reply_release(reply);
	sample_write_safetensors(&folder, SAMPLE_SHARDED, 4);
	reopen();
	assert_int_equal(checkpoint->catalog->origin.format,
			 CATALOG_SAFETENSORS_SHARDED);
	assert_int_equal(sample_read(checkpoint, "w", reply), 0);
	sample_check(reply, 4);
}

static void other_names(void **state)
{
	static const char *const others[] = {
		".x.safetensors", "x.safetensors.tmp", "x.safetensor",
		".safetensors", "x.SAFETENSORS", "safetensors",
		"x.safetensors.index.jsonl", ".m.safetensors.index.json",
		"index.json",
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(others); i++)
		write_text(others[i], "{");
	assert_int_equal(mkdirat(folder.fd, "d.safetensors", 0755), 0);
	assert_int_equal(mkfifoat(folder.fd, "f.safetensors", 0644), 0);
	assert_true(opening_signature(folder.fd) == 0);
	assert_int_equal(opening_checkpoint(folder.fd, &options, &checkpoint,
					 &report), -ENOENT);
	/* An index alone is none, either. */
	write_text("model.safetensors.index.json", "{\"weight_map\":{}}");
	assert_true(opening_signature(folder.fd) == 0);
	assert_int_equal(unlinkat(folder.fd, "model.safetensors.index.json",
				  0), 0);
	put("a.safetensors", "{" T("x", 5) "}", 5);
	open_now();
	assert_int_equal(checkpoint->markers.count, 1);
}

static void dcp_goes_before(void **state)
{
	(void)state;
	put("model.safetensors", "{" T("x", 5) "}", 5);
	sample_write(&folder, true, 7);
	open_now();
	assert_false(has("x"));
	assert_int_equal(sample_read(checkpoint, "w", reply), 0);
	sample_check(reply, 7);
	reply_release(reply);
	sample_write(&folder, false, 8);
	reopen();
	assert_int_equal(checkpoint->markers.kind, METADATA_DCP);
}

static void which_index(void **state)
{
	(void)state;
	put("a.safetensors", "{" T("x", 5) "}", 5);
	put("b.safetensors", "{" T("y", 6) "}", 6);
	write_text("z.safetensors.index.json", "damaged");
	write_text("c.safetensors.index.json",
		 "{\"weight_map\":{\"x\":\"a.safetensors\"}}");
	write_text("d.safetensors.index.json", "damaged");
	open_now();
	assert_true(has("x") && !has("y"));
	write_text("model.safetensors.index.json",
		 "{\"weight_map\":{\"y\":\"b.safetensors\"}}");
	reopen();
	assert_true(has("y") && !has("x"));
	check_tensor("y", 6);
}

static void one_file_of_many(void **state)
{
	(void)state;
	put("a.safetensors", "{", 0);
	put("b.safetensors", "{" T("y", 6) "}", 6);
	write_text("model.safetensors.index.json", "damaged");
	write_text(".metadata", "damaged");
	options.file = "b.safetensors";
	open_now();
	check_tensor("y", 6);
	write_text("more.safetensors", "");
	assert_true(opening_is_current(checkpoint, &(uint64_t){ 0 }));
	folder_poke(&folder, "b.safetensors", 8, '{');
	assert_false(opening_is_current(checkpoint, &(uint64_t){ 0 }));
	opening_close(checkpoint);
	checkpoint = NULL;
	options.file = "gone.safetensors";
	check_refusal(-ENOENT, "gone.safetensors", 0, "No such file");
	options.file = "a.safetensors";
	check_refusal(-EBADMSG, "a.safetensors", 9, "no key");
}

/* ---- shards in a folder inside ------------------------------------------- */

static void put_inner(void)
{
	assert_int_equal(mkdirat(folder.fd, "sharded", 0755), 0);
	put("sharded/s1.safetensors", "{" SHARD("x", 0) T("x", 3) "}", 3);
	put("sharded/s2.safetensors", "{" SHARD("x", 3) T("x", 4) "}", 4);
}

static void inner_shards_go_before(void **state)
{
	(void)state;
	put_inner();
	/* The folder inside is a checkpoint, this one is none yet. */
	assert_int_equal(opening_checkpoint(folder.fd, &options, &checkpoint,
					 &report), -ENOENT);
	put("model-1.safetensors", "{", 0);
	put("model-2.safetensors", "{" T("y", 7) "}", 7);
	write_text("model.safetensors.index.json", "damaged");
	open_now();
	assert_true(has("x") && !has("y"));
	assert_int_equal(report.notes.count, 1);
	assert_non_null(strstr(report.notes.line[0], "not the 2 files"));
	assert_int_equal(sample_read(checkpoint, "x", reply), 0);
	assert_true(reply->size == 7);
	reply_release(reply);
	assert_string_equal(catalog_text(checkpoint->catalog,
		catalog_file(checkpoint->catalog, 0)->path),
		"sharded/s1.safetensors");
}

static void inner_files_that_are_no_shards(void **state)
{
	(void)state;
	assert_int_equal(mkdirat(folder.fd, "sharded", 0755), 0);
	put("sharded/x.safetensors", "{" T("x", 3) "}", 3);
	put("model.safetensors", "{" T("y", 7) "}", 7);
	open_now();
	assert_true(has("y") && !has("x"));
	assert_int_equal(report.notes.count, 0);
}

static void bad_inner_file(void **state)
{
	static const char header[] = "{" SHARD("x", 3) T("x", 4) "}";

	(void)state;
	put_inner();
	put("model.safetensors", "{" T("y", 7) "}", 7);
	put("sharded/s2.safetensors", header, 2);
	check_refusal(-EBADMSG, "sharded/s2.safetensors",
		      8 + sizeof(header) - 1 + 2, "ends before");
}

static void inner_folder_that_is_none(void **state)
{
	(void)state;
	put("model.safetensors", "{" T("y", 7) "}", 7);
	write_text("sharded", "a file");
	open_now();
	check_tensor("y", 7);
	assert_int_equal(unlinkat(folder.fd, "sharded", 0), 0);
	assert_int_equal(symlinkat("/", folder.fd, "sharded"), 0);
	reopen();
}

/* ---- refusals ------------------------------------------------------------ */

static void damaged_files(void **state)
{
	static const char header[] = "{" T("x", 5) "}";
	const uint64_t whole = 8 + sizeof(header) - 1 + 5;

	(void)state;
	put("model.safetensors", header, 4);
	check_refusal(-EBADMSG, "model.safetensors", whole - 1, "ends before");
	put("model.safetensors", header, 6);
	check_refusal(-EBADMSG, "model.safetensors", whole, "bytes behind");
	write_text("model.safetensors", "");
	check_refusal(-EBADMSG, "model.safetensors", 0, "too short");
	put("model.safetensors", header, 5);
	open_now();
}

static void damaged_index(void **state)
{
	(void)state;
	put("a.safetensors", "{" T("x", 5) "}", 5);
	write_text("model.safetensors.index.json", "{\"weight_map\":");
	check_refusal(-EBADMSG, "model.safetensors.index.json", 14,
		      "no JSON object");
	write_text("model.safetensors.index.json", "");
	check_refusal(-EBADMSG, "model.safetensors.index.json", 0,
		      "no JSON object");
}

static void too_large_an_index(void **state)
{
	int fd;

	(void)state;
	put("a.safetensors", "{" T("x", 5) "}", 5);
	write_text("model.safetensors.index.json", "{");
	fd = openat(folder.fd, "model.safetensors.index.json",
		    O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, LIMIT_SAFETENSORS_HEADER + 1), 0);
	close(fd);
	check_refusal(-E2BIG, "model.safetensors.index.json", 0, "too large");
}

static void links(void **state)
{
	uint64_t signature;

	(void)state;
	put("real", "{" T("x", 5) "}", 5);
	assert_int_equal(symlinkat("real", folder.fd, "m.safetensors"), 0);
	open_now();
	check_tensor("x", 5);
	signature = opening_signature(folder.fd);
	assert_true(opening_signature(folder.fd) == signature);
	folder_poke(&folder, "real", 8, '{');
	assert_true(opening_signature(folder.fd) != signature);
	assert_false(opening_is_current(checkpoint, &(uint64_t){ 0 }));
	opening_close(checkpoint);
	checkpoint = NULL;
	assert_int_equal(unlinkat(folder.fd, "real", 0), 0);
	check_refusal(-EINVAL, "m.safetensors", 0, "link to nothing");
	assert_int_equal(unlinkat(folder.fd, "m.safetensors", 0), 0);
	assert_int_equal(symlinkat("/etc/passwd", folder.fd, "m.safetensors"),
			 0);
	check_refusal(-EXDEV, "m.safetensors", 0, "leads out of the folder");
}

/* ---- later --------------------------------------------------------------- */

static void signature(void **state)
{
	static const char *const steps[] = {
		"b.safetensors", "model.safetensors.index.json",
	};
	uint64_t before, after;
	unsigned i;

	(void)state;
	put("a.safetensors", "{" T("x", 5) "}", 5);
	before = opening_signature(folder.fd);
	assert_true(before != 0);
	assert_true(opening_signature(folder.fd) == before);
	write_text("notes", "x");
	assert_true(opening_signature(folder.fd) == before);
	for (i = 0; i < COUNT_OF(steps); i++) {
		write_text(steps[i], "x");
		after = opening_signature(folder.fd);
		assert_true(after != before && after != 0);
		before = after;
		folder_poke(&folder, steps[i], 0, 'y');
		after = opening_signature(folder.fd);
		assert_true(after != before);
		before = after;
	}
	put_inner();
	after = opening_signature(folder.fd);
	assert_true(after != before);
	before = after;
	folder_poke(&folder, "sharded/s2.safetensors", 0, 'y');
	after = opening_signature(folder.fd);
	assert_true(after != before);
	before = after;
	assert_int_equal(unlinkat(folder.fd, "a.safetensors", 0), 0);
	assert_true(opening_signature(folder.fd) != before);
}

static bool is_current(void)
{
	return opening_is_current(checkpoint, &(uint64_t){ 0 });
}

static void currency(void **state)
{
	(void)state;
	sample_write_safetensors(&folder, SAMPLE_INDEXED, 3);
	open_now();
	assert_true(is_current() && is_current());
	write_text("config.json", "{}");
	write_text("other.safetensors.index.json", "{}");
	assert_true(is_current());
	folder_poke(&folder, "a.safetensors", 200, 'x');
	assert_false(is_current());
	assert_int_equal(sample_read(checkpoint, "w", reply), -ESTALE);
	reopen();
	assert_true(is_current());
	folder_poke(&folder, "model.safetensors.index.json", 0, '{');
	assert_false(is_current());
	reopen();
	put("new.safetensors", "{" T("x", 5) "}", 5);
	assert_false(is_current());
	reopen();
	assert_int_equal(unlinkat(folder.fd, "new.safetensors", 0), 0);
	assert_false(is_current());
	reopen();
	/* Not one that counts, but it might. */
	put("new.safetensors", "{", 0);
	reopen();
	put("new.safetensors", "{" SHARD("x", 0) T("x", 5) "}", 5);
	assert_false(is_current());
	reopen();
	assert_true(has("x"));
	put_inner();
	assert_false(is_current());
	reopen();
	folder_poke(&folder, "sharded/s1.safetensors", 8, '{');
	assert_false(is_current());
	reopen();
	write_text(".metadata", "x");
	assert_false(is_current());
}

/* What lies beside shards was not even opened. */
static void unused_files_may_change(void **state)
{
	(void)state;
	put_inner();
	put("model.safetensors", "{" T("y", 7) "}", 7);
	open_now();
	put("model.safetensors", "{" T("y", 8) "}", 8);
	assert_true(is_current());
}

/* The cursor takes each file in its turn. */
static void cursor_goes_round(void **state)
{
	uint64_t cursor = 5;
	unsigned i;

	(void)state;
	sample_write_safetensors(&folder, SAMPLE_SHARDED, 3);
	open_now();
	for (i = 0; i < 10; i++)
		assert_true(opening_is_current(checkpoint, &cursor));
	folder_poke(&folder, "s2.safetensors", 200, 'x');
	assert_false(opening_is_current(checkpoint, &cursor));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(one_file),
		TEST(samples),
		TEST(other_names),
		TEST(dcp_goes_before),
		TEST(which_index),
		TEST(one_file_of_many),
		TEST(inner_shards_go_before),
		TEST(inner_files_that_are_no_shards),
		TEST(bad_inner_file),
		TEST(inner_folder_that_is_none),
		TEST(damaged_files),
		TEST(damaged_index),
		TEST(too_large_an_index),
		TEST(links),
		TEST(signature),
		TEST(currency),
		TEST(unused_files_may_change),
		TEST(cursor_goes_round),
	};

	return cmocka_run_group_tests_name("hf_folder", tests, NULL, NULL);
}
