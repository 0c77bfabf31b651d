/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stored items: what verify reads of one lies inside of it and is read once,
 * and it finds the same in one piece and in parts.
 *
 * Input: that of fuzz_item, of which the form is not used: a number that says
 * how large parts are, the type, the number of axes, a byte for the size of
 * each, then the item.
 */
#include "tests/fuzz/guarded_input.h"

#include "shard/verify/verify_item.h"

enum { AXES_MAX = 6, HEAD_SIZE = 4 + AXES_MAX, PARTS_MAX = 64 };

struct case_input {
	const void *data;
	size_t size;
	enum dtype dtype;
	struct box shard;
	struct verify_buffer *buffer;
};

static void check_findings(const struct verify_findings *findings)
{
	unsigned i;

	CHECK(findings->count <= LIMIT_ITEM_FINDINGS);
	CHECK(!findings->dropped || findings->count == LIMIT_ITEM_FINDINGS);
	for (i = 0; i < findings->count; i++) {
		CHECK(verify_kind_name(findings->list[i].kind));
		CHECK(findings->list[i].fault.error < 0);
		CHECK(findings->list[i].fault.reason);
	}
}

/* Records lie one behind the other, inside of the item. */
static void check_index(const struct verify_item *item, size_t size)
{
	uint64_t end = 0, i;

	if (!item->is_open)
		return;
	CHECK(item->index.count <= item->zip.record_count);
	for (i = 0; i < item->index.count; i++) {
		const struct zip_record *record = &item->index.records[i];

		CHECK(record->header >= end && record->offset > record->header);
		CHECK(record->offset <= size &&
		      record->size <= size - record->offset);
		end = record->offset + record->size;
	}
}

static unsigned count_crc(const struct verify_findings *findings)
{
	unsigned i, count = 0;

	for (i = 0; i < findings->count; i++)
		count += findings->list[i].kind == VERIFY_CRC;
	return count;
}

/* Closed by the caller before it goes on with another. */
static void open_item(const struct case_input *c, bool quick, unsigned reads,
		      struct verify_item *item,
		      struct verify_findings *findings)
{
	static struct guarded_input guarded;
	static unsigned left;

	left = reads;
	memset(findings, 0, sizeof(*findings));
	guarded = guarded_input(c->data, c->size, &left);
	CHECK(verify_item_open(item, &guarded.input, quick, c->buffer,
			       findings) == 0);
	check_index(item, c->size);
	/* Nothing was found, or there is something to go on with. */
	CHECK(item->is_open || findings->count > 0);
}

/* In one piece. @ret_crc: checksums that did not match, of @findings that were
 * not too many. */
static bool run_whole(const struct case_input *c, bool quick,
		      unsigned *ret_crc)
{
	const struct verify_range all = { 0, UINT64_MAX };
	struct verify_findings findings;
	struct verify_item item;
	struct verify_part part;
	unsigned before;
	bool counted;

	open_item(c, quick, quick ? 100 : 1, &item, &findings);
	before = findings.count;
	CHECK(verify_item_hash(&item, all, &part) == item.is_open);
	check_findings(&findings);
	CHECK(item.is_recorded || findings.count == before);
	*ret_crc = count_crc(&findings);
	counted = !findings.dropped;
	CHECK(verify_item_tensor(&item, c->dtype, &c->shard) == 0);
	check_findings(&findings);
	verify_item_close(&item);
	return counted;
}

static unsigned run_parts(const struct case_input *c, uint64_t part_size)
{
	uint64_t count = (c->size + part_size - 1) / part_size, i;
	struct verify_part parts[PARTS_MAX + 1];
	struct verify_findings findings;
	struct verify_item item;
	unsigned crc = 0;

	CHECK(count <= PARTS_MAX);
	for (i = 0; i <= count; i++) {
		struct verify_range range = { i * part_size,
					      (i + 1) * part_size };

		open_item(c, false, 1, &item, &findings);
		if (i < count)
			verify_item_hash(&item, range, &parts[i]);
		else
			verify_item_join(&item, part_size, parts);
		check_findings(&findings);
		crc += count_crc(&findings);
		verify_item_close(&item);
	}
	return crc;
}

static void run_unreadable(const struct case_input *c)
{
	struct verify_findings findings;
	struct verify_item item;

	open_item(c, false, 0, &item, &findings);
	CHECK(!item.is_open && findings.count == 1);
	CHECK(findings.list[0].kind == VERIFY_IO);
	verify_item_close(&item);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct verify_buffer *buffer;
	struct case_input c = { .shard = { .ndim = 0 } };
	uint64_t part_size;
	unsigned whole, quick, i;
	bool counted;

	if (size < HEAD_SIZE)
		return 0;
	c.data = data + HEAD_SIZE;
	c.size = size - HEAD_SIZE;
	c.dtype = (enum dtype)(data[1] % DTYPE_COUNT);
	c.shard.ndim = data[2] % (AXES_MAX + 1);
	for (i = 0; i < c.shard.ndim; i++)
		c.shard.size[i] = data[4 + i];
	if (!buffer)
		buffer = verify_buffer_create();
	c.buffer = buffer;
	CHECK(c.buffer);
	counted = run_whole(&c, false, &whole);
	run_whole(&c, true, &quick);
	CHECK(!counted || quick <= whole);
	part_size = c.size / PARTS_MAX + 1 + data[0];
	CHECK(!counted || run_parts(&c, part_size) == whole);
	run_unreadable(&c);
	return 0;
}
