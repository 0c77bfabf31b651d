/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/verify/verify_plan.h"

#include "shard/safetensors/blob.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PART_SIZE = 16 << 20 };

/* ---- telling ------------------------------------------------------------- */

static const char *file_path(const struct verify *v, uint32_t file)
{
	return catalog_text(v->catalog, catalog_file(v->catalog, file)->path);
}

static void tell(struct verify *v, const struct verify_fault *fault)
{
	pthread_mutex_lock(&v->lock);
	v->fault_count++;
	v->sink->fault(v->sink->context, fault);
	pthread_mutex_unlock(&v->lock);
}

const struct catalog_shard *verify_shard(const struct verify *verify,
					 const struct verify_ref *ref)
{
	return catalog_shard(verify->catalog,
			     catalog_entry(verify->catalog, ref->entry),
			     ref->shard);
}

void verify_tell(struct verify *verify, const struct verify_ref *ref,
		 enum verify_kind kind, const char *reason, const char *detail)
{
	const struct catalog_shard *shard = verify_shard(verify, ref);

	tell(verify, &(struct verify_fault){
		.kind = kind, .entry = ref->entry, .shard = ref->shard,
		.file = file_path(verify, shard->file),
		.offset = shard->offset, .reason = reason, .detail = detail,
	});
}

static void tell_entry(struct verify *v, uint64_t entry, uint64_t shard,
		       enum verify_kind kind, const char *reason)
{
	tell(v, &(struct verify_fault){
		.kind = kind, .entry = entry, .shard = shard,
		.reason = reason, .detail = "",
	});
}

void verify_tell_findings(struct verify *verify, const struct verify_ref *ref,
			  const struct verify_findings *findings)
{
	const struct catalog_shard *shard = verify_shard(verify, ref);
	bool decoded = shard->flags & CATALOG_TRANSFORMED;
	unsigned i;

	for (i = 0; i < findings->count; i++) {
		const struct fault *fault = &findings->list[i].fault;

		tell(verify, &(struct verify_fault){
			.kind = findings->list[i].kind,
			.entry = ref->entry, .shard = ref->shard,
			.file = file_path(verify, shard->file),
			.offset = shard->offset + (decoded ? 0 : fault->offset),
			.reason = fault->reason, .detail = fault->detail,
		});
	}
	if (findings->dropped)
		verify_tell(verify, ref, VERIFY_STRUCTURE,
			    "and more that is wrong with this item", "");
}

static void note(struct verify *v, uint32_t file, uint64_t begin, uint64_t end,
		 const char *reason)
{
	pthread_mutex_lock(&v->lock);
	v->sink->note(v->sink->context, &(struct verify_note){
		.file = file_path(v, file), .offset = begin,
		.size = end - begin, .reason = reason,
	});
	pthread_mutex_unlock(&v->lock);
}

void verify_mark(struct verify *verify, uint32_t entry, unsigned what)
{
	atomic_fetch_or(&verify->entries[entry], (unsigned char)what);
}

/* ---- entries ------------------------------------------------------------- */

/* True when there is an item to read. */
static bool check_shard(struct verify *v, const struct verify_ref *ref)
{
	const struct catalog_shard *shard = verify_shard(v, ref);
	const struct pin *pin = checkpoint_pin(v->checkpoint, shard->file);
	bool raw = shard->flags & CATALOG_RAW;

	if (pin->inode == 0) {
		verify_tell(v, ref, VERIFY_MISSING, "there is no such file",
			    "");
	} else if (shard->offset > pin->size ||
		   shard->size > pin->size - shard->offset) {
		v->cut[shard->file] = true;
		verify_tell(v, ref, VERIFY_SIZE, raw ?
			    "elements beyond the end of the file" :
			    "stored item ends beyond the end of the file", "");
	} else if (!raw) {
		return true;
	} else {
		verify_mark(v, ref->entry, ENTRY_BARE);
		return false;
	}
	verify_mark(v, ref->entry, ENTRY_UNCHECKED);
	return false;
}

