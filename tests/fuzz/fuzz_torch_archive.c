/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stored items: where a layout says that the elements of a tensor are, there
 * is a record of the item.
 *
 * Input: the form, the type, the number of axes, a byte for the size of each,
 * then the item; or, in the other form, its data.pkl, around which the target
 * puts an archive, so that a change of the pickle's size keeps it whole.
 */
#include "tests/fuzz/guarded_input.h"

#include "shard/base/limits.h"
#include "shard/dcp/torch_archive.h"

enum { AXES_MAX = 6, HEAD_SIZE = 4 + AXES_MAX, BASE = 1 << 20 };
enum { FORM_ITEM, FORM_PICKLE, FORM_COUNT };

/* ---- an archive around a pickle ------------------------------------------ */

struct writer {
	unsigned char *data;
	size_t size;
	size_t headers[4], sizes[4];
	const char *names[4];
	unsigned count;
};

static void put(struct writer *w, const void *data, size_t size)
{
	memcpy(w->data + w->size, data, size);
	w->size += size;
}

static void put_number(struct writer *w, uint64_t number, unsigned size)
{
	for (; size > 0; size--, number >>= 8)
		w->data[w->size++] = (unsigned char)number;
}

static void put_zeros(struct writer *w, size_t size)
{
	memset(w->data + w->size, 0, size);
	w->size += size;
}

static void put_record(struct writer *w, const char *name, const void *data,
		       size_t size)
{
	w->headers[w->count] = w->size;
	w->sizes[w->count] = size;
	w->names[w->count++] = name;
	put(w, "PK\3\4", 4);
	put_zeros(w, 22);
	put_number(w, strlen(name), 2);
	put_number(w, 0, 2);
	put(w, name, strlen(name));
	if (data)
		put(w, data, size);
	else
		put_zeros(w, size);
}

static void put_directory(struct writer *w)
{
	size_t start = w->size, end;
	unsigned i;

	for (i = 0; i < w->count; i++) {
		put(w, "PK\1\2", 4);
		put_zeros(w, 16);
		put_number(w, w->sizes[i], 4);
		put_number(w, w->sizes[i], 4);
		put_number(w, strlen(w->names[i]), 2);
		put_zeros(w, 12);
		put_number(w, w->headers[i], 4);
		put(w, w->names[i], strlen(w->names[i]));
	}
	end = w->size;
	put(w, "PK\5\6", 4);
	put_zeros(w, 4);
	put_number(w, w->count, 2);
	put_number(w, w->count, 2);
	put_number(w, end - start, 4);
	put_number(w, start, 4);
	put_zeros(w, 2);
}

/* @storage_size bytes of elements, and @pickle that says what they are. */
static struct writer make_item(const uint8_t *pickle, size_t size,
			       size_t storage_size, bool big)
{
	struct writer w = { .data = malloc(size + storage_size + 1024) };

	CHECK(w.data);
	put_record(&w, "a/data.pkl", pickle, size);
	put_record(&w, "a/byteorder", big ? "big" : "little", big ? 3 : 6);
	put_record(&w, "a/data/0", NULL, storage_size);
	put_directory(&w);
	w.data = realloc(w.data, w.size);
	CHECK(w.data);
	return w;
}

/* ---- checks -------------------------------------------------------------- */

/* All of @shard's elements lie inside of the item. */
static void check_layout(const struct layout *layout, const struct box *shard,
			 enum dtype dtype, uint64_t size)
{
	unsigned __int128 last = layout->offset;
	uint64_t element = dtype_info(dtype)->size;
	unsigned i;

	CHECK(!(layout->flags & ~(unsigned)(LAYOUT_SWAP | LAYOUT_CONJ |
					    LAYOUT_NEG)));
	if (box_volume(shard) == 0 || element == 0)
		return;
	CHECK(layout->offset >= BASE);
	for (i = 0; i < shard->ndim; i++)
		last += (unsigned __int128)(shard->size[i] - 1) *
			layout->stride[i] * element;
	CHECK(last + element <= BASE + size);
}

static void check_fault(const struct fault *fault, int error)
{
	CHECK(error == -EIO || error == -EOPNOTSUPP || error == -E2BIG ||
	      error == -EBADMSG || error == GUARDED_ERROR);
	CHECK(fault->error == error && fault->reason);
}

static int run_layout(const void *data, size_t size, enum dtype dtype,
		      const struct box *shard, unsigned reads)
{
	struct guarded_input guarded = guarded_input(data, size, &reads);
	struct fault fault = { .error = 0 };
	struct layout layout;
	int error;

	guarded.input.base = BASE;
	error = torch_archive_layout(&guarded.input, dtype, shard, &layout,
				     &fault);
	if (error)
		check_fault(&fault, error);
	else
		check_layout(&layout, shard, dtype, size);
	return error;
}

static void run_pickle(const void *data, size_t size)
{
	unsigned reads = 100;
	struct guarded_input guarded = guarded_input(data, size, &reads);
	struct fault fault = { .error = 0 };
	struct pickle pickle;
	void *text;
	int error = torch_archive_pickle(&guarded.input,
					 LIMIT_OBJECT_PICKLE_SIZE, &text,
					 &pickle, &fault);

	if (error) {
		check_fault(&fault, error);
		return;
	}
	CHECK(pickle.size <= size);
	pickle_finish(&pickle);
	free(text);
}

static void run(const void *data, size_t size, enum dtype dtype,
		const struct box *shard)
{
	unsigned reads = 0;

	while (run_layout(data, size, dtype, shard, reads) == GUARDED_ERROR)
		reads++;
	CHECK(reads < 100);
	run_pickle(data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct box shard = { .ndim = 0 };
	struct writer w;
	enum dtype dtype;
	unsigned i;

	if (size < HEAD_SIZE)
		return 0;
	dtype = (enum dtype)(data[1] % DTYPE_COUNT);
	shard.ndim = data[2] % (AXES_MAX + 1);
	for (i = 0; i < shard.ndim; i++)
		shard.size[i] = data[4 + i];
	if (data[0] % FORM_COUNT == FORM_ITEM) {
		run(data + HEAD_SIZE, size - HEAD_SIZE, dtype, &shard);
		return 0;
	}
	w = make_item(data + HEAD_SIZE, size - HEAD_SIZE,
		      4 * (size_t)(data[3] & 127), data[3] & 128);
	run(w.data, w.size, dtype, &shard);
	free(w.data);
	return 0;
}
