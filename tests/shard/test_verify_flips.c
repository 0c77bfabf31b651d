/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every single bit of checkpoints that PyTorch wrote, turned over: verify says
 * so, or the bit is one of those that this test lists. How many of which kind
 * there are is printed.
 */
#include "support/test.h"
#include "support/folder.h"

#include "shard/bytes.h"
#include "shard/verify/verify.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

/* ---- checkpoints --------------------------------------------------------- */

struct copy {
	struct folder folder;
	struct decoded_cache *cache;
	struct verify_buffer *buffer;
	char file[64];		/* whose bits are turned over */
	unsigned char *bytes;	/* of it */
	size_t size;
	/* Of the sound checkpoint: */
	char *description, *untyped;
	unsigned note_count;
};

static unsigned char *read_all(int folder, const char *name, size_t *ret_size)
{
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
	unsigned char *bytes;
	struct stat status;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &status), 0);
	bytes = malloc((size_t)status.st_size + 1);
	assert_non_null(bytes);
	assert_int_equal(io_read(fd, bytes, (size_t)status.st_size, 0), 0);
	close(fd);
	*ret_size = (size_t)status.st_size;
	return bytes;
}

static void copy_files(const struct folder *to, const char *fixture)
{
	DIR *stream = opendir(fixture);
	struct dirent *entry;

	if (!stream)
		fail_msg("%s: %s", fixture, strerror(errno));
	while ((entry = readdir(stream))) {
		size_t size;
		unsigned char *bytes;

		if (entry->d_type != DT_REG)
			continue;
		bytes = read_all(dirfd(stream), entry->d_name, &size);
		folder_write(to, entry->d_name, bytes, size);
		free(bytes);
	}
	closedir(stream);
}

/* ---- one look ------------------------------------------------------------ */

enum outcome {
	REFUSED,	/* the metadata was */
	FAULT,		/* verify had something to say */
	NOTED,		/* it found something odd */
	LOST,		/* nothing, and an entry is not there any more */
	RETYPED,	/* nothing, and an entry has another type */
	CHANGED,	/* nothing, and an entry is not what it was */
	SAME,		/* nothing, and nothing has changed but names */
	OUTCOMES,
};

struct counts {
	unsigned faults, notes;
};

static void count_fault(void *context, const struct verify_fault *fault)
{
	assert_non_null(fault->reason);
	assert_non_null(fault->detail);
	((struct counts *)context)->faults++;
}

static void count_note(void *context, const struct verify_note *note)
{
	assert_non_null(note->reason);
	((struct counts *)context)->notes++;
}

static void no_progress(void *context, uint64_t size)
{
	(void)context;
	(void)size;
}

static struct counts verify_all(const struct copy *copy,
				const struct checkpoint *checkpoint)
{
	struct counts counts = { 0, 0 };
	const struct verify_sink sink = {
		count_fault, count_note, no_progress, &counts
	};
	struct verify_summary summary;
	struct verify *verify;
	uint64_t i;

	assert_int_equal(verify_create(checkpoint, false, &sink, &verify), 0);
	for (i = 0; i < verify_unit_count(verify); i++)
		assert_int_equal(verify_unit(verify, copy->buffer, i), 0);
	verify_finish(verify, &summary);
	assert_int_equal(summary.fault_count, counts.faults);
	verify_destroy(verify);
	return counts;
}

static struct checkpoint *open_copy(const struct copy *copy)
{
	const struct checkpoint_options options = { .cache = copy->cache };
	static struct checkpoint_report report;
	struct checkpoint *checkpoint;
	int error;

	memset(&report, 0, sizeof(report));
	error = checkpoint_open(copy->folder.fd, &options, &checkpoint,
				&report);
	if (!error)
		return checkpoint;
	assert_int_not_equal(error, -ENOENT);
	assert_int_not_equal(error, -ESTALE);
	assert_non_null(report.fault.reason);
	return NULL;
}

/* ---- what must not change without notice --------------------------------- */

static int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void put_box(FILE *out, const struct box *box)
{
	unsigned i;

	for (i = 0; i < box->ndim; i++)
		fprintf(out, " %" PRIu64 "+%" PRIu64, box->offset[i],
			box->size[i]);
}