static void check_entry(struct verify *v, uint64_t index)
{
	const struct catalog_entry *entry = catalog_entry(v->catalog, index);
	struct verify_ref ref = { .entry = (uint32_t)index };
	uint64_t i;

	if (entry->flags & CATALOG_OVERLAP)
		tell_entry(v, index, VERIFY_ALL_SHARDS, VERIFY_OVERLAP,
			   "shards overlap");
	if ((entry->flags & CATALOG_HOLES) && entry->hole_count == 0)
		tell_entry(v, index, VERIFY_ALL_SHARDS, VERIFY_HOLE,
			   "there are elements that no shard has");
	for (i = 0; i < entry->hole_count; i++)
		tell_entry(v, index, entry->shard_count + i, VERIFY_HOLE,
			   "no shard has these elements");
	for (i = 0; i < entry->shard_count; i++) {
		ref.shard = (uint32_t)i;
		if (check_shard(v, &ref))
			v->refs[v->ref_count++] = ref;
	}
}

/* ---- items --------------------------------------------------------------- */

/* By place, the same place together. */
static int compare_places(const struct catalog_shard *x,
			  const struct catalog_shard *y)
{
	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->flags < y->flags ? -1 : x->flags > y->flags;
}

static int compare_refs(const void *a, const void *b, void *context)
{
	const struct verify_ref *x = a, *y = b;
	const struct verify *v = context;
	const struct catalog_shard *s = verify_shard(v, x);
	const struct catalog_shard *t = verify_shard(v, y);
	int order = compare_places(s, t);

	if (order)
		return order;
	if (s->size != t->size)
		return s->size < t->size ? -1 : 1;
	if (x->entry != y->entry)
		return x->entry < y->entry ? -1 : 1;
	return x->shard < y->shard ? -1 : x->shard > y->shard;
}

uint64_t verify_part_size(const struct catalog_shard *shard)
{
	uint64_t size = PART_SIZE;

	while (shard->size / size >= LIMIT_VERIFY_PARTS)
		size *= 2;
	return size;
}

uint64_t verify_part_count(const struct verify *verify,
			   const struct catalog_shard *shard)
{
	uint64_t size = verify_part_size(shard);

	if (verify->quick || (shard->flags & CATALOG_TRANSFORMED) ||
	    shard->size <= size)
		return 1;
	return (shard->size + size - 1) / size;
}

struct catalog_shard verify_rest(const struct verify *verify,
				 const struct catalog_shard *shard)
{
	struct catalog_shard rest = *shard;

	rest.size = checkpoint_pin(verify->checkpoint, shard->file)->size -
		    shard->offset;
	return rest;
}

static int detect_blob(void *context, const struct input *input)
{
	return blob_detect(input, context);
}

/* Does a safetensors file begin where @shard does? Then items of many sizes
 * do, and end anywhere in it. */
static bool is_blob(const struct verify *v, const struct catalog_shard *shard)
{
	struct catalog_shard rest = verify_rest(v, shard);
	bool found = false;

	if (shard->flags & CATALOG_TRANSFORMED)
		return false;
	/* What cannot be read is told when it is verified. */
	source_file_item(v->checkpoint->files, &rest, detect_blob, &found);
	return found;
}

/* Where the items of one file have come to. */
struct file_reach {
	uint32_t file;
	uint64_t end;			/* bytes */
	uint64_t twice;			/* bytes of items over others */
	const struct catalog_shard *last; /* item */
};

/*
 * Bytes that no item has: an old save may leave some behind. In the files of
 * ranks that each have metadata of their own they are copies of what another
 * one has, too.
 */
static void note_gap(struct verify *v, const struct file_reach *reach,
		     uint64_t end)
{
	if (reach->end >= end || v->catalog->origin.format != CATALOG_DCP)
		return;
	if (!reach->last || !is_blob(v, reach->last))
		note(v, reach->file, reach->end, end,
		     "belong to no stored item");
}

static void end_file(struct verify *v, const struct file_reach *reach)
{
	if (reach->file != CATALOG_NO_FILE && !v->cut[reach->file])
		note_gap(v, reach,
			 checkpoint_pin(v->checkpoint, reach->file)->size);
}

