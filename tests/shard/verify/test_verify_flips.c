/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every single bit of checkpoints that PyTorch wrote, turned over: verify says
 * so, or the bit is one of those that this test lists. How many of which kind
 * there are is printed.
 */
#include "support/test.h"
#include "support/flips.h"
#include "support/opening.h"

#include "shard/base/bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

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

	copy_make(&copy, fixture, ".metadata");
	for (bit = 0; bit < 8 * copy.size; bit++) {
		enum outcome outcome = flip_bit(&copy, bit);

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
	copy_free(&copy);
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

	copy_make(&copy, fixture, file);
	checkpoint = copy_open(&copy);
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
	opening_close(checkpoint);
	/* All bytes of the file belong to an item. */
	assert_int_equal(totals.bits, 8 * copy.size);
	printf("%s/%s: %u bits: %u faults, %u not covered: who made the ZIP64 end record\n",
	       fixture, file, totals.bits, totals.outcomes[FAULT],
	       totals.outcomes[SAME]);
	copy_free(&copy);
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
	copy_make(&copy, fixture, "__0_0.distcp");
	for (bit = 0; bit < 8 * copy.size; bit++) {
		enum outcome outcome = flip_bit(&copy, bit);

		assert_int_equal(outcome, is_maker(bit / 8, copy.size) ?
				 SAME : FAULT);
		totals.outcomes[outcome]++;
	}
	printf("%s/%s: %u faults, %u not covered: as above\n", fixture,
	       copy.file, totals.outcomes[FAULT], totals.outcomes[SAME]);
	copy_free(&copy);
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
	copy_make(&copy, fixture, "__0_0.distcp");
	checkpoint = copy_open(&copy);
	assert_non_null(checkpoint);
	item = *catalog_shard(checkpoint->catalog,
			      catalog_entry(checkpoint->catalog, 0), 0);
	opening_close(checkpoint);
	sound = decompress(copy.bytes + item.offset, item.size, &size);
	assert_non_null(sound);
	for (bit = 0; bit < 8 * item.size; bit++) {
		unsigned char *byte = &copy.bytes[item.offset + bit / 8];
		unsigned char mask = (unsigned char)(1 << bit % 8);
		enum outcome outcome =
			flip_bit(&copy, (unsigned)(8 * item.offset + bit));

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
	copy_free(&copy);
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