static void put_entry(FILE *out, const struct catalog *catalog,
		      const struct catalog_entry *entry, bool typed)
{
	struct box box;
	uint64_t i;

	catalog_shape(catalog, entry, &box);
	fprintf(out, "type %d flags %d shape", typed ? entry->dtype : 0,
		entry->flags);
	put_box(out, &box);
	for (i = 0; i < entry->shard_count; i++) {
		const struct catalog_shard *shard =
			catalog_shard(catalog, entry, i);

		catalog_box(catalog, entry, i, &box);
		fprintf(out, "; %s %" PRIu64 " %" PRIu64 " %u",
			catalog_text(catalog, catalog_file(catalog,
							   shard->file)->path),
			shard->offset, shard->size, shard->flags);
		put_box(out, &box);
	}
}

/* All but the names: type, boxes and places of every entry, sorted. */
static char *describe(const struct catalog *catalog, bool typed)
{
	uint64_t count = catalog->tensor_count + catalog->object_count, i;
	char **lines = calloc(count + 1, sizeof(*lines)), *text;
	size_t size;
	FILE *out;

	assert_non_null(lines);
	for (i = 0; i < count; i++) {
		out = open_memstream(&lines[i], &size);
		assert_non_null(out);
		put_entry(out, catalog, catalog_entry(catalog, i), typed);
		fclose(out);
	}
	qsort(lines, count, sizeof(*lines), compare_lines);
	out = open_memstream(&text, &size);
	assert_non_null(out);
	for (i = 0; i < count; i++) {
		fprintf(out, "%s\n", lines[i]);
		free(lines[i]);
	}
	fclose(out);
	free(lines);
	return text;
}

/* ---- turning bits over --------------------------------------------------- */

/* Is each line of @text one of the @lines? */
static bool is_part(char *text, const char *lines)
{
	char *line, *next;
	bool found = true;

	for (line = text; *line && found; line = next) {
		char *end = strchr(line, '\n');
		char last = end[1];

		next = end + 1;
		*next = '\0';
		found = strstr(lines, line);
		*next = last;
	}
	return found;
}

/* What became of a checkpoint of which verify found nothing wrong. */
static enum outcome compare(const struct copy *copy,
			    const struct catalog *catalog)
{
	char *description = describe(catalog, true);
	char *untyped = describe(catalog, false);
	enum outcome outcome = CHANGED;

	if (strcmp(description, copy->description) == 0)
		outcome = SAME;
	else if (strcmp(untyped, copy->untyped) == 0)
		outcome = RETYPED;
	else if (strlen(description) < strlen(copy->description) &&
		 is_part(description, copy->description))
		outcome = LOST;
	free(description);
	free(untyped);
	return outcome;
}

static enum outcome look(struct copy *copy)
{
	struct checkpoint *checkpoint;
	struct counts counts;
	enum outcome outcome;

	/* The clock of files is too coarse for a cache that lasts. */
	decoded_cache_destroy(copy->cache);
	copy->cache = decoded_cache_create(MIB);
	assert_non_null(copy->cache);
	checkpoint = open_copy(copy);
	if (!checkpoint)
		return REFUSED;
	counts = verify_all(copy, checkpoint);
	if (counts.faults)
		outcome = FAULT;
	else if (counts.notes > copy->note_count)
		outcome = NOTED;
	else
		outcome = compare(copy, checkpoint->catalog);
	checkpoint_close(checkpoint);
	return outcome;
}

static void make_copy(struct copy *copy, const char *fixture, const char *file)
{
	struct checkpoint *checkpoint;
	struct counts counts;
	char path[512];

	memset(copy, 0, sizeof(*copy));
	folder_make(&copy->folder);
	snprintf(path, sizeof(path), "%s/%s", FIXTURES, fixture);
	copy_files(&copy->folder, path);
	snprintf(copy->file, sizeof(copy->file), "%s", file);
	copy->bytes = read_all(copy->folder.fd, file, &copy->size);
	copy->cache = decoded_cache_create(MIB);
	copy->buffer = verify_buffer_create();
	assert_true(copy->cache && copy->buffer);
	checkpoint = open_copy(copy);
	assert_non_null(checkpoint);
	counts = verify_all(copy, checkpoint);
	assert_int_equal(counts.faults, 0);
	copy->note_count = counts.notes;
	copy->description = describe(checkpoint->catalog, true);
	copy->untyped = describe(checkpoint->catalog, false);
	checkpoint_close(checkpoint);
}

