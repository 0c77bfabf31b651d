/* SPDX-License-Identifier: Apache-2.0 */
#include "support/sample.h"

#include "support/test.h"
#include "support/test.h"
#include "support/archive_out.h"
#include "support/catalog_out.h"
#include "support/item_out.h"
#include "support/metadata_out.h"
#include "support/reading.h"
#include "support/zstd_out.h"

#include <string.h>

enum { HALF = SAMPLE_SIZE / 2 };

static const char *const data_names[2] = { "__0_0.distcp", "__1_0.distcp" };

unsigned char sample_byte(unsigned char first, unsigned index)
{
	return (unsigned char)(first + index + index / 251);
}

static struct box half_box(unsigned rank)
{
	return BOX2(32 * rank, 0, 32, 64);
}

/* Append @item, which ends here; returns its size as it is stored. */
static uint64_t put_item(struct array *out, struct array *item, bool coded)
{
	size_t before = out->size;

	if (coded)
		zstd_out(out, item->data, item->size, ZSTD_OUT_PLAIN);
	else
		put_bytes(out, item->data, item->size);
	array_finish(item);
	return out->size - before;
}

/* The items of one rank: its half of "w", and "s" or "o". */
static void write_items(const struct test_folder *folder, unsigned rank,
			unsigned char first, bool coded,
			uint64_t ret_sizes[2])
{
	static const uint64_t size[2] = { 32, 64 };
	struct item_spec spec = item_spec_make(DTYPE_F32, 2, size);
	static unsigned char bytes[HALF];
	struct array out = { .data = NULL }, item = { .data = NULL };
	struct archive archive = { .count = 0 };
	unsigned i;

	for (i = 0; i < HALF; i++)
		bytes[i] = sample_byte(first, rank * HALF + i);
	spec.storage = bytes;
	item_out(&item, &spec);
	ret_sizes[0] = put_item(&out, &item, coded);
	if (rank == 0) {
		spec = item_spec_make(DTYPE_F32, 0, NULL);
		item_out(&item, &spec);
	} else {
		archive_add(&archive, "archive/data.pkl",
			    "\x80\2}\x8c\2lrG\x3f\xe0\0\0\0\0\0\0s.", 18);
		archive_end(&archive);
		put_bytes(&item, archive.out.data, archive.out.size);
		archive_free(&archive);
	}
	ret_sizes[1] = put_item(&out, &item, coded);
	folder_write(folder, data_names[rank], out.data, out.size);
	array_finish(&out);
}

static void describe_rank(struct metadata *metadata, unsigned rank,
			  uint64_t half, uint64_t other)
{
	const struct box box = half_box(rank), scalar = { .ndim = 0 };
	const struct metadata_place place = { data_names[rank], half, other };

	metadata_item(metadata, "w", &box, (struct metadata_place){
		      data_names[rank], 0, half });
	if (rank == 0) {
		metadata_whole(metadata, "s", "float32", &scalar, place);
	} else {
		metadata_object(metadata, "o");
		metadata_item(metadata, "o", NULL, place);
	}
}

static void write_metadata(const struct test_folder *folder, const char *name,
			   unsigned ranks, bool coded,
			   const uint64_t sizes[2][2])
{
	const struct box shape = BOX2(0, 0, 64, 64);
	struct metadata metadata = {
		.protocol = 4, .transform = coded ? "stream.zstd/1" : NULL,
	};
	struct array out = { .data = NULL };
	unsigned rank;

	metadata_begin(&metadata, "w", "float32", 2, shape.size);
	for (rank = 0; rank < 2; rank++) {
		const struct box box = half_box(rank);

		if (ranks & 1u << rank)
			metadata_chunk(&metadata, &box);
	}
	metadata_end(&metadata);
	for (rank = 0; rank < 2; rank++)
		if (ranks & 1u << rank)
			describe_rank(&metadata, rank, sizes[rank][0],
				      sizes[rank][1]);
	metadata_finish(&metadata, &out);
	folder_write(folder, name, out.data, out.size);
	array_finish(&out);
}

