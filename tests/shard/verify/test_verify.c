/* SPDX-License-Identifier: Apache-2.0 */
/* A checkpoint as a whole: what is said of its files, items and boxes, and
 * how that is counted. */
#include "support/test.h"
#include "support/archive_out.h"
#include "support/catalog_out.h"
#include "support/folder.h"
#include "support/item_out.h"
#include "support/metadata_out.h"
#include "support/opening.h"

#include "shard/verify/verify.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FOUND_MAX = 64, THREADS = 4 };

struct found {
	enum verify_kind kind;
	char name[32], file[32];
	uint64_t shard, offset;
};

struct place {
	uint64_t offset, size;
};

struct sample {
	struct test_folder folder;
	struct metadata metadata;
	struct array files[2];	/* what they will hold */
	bool quick;
	/* What came of it. */
	struct checkpoint *checkpoint;
	struct verify *verify;
	struct verify_summary summary;
	struct found found[FOUND_MAX];
	unsigned found_count, note_count;
	struct verify_note note;	/* the first; its texts are constant */
	_Atomic uint64_t progress;
	_Atomic uint64_t next;		/* unit */
	_Atomic int error;
};

static const char *const paths[2] = { "__0_0.distcp", "__1_0.distcp" };

/* ---- making -------------------------------------------------------------- */

static struct place put_item(struct sample *s, unsigned file, uint64_t rows,
			     bool checked)
{
	const uint64_t size[2] = { rows, 8 };
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, size);
	struct place place = { .offset = s->files[file].size };
	unsigned char *storage = malloc(spec.storage_size + 1);
	uint64_t i;

	assert_non_null(storage);
	for (i = 0; i < spec.storage_size; i++)
		storage[i] = (unsigned char)(i * 7 + i / 251);
	spec.storage = storage;
	spec.checked = checked;
	item_out(&s->files[file], &spec);
	place.size = s->files[file].size - place.offset;
	free(storage);
	return place;
}

static void put_chunk(struct sample *s, const char *name, struct box box,
		      unsigned file, struct place place)
{
	metadata_chunk(&s->metadata, &box);
	metadata_item(&s->metadata, name, &box, (struct metadata_place){
		      paths[file], place.offset, place.size });
}

/* A tensor of rows [0, @rows) in one shard. */
static struct place put_tensor(struct sample *s, const char *name,
			       unsigned file, uint64_t rows, bool checked)
{
	struct box shape = BOX2(0, 0, rows, 8);
	struct place place = put_item(s, file, rows, checked);

	metadata_whole(&s->metadata, name, "float32", &shape,
		       (struct metadata_place){ paths[file], place.offset,
						place.size });
	return place;
}

static struct place put_object(struct sample *s, const char *name)
{
	struct archive archive = { .checked = true };
	struct place place = { .offset = s->files[0].size };

	archive_add(&archive, "archive/data.pkl", "\x80\2K\7.", 5);
	archive_end(&archive);
	place.size = archive.out.size;
	put_bytes(&s->files[0], archive.out.data, archive.out.size);
	archive_free(&archive);
	metadata_object(&s->metadata, name);
	metadata_item(&s->metadata, name, NULL, (struct metadata_place){
		      paths[0], place.offset, place.size });
	return place;
}

static int setup(void **state)
{
	struct sample *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	folder_make(&s->folder);
	s->metadata.protocol = 4;
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct sample *s = *state;
	unsigned i;

	for (i = 0; i < 2; i++)
		array_finish(&s->files[i]);
	folder_remove(&s->folder);
	free(s);
	return 0;
}

static void write_files(struct sample *s)
{
	struct array out = { .data = NULL };
	unsigned i;

	for (i = 0; i < 2; i++)
		if (s->files[i].size > 0)
			folder_write(&s->folder, paths[i], s->files[i].data,
				     s->files[i].size);
	metadata_finish(&s->metadata, &out);
	folder_write(&s->folder, ".metadata", out.data, out.size);
	array_finish(&out);
}

/* ---- verifying ----------------------------------------------------------- */

static void note_fault(void *context, const struct verify_fault *fault)
{
	struct sample *s = context;
	const struct catalog *catalog = s->checkpoint->catalog;
	const struct catalog_entry *entry =
		catalog_entry(catalog, fault->entry);
	struct found *found = &s->found[s->found_count++];

	assert_true(s->found_count <= FOUND_MAX);
	assert_true(fault->reason && fault->detail);
	memset(found, 0, sizeof(*found));
	found->kind = fault->kind;
	found->shard = fault->shard;
	found->offset = fault->offset;
	memcpy(found->name, catalog_text(catalog, entry->name),
	       entry->name_size);
	if (fault->file)
		strncpy(found->file, fault->file, sizeof(found->file) - 1);
}