static void free_copy(struct copy *copy)
{
	free(copy->description);
	free(copy->untyped);
	free(copy->bytes);
	verify_buffer_destroy(copy->buffer);
	decoded_cache_destroy(copy->cache);
	folder_remove(&copy->folder);
}

struct totals {
	unsigned bits, outcomes[OUTCOMES];
};

static enum outcome flip(struct copy *copy, unsigned bit)
{
	unsigned char byte = copy->bytes[bit / 8];
	enum outcome outcome;

	folder_poke(&copy->folder, copy->file, bit / 8,
		    byte ^ (unsigned char)(1 << bit % 8));
	outcome = look(copy);
	folder_poke(&copy->folder, copy->file, bit / 8, byte);
	return outcome;
}

/* ---- the metadata -------------------------------------------------------- */

/*
 * What is not covered: names of tensors, of classes and of attributes that
 * nobody reads, numbers that nobody uses, and bytes that skip over nothing. A
 * path or an offset that leads to the item of another entry is odd. One name
 * may become another: then there is one entry less, and its item is the last
 * of it ("rank0" to "rank1"; at most @lost_max bits).
 */
static void flip_metadata(const char *fixture, unsigned lost_max)
{
	struct totals totals = { 0 };
	struct copy copy;
	unsigned bit;

	make_copy(&copy, fixture, ".metadata");
	for (bit = 0; bit < 8 * copy.size; bit++) {
		enum outcome outcome = flip(&copy, bit);

		totals.bits++;
		totals.outcomes[outcome]++;
		if (outcome == CHANGED || outcome == RETYPED)
			fail_msg("%s: bit %u of byte %u of .metadata: another box, type or place, and no word of it",
				 fixture, bit % 8, bit / 8);
	}
	printf("%s/.metadata: %u bits: %u refused, %u faults, %u odd; not covered: %u names and what nobody reads, %u names that became another\n",
	       fixture, totals.bits, totals.outcomes[REFUSED],
	       totals.outcomes[FAULT], totals.outcomes[NOTED],
	       totals.outcomes[SAME], totals.outcomes[LOST]);
	assert_true(totals.outcomes[LOST] <= lost_max);
	free_copy(&copy);
}

static void metadata_of_torch_2_6(void **state)
{
	(void)state;
	flip_metadata("torch-2.6.0/per_rank_keys", 20);
}

static void metadata_of_torch_2_14(void **state)
{
	(void)state;
	flip_metadata("torch-2.14.1/async_dtensor2", 0);
}

/* ---- stored items -------------------------------------------------------- */

/* The byte of the item that ends at @end: of the number that says who made
 * the ZIP64 end record. No reader uses it, and it stands there alone. */
static bool is_maker(uint64_t byte, uint64_t end)
{
	uint64_t at = end - 22 - 20 - 56 + 12;

	return byte == at || byte == at + 1;
}

/* All stored items of a file, each flip looked at by itself. */
static void flip_item(struct copy *copy, const struct catalog_entry *entry,
		      const struct catalog *catalog, uint64_t index,
		      struct totals *totals)
{
	const struct catalog_shard *shard =
		catalog_shard(catalog, entry, index);
	unsigned char *item = copy->bytes + shard->offset;
	const struct verify_range all = { 0, UINT64_MAX };
	struct verify_findings findings;
	struct input input = input_memory(item, shard->size);
	struct verify_item verify;
	struct verify_part part;
	struct box box;
	unsigned bit;