void sample_write(const struct test_folder *folder, bool local,
		  unsigned char first)
{
	uint64_t sizes[2][2];
	unsigned rank;

	for (rank = 0; rank < 2; rank++)
		write_items(folder, rank, first, false, sizes[rank]);
	if (!local) {
		write_metadata(folder, ".metadata", 3, false, sizes);
		return;
	}
	write_metadata(folder, "__0.metadata", 1, false, sizes);
	write_metadata(folder, "__1.metadata", 2, false, sizes);
}

void sample_write_coded(const struct test_folder *folder, unsigned char first)
{
	uint64_t sizes[2][2];
	unsigned rank;

	for (rank = 0; rank < 2; rank++)
		write_items(folder, rank, first, true, sizes[rank]);
	write_metadata(folder, ".metadata", 3, true, sizes);
}

/* Bytes of "w", and zeros behind them. */
struct part {
	unsigned begin, size, zeros;
	unsigned char first;
};

static void write_file(const struct test_folder *folder, const char *name,
		       const char *header, struct part part)
{
	struct array out = { .data = NULL };
	unsigned i;

	put_u64(&out, strlen(header));
	put_bytes(&out, header, strlen(header));
	for (i = 0; i < part.size; i++)
		put_u8(&out, sample_byte(part.first, part.begin + i));
	for (i = 0; i < part.zeros; i++)
		put_u8(&out, 0);
	folder_write(folder, name, out.data, out.size);
	array_finish(&out);
}

#define AT(name, offsets) \
	"\\\"" name "\\\":{\\\"saved_offsets\\\":" offsets "}"
#define SHARDING(text) \
	"{\"__metadata__\":{\"DCP_SHARDING_INFO\":\"{" text "}\"},"
#define TENSOR(name, shape, offsets) \
	"\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape \
	",\"data_offsets\":" offsets "}"

void sample_write_safetensors(const struct test_folder *folder,
			      enum sample_files kind, unsigned char first)
{
	static const char index[] =
		"{\"metadata\":{\"total_size\":16388},\"weight_map\":"
		"{\"w\":\"a.safetensors\",\"s\":\"b.safetensors\"}}";
	const struct part halves[2] = { { 0, HALF, 4, first },
					{ HALF, HALF, 0, first } };
	const struct part whole = { 0, SAMPLE_SIZE, 0, first };
	const struct part scalar = { 0, 0, 4, first };

	if (kind == SAMPLE_SHARDED) {
		write_file(folder, "s1.safetensors",
			   SHARDING(AT("w", "[0,0]") "," AT("s", "[]"))
			   TENSOR("w", "[32,64]", "[0,8192]") ","
			   TENSOR("s", "[]", "[8192,8196]") "}", halves[0]);
		write_file(folder, "s2.safetensors",
			   SHARDING(AT("w", "[32,0]"))
			   TENSOR("w", "[32,64]", "[0,8192]") "}", halves[1]);
		return;
	}
	write_file(folder, "a.safetensors",
		   "{" TENSOR("w", "[64,64]", "[0,16384]") "}", whole);
	write_file(folder, "b.safetensors",
		   "{" TENSOR("s", "[]", "[0,4]") "}", scalar);
	folder_write(folder, "model.safetensors.index.json", index,
		     sizeof(index) - 1);
}

int sample_read(const struct checkpoint *checkpoint, const char *name,
		struct reply *reply)
{
	int64_t index = catalog_find_tensor(checkpoint->catalog, name,
					    strlen(name));
	struct transfer transfer = {
		.source = checkpoint_source(checkpoint),
		.catalog = checkpoint->catalog,
	};
	struct box shape;

	if (index < 0)
		return -1;
	transfer.entry = catalog_entry(checkpoint->catalog, (uint64_t)index);
	catalog_shape(checkpoint->catalog, transfer.entry, &shape);
	transfer.selection = &shape;
	transfer.size = transfer.entry->size;
	return reading(&transfer, reply);
}

void sample_check(const struct reply *reply, unsigned char first)
{
	unsigned i, index = 0;

	for (i = 0; i < reply->size; i++)
		assert_int_equal(reply->data[i], sample_byte(first, index++));
	assert_int_equal(index, SAMPLE_SIZE);
}