static void note_note(void *context, const struct verify_note *note)
{
	struct sample *s = context;

	if (s->note_count++ == 0)
		s->note = *note;
}

static void note_progress(void *context, uint64_t size)
{
	((struct sample *)context)->progress += size;
}

static void *run_units(void *context)
{
	struct verify_buffer *buffer = verify_buffer_create();
	struct sample *s = context;
	uint64_t count = verify_unit_count(s->verify), unit;
	int error;

	assert_non_null(buffer);
	while ((unit = s->next++) < count) {
		error = verify_unit(s->verify, buffer, count - 1 - unit);
		if (error)
			s->error = error;
	}
	verify_buffer_destroy(buffer);
	return NULL;
}

static void open_sample(struct sample *s)
{
	const struct checkpoint_options options = { .cache = NULL };
	static struct checkpoint_report report;

	memset(&report, 0, sizeof(report));
	if (opening_checkpoint(s->folder.fd, &options, &s->checkpoint, &report))
		fail_msg("%s", report.fault.reason);
}

/* Verify the checkpoint that is open, and close it. */
static int run(struct sample *s)
{
	const struct verify_sink sink = {
		note_fault, note_note, note_progress, s
	};
	pthread_t threads[THREADS];
	unsigned i;

	s->found_count = s->note_count = 0;
	s->progress = s->next = 0;
	s->error = 0;
	assert_int_equal(verify_create(s->checkpoint, s->quick, &sink,
				       &s->verify), 0);
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run_units,
						s), 0);
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	verify_finish(s->verify, &s->summary);
	assert_int_equal(s->summary.fault_count, s->found_count);
	if (!s->error)
		assert_int_equal(s->progress, verify_size(s->verify));
	verify_destroy(s->verify);
	opening_close(s->checkpoint);
	return s->error;
}

static void look(struct sample *s)
{
	open_sample(s);
	assert_int_equal(run(s), 0);
}

static void check_summary(const struct sample *s, unsigned tensors,
			  unsigned hashed, unsigned not_recorded)
{
	assert_int_equal(s->summary.tensor_count, tensors);
	assert_int_equal(s->summary.hashed, hashed);
	assert_int_equal(s->summary.not_recorded, not_recorded);
}

/* Exactly @count faults, one of which is this. */
static void check_found(const struct sample *s, unsigned count,
			enum verify_kind kind, const char *name,
			uint64_t offset)
{
	unsigned i;

	for (i = 0; i < s->found_count; i++)
		if (s->found[i].kind == kind && s->found[i].offset == offset &&
		    strcmp(s->found[i].name, name) == 0)
			break;
	if (i == s->found_count || s->found_count != count)
		fail_msg("%u faults, the first: %s of %s at %u", s->found_count,
			 verify_kind_name(s->found[0].kind), s->found[0].name,
			 (unsigned)s->found[0].offset);
}

static void poke(struct sample *s, unsigned file, uint64_t offset)
{
	s->files[file].data[offset] ^= 1;
	folder_poke(&s->folder, paths[file], offset,
		    (unsigned char)s->files[file].data[offset]);
}

/* Offset of the elements of an item in its file: aligned in the item, behind
 * their name and the four bytes that all padding has. */
static uint64_t find_payload(const struct sample *s, unsigned file,
			     struct place place)
{
	char *item = s->files[file].data + place.offset;
	char *name = memmem(item, place.size, "archive/data/0", 14);

	assert_non_null(name);
	return place.offset + ((uint64_t)(name - item) + 14 + 4 + 63) / 64 * 64;
}

/* ---- tests --------------------------------------------------------------- */

static void sound(void **state)
{
	struct sample *s = *state;

	put_object(s, "o");
	put_tensor(s, "a", 0, 3, true);
	put_tensor(s, "b", 1, 5, true);
	put_tensor(s, "empty", 1, 0, true);
	put_tensor(s, "bare", 1, 4, false);
	write_files(s);
	look(s);
	assert_int_equal(s->found_count, 0);
	assert_int_equal(s->note_count, 0);
	assert_int_equal(s->summary.size, (3 + 5 + 4) * 8 * 4);
	check_summary(s, 4, 3, 1);
	s->quick = true;
	look(s);
	assert_int_equal(s->found_count, 0);
	check_summary(s, 4, 0, 1);
}