	catalog_box(catalog, entry, index, &box);
	for (bit = 0; bit < 8 * shard->size; bit++) {
		findings.count = 0;
		item[bit / 8] ^= (unsigned char)(1 << bit % 8);
		assert_int_equal(verify_item_open(&verify, &input, false,
						  copy->buffer, &findings), 0);
		verify_item_hash(&verify, all, &part);
		if (!(entry->flags & CATALOG_OBJECT))
			assert_int_equal(verify_item_tensor(&verify,
							    entry->dtype,
							    &box), 0);
		verify_item_close(&verify);
		item[bit / 8] ^= (unsigned char)(1 << bit % 8);
		totals->bits++;
		if (findings.count > 0)
			totals->outcomes[FAULT]++;
		else if (is_maker(bit / 8, shard->size))
			totals->outcomes[SAME]++;
		else
			fail_msg("bit %u of byte %u of the item at %" PRIu64
				 " of %s is not covered", bit % 8, bit / 8,
				 shard->offset, copy->file);
	}
}

static void flip_items(const char *fixture, const char *file)
{
	struct totals totals = { 0 };
	struct checkpoint *checkpoint;
	const struct catalog *catalog;
	struct copy copy;
	uint64_t i, k;

	make_copy(&copy, fixture, file);
	checkpoint = open_copy(&copy);
	assert_non_null(checkpoint);
	catalog = checkpoint->catalog;
	for (i = 0; i < catalog->tensor_count + catalog->object_count; i++) {
		const struct catalog_entry *entry = catalog_entry(catalog, i);

		for (k = 0; k < entry->shard_count; k++) {
			const char *path = catalog_text(catalog, catalog_file(
				catalog, catalog_shard(catalog, entry, k)->
				file)->path);

			if (strcmp(path, file) == 0)
				flip_item(&copy, entry, catalog, k, &totals);
		}
	}
	checkpoint_close(checkpoint);
	/* All bytes of the file belong to an item. */
	assert_int_equal(totals.bits, 8 * copy.size);
	printf("%s/%s: %u bits: %u faults, %u not covered: who made the ZIP64 end record\n",
	       fixture, file, totals.bits, totals.outcomes[FAULT],
	       totals.outcomes[SAME]);
	free_copy(&copy);
}

static void items_of_torch_2_6(void **state)
{
	(void)state;
	flip_items("torch-2.6.0/per_rank_keys", "__0_0.distcp");
	flip_items("torch-2.6.0/dtensor4", "__0_0.distcp");
}

static void items_of_torch_2_14(void **state)
{
	(void)state;
	flip_items("torch-2.14.1/async_dtensor2", "__1_0.distcp");
	flip_items("torch-2.14.1/per_rank_keys", "__1_0.distcp");
	/* Empty records, and objects. */
	flip_items("torch-2.14.1/dtensor4", "__3_0.distcp");
}

/* ---- the same through files ---------------------------------------------- */

static void file_of_torch_2_14(void **state)
{
	static const char fixture[] = "torch-2.14.1/per_rank_keys";
	struct totals totals = { 0 };
	struct copy copy;
	unsigned bit;

	(void)state;
	make_copy(&copy, fixture, "__0_0.distcp");
	for (bit = 0; bit < 8 * copy.size; bit++) {
		enum outcome outcome = flip(&copy, bit);

		assert_int_equal(outcome, is_maker(bit / 8, copy.size) ?
				 SAME : FAULT);
		totals.outcomes[outcome]++;
	}
	printf("%s/%s: %u faults, %u not covered: as above\n", fixture,
	       copy.file, totals.outcomes[FAULT], totals.outcomes[SAME]);
	free_copy(&copy);
}

/* ---- behind a stream extension ------------------------------------------- */

/* What a frame holds; NULL: it is damaged. */
static char *decompress(const void *frame, size_t size, size_t *ret_size)
{
	ZSTD_DStream *stream = ZSTD_createDStream();
	ZSTD_inBuffer in = { frame, size, 0 };
	ZSTD_outBuffer out = { malloc(MIB), MIB, 0 };
	size_t left;

	assert_true(stream && out.dst);
	do
		left = ZSTD_decompressStream(stream, &out, &in);
	while (!ZSTD_isError(left) && left > 0 && in.pos < in.size);
	ZSTD_freeDStream(stream);
	*ret_size = out.pos;
	if (!ZSTD_isError(left) && left == 0 && in.pos == in.size)
		return out.dst;
	free(out.dst);
	return NULL;
}