/* The items of refs [@first, @end) are not to be read. */
static void drop_refs(struct verify *v, uint64_t first, uint64_t end)
{
	uint64_t i;

	for (i = first; i < end; i++)
		verify_mark(v, v->refs[i].entry, ENTRY_UNCHECKED);
}

static void tell_overlap(struct verify *v, uint64_t first, uint64_t end,
			 const char *reason)
{
	uint64_t i;

	for (i = first; i < end; i++)
		verify_tell(v, &v->refs[i], VERIFY_OVERLAP, reason, "");
}

/*
 * Hold the item of refs [@first, @end) against those before it. False when it
 * is not to be read: items over each other could make a small file a lot of
 * work.
 */
static bool place_item(struct verify *v, struct file_reach *reach,
		       uint64_t first, uint64_t end)
{
	const struct catalog_shard *shard = verify_shard(v, &v->refs[first]);
	bool fits = true;

	if (shard->file != reach->file) {
		end_file(v, reach);
		*reach = (struct file_reach){ .file = shard->file };
	}
	note_gap(v, reach, shard->offset);
	if (shard->offset < reach->end) {
		reach->twice += shard->size;
		fits = reach->twice <=
			       checkpoint_pin(v->checkpoint, shard->file)->size;
		tell_overlap(v, first, end,
			     "stored item overlaps the one before");
	}
	if (shard->offset + shard->size > reach->end) {
		reach->end = shard->offset + shard->size;
		reach->last = shard;
	}
	return fits;
}

/*
 * Of the refs [@first, @end) to one place, how many are to one item: all of
 * the same size, or all when the item is of many tensors. Others are told.
 */
static uint64_t end_of_item(struct verify *v, uint64_t first, uint64_t end)
{
	const struct catalog_shard *shard = verify_shard(v, &v->refs[first]);
	uint64_t same = first + 1;

	while (same < end &&
	       verify_shard(v, &v->refs[same])->size == shard->size)
		same++;
	if (same < end && is_blob(v, shard))
		return end;
	if (same < end)
		tell_overlap(v, same, end,
			     "stored items of different sizes at one place");
	drop_refs(v, same, end);
	if (v->refs[first].entry != v->refs[same - 1].entry &&
	    !is_blob(v, shard))
		note(v, shard->file, shard->offset,
		     shard->offset + shard->size,
		     "are the stored item of several entries");
	return same;
}

static void list_items(struct verify *v)
{
	struct file_reach reach = { .file = CATALOG_NO_FILE };
	uint64_t units = 0, kept = 0, first = 0, end, same;

	for (; first < v->ref_count; first = end) {
		const struct catalog_shard *shard =
			verify_shard(v, &v->refs[first]);

		for (end = first + 1; end < v->ref_count; end++)
			if (compare_places(shard,
					   verify_shard(v, &v->refs[end])))
				break;
		same = end_of_item(v, first, end);
		if (!place_item(v, &reach, first, same)) {
			drop_refs(v, first, same);
			continue;
		}
		v->items[v->item_count++] = (struct verify_place){
			.first_ref = kept, .first_unit = units,
		};
		memmove(&v->refs[kept], &v->refs[first],
			(same - first) * sizeof(*v->refs));
		kept += same - first;
		units += verify_part_count(v, shard);
		v->size += shard->size;
	}
	end_file(v, &reach);
	v->ref_count = kept;
	v->items[v->item_count] = (struct verify_place){
		.first_ref = kept, .first_unit = units,
	};
}

int verify_plan(struct verify *verify)
{
	const struct catalog *catalog = verify->catalog;
	uint64_t count = catalog->tensor_count + catalog->object_count, i;

	verify->refs = calloc(catalog->shard_count + 1, sizeof(*verify->refs));
	verify->items = calloc(catalog->shard_count + 1,
			       sizeof(*verify->items));
	verify->entries = calloc(count + 1, sizeof(*verify->entries));
	verify->cut = calloc(catalog->file_count + 1, sizeof(*verify->cut));
	if (!verify->refs || !verify->items || !verify->entries ||
	    !verify->cut)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		check_entry(verify, i);
	qsort_r(verify->refs, verify->ref_count, sizeof(*verify->refs),
		compare_refs, verify);
	list_items(verify);
	return 0;
}