static void elements(void **state)
{
	struct sample *s = *state;
	struct place a, b;
	uint64_t at;

	a = put_tensor(s, "a", 0, 30, true);
	b = put_tensor(s, "b", 0, 50, true);
	write_files(s);
	at = find_payload(s, 0, b);
	poke(s, 0, at + 50 * 8 * 4 - 1);
	look(s);
	check_found(s, 1, VERIFY_CRC, "b", at);
	assert_string_equal(s->found[0].file, paths[0]);
	/* It was computed, all the same. */
	check_summary(s, 2, 2, 0);
	s->quick = true;
	look(s);
	assert_int_equal(s->found_count, 0);
	poke(s, 0, at + 50 * 8 * 4 - 1);
	poke(s, 0, a.offset + 10); /* a time of data.pkl */
	look(s);
	check_found(s, 1, VERIFY_HEADER, "a", a.offset);
}

static void missing_file(void **state)
{
	struct sample *s = *state;
	struct box shape = BOX2(0, 0, 6, 8);
	struct place first, second;

	first = put_item(s, 0, 3, true);
	second = put_item(s, 1, 3, true);
	metadata_begin(&s->metadata, "w", "float32", 2, shape.size);
	put_chunk(s, "w", BOX2(0, 0, 3, 8), 0, first);
	put_chunk(s, "w", BOX2(3, 0, 3, 8), 1, second);
	metadata_end(&s->metadata);
	put_tensor(s, "a", 0, 3, true);
	write_files(s);
	assert_int_equal(unlinkat(s->folder.fd, paths[1], 0), 0);
	look(s);
	check_found(s, 1, VERIFY_MISSING, "w", 0);
	assert_int_equal(s->found[0].shard, 1);
	check_summary(s, 2, 1, 0);
}

static void cut_file(void **state)
{
	struct sample *s = *state;
	struct place b;

	put_tensor(s, "a", 0, 3, true);
	b = put_tensor(s, "b", 0, 3, true);
	s->files[0].size--;
	write_files(s);
	look(s);
	check_found(s, 1, VERIFY_SIZE, "b", b.offset);
	check_summary(s, 2, 1, 0);
}

static void holes_and_overlaps(void **state)
{
	struct sample *s = *state;
	struct box shape = BOX2(0, 0, 9, 8);
	struct place first, second;

	first = put_item(s, 0, 3, true);
	second = put_item(s, 0, 4, true);
	metadata_begin(&s->metadata, "hole", "float32", 2, shape.size);
	put_chunk(s, "hole", BOX2(0, 0, 3, 8), 0, first);
	put_chunk(s, "hole", BOX2(5, 0, 4, 8), 0, second);
	metadata_end(&s->metadata);
	first = put_item(s, 1, 6, true);
	second = put_item(s, 1, 4, true);
	metadata_begin(&s->metadata, "twice", "float32", 2, shape.size);
	put_chunk(s, "twice", BOX2(0, 0, 6, 8), 1, first);
	put_chunk(s, "twice", BOX2(5, 0, 4, 8), 1, second);
	metadata_end(&s->metadata);
	write_files(s);
	look(s);
	check_found(s, 2, VERIFY_HOLE, "hole", 0);
	check_found(s, 2, VERIFY_OVERLAP, "twice", 0);
	/* Behind its two shards. */
	assert_int_equal(s->found[0].shard, 2);
	assert_int_equal(s->found[1].shard, VERIFY_ALL_SHARDS);
	check_summary(s, 2, 2, 0);
}

static void shared_item(void **state)
{
	struct sample *s = *state;
	struct box shape = BOX2(0, 0, 30, 8);
	struct place place = put_tensor(s, "a", 0, 30, true);

	metadata_whole(&s->metadata, "b", "float32", &shape,
		       (struct metadata_place){ paths[0], place.offset,
						place.size });
	write_files(s);
	look(s);
	assert_int_equal(s->found_count, 0);
	assert_int_equal(s->note_count, 1);
	assert_int_equal(s->note.size, place.size);
	check_summary(s, 2, 2, 0);
	poke(s, 0, find_payload(s, 0, place));
	look(s);
	assert_int_equal(s->found_count, 2);
	assert_string_not_equal(s->found[0].name, s->found[1].name);
}