/* Does @item hold what the records of @sound hold, where they do? */
static void check_records(const char *item, const char *sound, size_t size)
{
	struct input input = input_memory(sound, size);
	struct zip_record record;
	uint64_t position = 0;
	unsigned count = 0;
	struct zip zip;

	assert_int_equal(zip_open(&zip, &input, MIB, NULL), 0);
	while (!zip_next(&zip, &position, &record, NULL)) {
		assert_int_equal(zip_locate(&zip, &record, NULL), 0);
		assert_memory_equal(item + record.offset,
				    sound + record.offset, record.size);
		count++;
	}
	assert_true(count > 3);
	zip_close(&zip);
}

/*
 * Not covered are bits with which the frame still holds the same records: many
 * of its own, and some that change headers in the archive that a frame has
 * once for all of them, such as the folder's name, in the same way.
 */
static void zstd_frames(void **state)
{
	static const char fixture[] = "torch-2.14.1/zstd";
	struct totals totals = { 0 };
	struct checkpoint *checkpoint;
	struct catalog_shard item;
	struct copy copy;
	size_t size, flipped_size;
	char *sound, *flipped;
	unsigned bit;

	(void)state;
	make_copy(&copy, fixture, "__0_0.distcp");
	checkpoint = open_copy(&copy);
	assert_non_null(checkpoint);
	item = *catalog_shard(checkpoint->catalog,
			      catalog_entry(checkpoint->catalog, 0), 0);
	checkpoint_close(checkpoint);
	sound = decompress(copy.bytes + item.offset, item.size, &size);
	assert_non_null(sound);
	for (bit = 0; bit < 8 * item.size; bit++) {
		unsigned char *byte = &copy.bytes[item.offset + bit / 8];
		unsigned char mask = (unsigned char)(1 << bit % 8);
		enum outcome outcome =
			flip(&copy, (unsigned)(8 * item.offset + bit));

		totals.outcomes[outcome]++;
		if (outcome == FAULT)
			continue;
		assert_int_equal(outcome, SAME);
		*byte ^= mask;
		flipped = decompress(copy.bytes + item.offset, item.size,
				     &flipped_size);
		*byte ^= mask;
		if (!flipped || size != flipped_size)
			fail_msg("bit %u: a damaged frame, and no word of it",
				 bit);
		check_records(flipped, sound, size);
		free(flipped);
	}
	printf("%s: %u faults, %u not covered: the same records\n",
	       fixture, totals.outcomes[FAULT], totals.outcomes[SAME]);
	free(sound);
	free_copy(&copy);
}

/* ---- safetensors --------------------------------------------------------- */

/* Elements have no checksum; of the header, names and types of the same size
 * stand nowhere else. */
static void flip_safetensors(const char *fixture, const char *file)
{
	unsigned elements = 0, bit;
	struct totals totals = { 0 };
	struct copy copy;
	size_t data;

	make_copy(&copy, fixture, file);
	data = 8 + (size_t)bytes_u64le(copy.bytes);
	for (bit = 0; bit < 8 * copy.size; bit++) {
		enum outcome outcome = flip(&copy, bit);

		if (bit / 8 >= data) {
			assert_int_equal(outcome, SAME);
			elements++;
			continue;
		}
		totals.outcomes[outcome]++;
		if (outcome == CHANGED || outcome == LOST)
			fail_msg("%s: bit %u of byte %u of %s: another shape or place, and no word of it",
				 fixture, bit % 8, bit / 8, file);
	}
	printf("%s/%s: header: %u refused, %u faults, %u odd; not covered: %u names, %u types, and %u of elements\n",
	       fixture, file, totals.outcomes[REFUSED], totals.outcomes[FAULT],
	       totals.outcomes[NOTED], totals.outcomes[SAME],
	       totals.outcomes[RETYPED], elements);
	free_copy(&copy);
}

static void safetensors_files(void **state)
{
	(void)state;
	flip_safetensors("torch-2.14.1/hf_rank0",
			 "model-00001-of-00001.safetensors");
	flip_safetensors("torch-2.14.1/hf_sharded4_indexed",
			 "shard-00002-model-00001-of-00002.safetensors");
}

static void put_part(FILE *out, struct json_object *object, const char *key,
		     const char *missing)
{
	struct json_object *value = NULL;

	json_object_object_get_ex(object, key, &value);
	fprintf(out, " %s", value ? json_object_to_json_string(value) :
				    missing);
}

/* What the header of the safetensors at @bytes says of the tensors "w" and
 * "i": type, shape, place and where they lie; NULL: it is none. */
static char *tell_header(const unsigned char *bytes, size_t size)
{
	struct json_tokener *tokener = json_tokener_new();
	uint64_t length = bytes_u64le(bytes);
	struct json_object *header = NULL, *value = NULL, *sharding;
	size_t text_size;
	char *text = NULL;
	FILE *out;

	if (length <= size - 8)
		header = json_tokener_parse_ex(tokener,
					       (const char *)bytes + 8,
					       (int)length);
	json_tokener_free(tokener);
	if (!header)
		return NULL;
	out = open_memstream(&text, &text_size);
	assert_non_null(out);
	json_object_object_get_ex(header, "__metadata__", &value);
	json_object_object_get_ex(value, "DCP_SHARDING_INFO", &value);
	sharding = json_object_is_type(value, json_type_string) ?
		   json_tokener_parse(json_object_get_string(value)) : NULL;
	/* What is not said to be a part is whole. */
	put_part(out, sharding, "w", "{ \"saved_offsets\": [ 0, 0 ] }");
	put_part(out, sharding, "i", "{ \"saved_offsets\": [ 0 ] }");
	put_part(out, header, "w", "");
	put_part(out, header, "i", "");
	fclose(out);
	json_object_put(sharding);
	json_object_put(header);
	return text;
}

static void safetensors_in_distcp(void **state)
{
	static const char fixture[] =
		"torch-2.14.1/serialization_format_safetensors";
	unsigned elements = 0, bit;
	struct totals totals = { 0 };
	struct copy copy;
	size_t begin, data;
	char *sound, *flipped;
	void *start;

	(void)state;
	make_copy(&copy, fixture, "__0_0.distcp");
	start = memmem(copy.bytes, copy.size, "{\"__metadata__", 14);
	assert_non_null(start);
	begin = (size_t)((unsigned char *)start - copy.bytes) - 8;
	data = begin + 8 + (size_t)bytes_u64le(copy.bytes + begin);
	sound = tell_header(copy.bytes + begin, copy.size - begin);
	assert_non_null(sound);
	for (bit = 8 * (unsigned)begin; bit < 8 * copy.size; bit++) {
		enum outcome outcome = flip(&copy, bit);
		unsigned char mask = (unsigned char)(1 << bit % 8);

		assert_true(outcome == FAULT || outcome == SAME);
		if (bit / 8 >= data) {
			assert_int_equal(outcome, SAME);
			elements++;
			continue;
		}
		totals.outcomes[outcome]++;
		if (outcome == FAULT)
			continue;
		copy.bytes[bit / 8] ^= mask;
		flipped = tell_header(copy.bytes + begin, copy.size - begin);
		copy.bytes[bit / 8] ^= mask;
		if (!flipped || strcmp(flipped, sound) != 0)
			fail_msg("bit %u of byte %u: a header that says something else, and no word of it: %s",
				 bit % 8, bit / 8, flipped);
		free(flipped);
	}
	printf("%s: header: %u faults, %u not covered: versions and blanks; nor %u of elements\n",
	       fixture, totals.outcomes[FAULT], totals.outcomes[SAME],
	       elements);
	free(sound);
	free_copy(&copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(metadata_of_torch_2_6),
		cmocka_unit_test(metadata_of_torch_2_14),
		cmocka_unit_test(items_of_torch_2_6),
		cmocka_unit_test(items_of_torch_2_14),
		cmocka_unit_test(file_of_torch_2_14),
		cmocka_unit_test(zstd_frames),
		cmocka_unit_test(safetensors_files),
		cmocka_unit_test(safetensors_in_distcp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