/* One shares the item, and says that it has another shape. */
static void shape_of_another(void **state)
{
	struct sample *s = *state;
	struct box shape = BOX2(0, 0, 8, 30);
	struct place place = put_tensor(s, "a", 0, 30, true);

	metadata_whole(&s->metadata, "b", "int32", &shape,
		       (struct metadata_place){ paths[0], place.offset,
						place.size });
	metadata_whole(&s->metadata, "c", "float32", &shape,
		       (struct metadata_place){ paths[0], place.offset,
						place.size });
	write_files(s);
	look(s);
	check_found(s, 2, VERIFY_DTYPE, "b", 64);
	check_found(s, 2, VERIFY_SHAPE, "c", 64);
}

static void bytes_that_belong_to_nothing(void **state)
{
	struct sample *s = *state;
	struct place gap;

	put_tensor(s, "a", 0, 3, true);
	gap = put_item(s, 0, 5, true);
	put_tensor(s, "b", 0, 3, true);
	put_bytes(&s->files[0], "old", 3);
	write_files(s);
	look(s);
	assert_int_equal(s->found_count, 0);
	assert_int_equal(s->note_count, 2);
	assert_int_equal(s->note.offset, gap.offset);
	assert_int_equal(s->note.size, gap.size);
	check_summary(s, 2, 2, 0);
}

/* The metadata gives two entries bytes in common. */
static void items_over_each_other(void **state)
{
	struct sample *s = *state;
	struct box shape = BOX2(0, 0, 3, 8);
	struct place a = put_item(s, 0, 3, true);
	struct place b = put_tensor(s, "b", 0, 3, true);

	metadata_whole(&s->metadata, "a", "float32", &shape,
		       (struct metadata_place){ paths[0], a.offset,
						a.size + 1 });
	write_files(s);
	look(s);
	check_found(s, 2, VERIFY_OVERLAP, "b", b.offset);
	check_summary(s, 2, 1, 0);
}

/* A hundred entries want all of a file: some of them get it. */
static void many_items_over_each_other(void **state)
{
	struct sample *s = *state;
	struct box shape = BOX2(0, 0, 3, 8);
	struct place place = put_tensor(s, "a", 0, 3, true);
	uint64_t i;

	for (i = 1; i < 20; i++) {
		char name[] = { 'b', (char)('a' + i), '\0' };

		metadata_whole(&s->metadata, name, "float32", &shape,
			       (struct metadata_place){ paths[0], i,
							place.size - i });
	}
	write_files(s);
	look(s);
	/* What is read is at most twice the file. */
	assert_true(s->progress <= 2 * place.size);
	assert_true(s->found_count >= 19);
	check_summary(s, 20, 1, 0);
}

/* An item of three parts and a bit. */
static void large_item(void **state)
{
	struct sample *s = *state;
	uint64_t rows = (50 * MIB) / 32;
	struct place place, small;
	uint64_t at;

	place = put_tensor(s, "large", 0, rows, true);
	small = put_tensor(s, "small", 0, 3, true);
	write_files(s);
	look(s);
	assert_int_equal(s->found_count, 0);
	check_summary(s, 2, 2, 0);
	at = find_payload(s, 0, place);
	poke(s, 0, at + 20 * MIB);
	look(s);
	check_found(s, 1, VERIFY_CRC, "large", at);
	check_summary(s, 2, 2, 0);
	poke(s, 0, at + 20 * MIB);
	poke(s, 0, small.offset - 1); /* the size of the comment */
	look(s);
	assert_int_equal(s->found_count, 1);
	assert_int_equal(s->found[0].kind, VERIFY_STRUCTURE);
	check_summary(s, 2, 1, 0);
	s->quick = true;
	look(s);
	assert_int_equal(s->found_count, 1);
}

static void changes_meanwhile(void **state)
{
	struct sample *s = *state;

	put_tensor(s, "a", 0, 3, true);
	write_files(s);
	open_sample(s);
	poke(s, 0, 100);
	assert_int_equal(run(s), -ESTALE);
}

static void unknown_extension(void **state)
{
	struct sample *s = *state;

	s->metadata.transform = "stream.unknown/1";
	put_tensor(s, "a", 0, 3, true);
	write_files(s);
	look(s);
	check_found(s, 1, VERIFY_UNREAD, "a", 0);
	check_summary(s, 1, 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(sound),
		TEST(elements),
		TEST(missing_file),
		TEST(cut_file),
		TEST(holes_and_overlaps),
		TEST(shared_item),
		TEST(shape_of_another),
		TEST(bytes_that_belong_to_nothing),
		TEST(items_over_each_other),
		TEST(many_items_over_each_other),
		TEST(large_item),
		TEST(changes_meanwhile),
		TEST(unknown_extension),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
