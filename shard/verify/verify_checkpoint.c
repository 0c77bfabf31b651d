/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of an item are independent: each looks at the archive for itself,
 * which costs two small reads, and computes checksums of its own bytes. The
 * first also compares the tensor with the metadata, and whichever comes to its
 * end last puts the checksums of records in several parts together.
 *
 * What is no archive may be a safetensors file with many tensors, all of whose
 * items begin where it begins. It has no checksums, and one unit.
 */
#include "shard/verify/verify_plan.h"

#include "shard/safetensors/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct verify_run {
	struct verify *v;
	struct verify_buffer *buffer;
	const struct verify_place *item;
	const struct catalog_shard *shard; /* of the first ref */
	struct verify_split *split;	/* borrowed; NULL: it is all */
	uint64_t part;
	bool used;			/* there was an item */
	bool is_blob;			/* it is no archive */
	int error;
};

/* The entries of the item are now known to be @what. */
static void mark_item(const struct verify_run *run, unsigned what)
{
	uint64_t i;

	for (i = run->item->first_ref; i < run->item[1].first_ref; i++)
		verify_mark(run->v, run->v->refs[i].entry, what);
}

/* ---- archives ------------------------------------------------------------ */

static void conclude(const struct verify_run *run,
		     const struct verify_item *item, bool good)
{
	if (!good)
		mark_item(run, ENTRY_UNCHECKED);
	else if (!item->is_recorded)
		mark_item(run, ENTRY_BARE);
	else
		mark_item(run, run->v->quick || !item->is_whole ?
			  ENTRY_UNCHECKED : ENTRY_HASHED);
}

/* @ret_last: all parts are done, or failed. */
static bool hash_part(const struct verify_run *run, struct verify_item *item,
		      bool *ret_last)
{
	uint64_t size = verify_part_size(run->shard);
	struct verify_range range = { .begin = run->part * size };
	struct verify_split *split = run->split;
	bool good;

	range.end = range.begin + size;
	good = verify_item_hash(item, range, &split->parts[run->part]);
	pthread_mutex_lock(&run->v->lock);
	split->failed = split->failed || !good;
	good = !split->failed;
	*ret_last = ++split->done == verify_part_count(run->v, run->shard);
	pthread_mutex_unlock(&run->v->lock);
	if (*ret_last && good)
		verify_item_join(item, size, split->parts);
	return good;
}

static void hash(const struct verify_run *run, struct verify_item *item)
{
	const struct verify_range all = { .begin = 0, .end = UINT64_MAX };
	struct verify_part none;
	bool good, last = true;

	if (run->split)
		good = hash_part(run, item, &last);
	else
		good = verify_item_hash(item, all, &none);
	if (last)
		conclude(run, item, good);
}

/* Compare the item with every shard that is said to be in it, and tell what
 * was found. */
static void tell_refs(struct verify_run *run, struct verify_item *item)
{
	struct verify *v = run->v;
	unsigned count = item->findings->count;
	uint64_t i;
	struct box box;

	for (i = run->item->first_ref;
	     i < run->item[1].first_ref && !run->error; i++) {
		const struct verify_ref *ref = &v->refs[i];
		const struct catalog_entry *entry =
			catalog_entry(v->catalog, ref->entry);

		if (run->part == 0 && !(entry->flags & CATALOG_OBJECT)) {
			catalog_box(v->catalog, entry, ref->shard, &box);
			run->error = verify_item_tensor(item, entry->dtype,
							&box);
		}
		if (!run->error)
			verify_tell_findings(v, ref, item->findings);
		item->findings->count = count;
	}
}

/* ---- safetensors --------------------------------------------------------- */

static void tell_match(struct verify_run *run, const struct verify_ref *ref,
		       enum blob_match match)
{
	static const enum verify_kind kinds[] = {
		[BLOB_NO_TENSOR] = VERIFY_STRUCTURE,
		[BLOB_OTHER_TYPE] = VERIFY_DTYPE,
		[BLOB_OTHER_SHAPE] = VERIFY_SHAPE,
	};

	verify_mark(run->v, ref->entry, match == BLOB_MATCH ? ENTRY_BARE :
							      ENTRY_UNCHECKED);
	if (match != BLOB_MATCH)
		verify_tell(run->v, ref, kinds[match], blob_reason(match), "");
}

static void check_blob(struct verify_run *run, const struct blob *blob)
{
	const struct catalog *catalog = run->v->catalog;
	uint64_t i, offset;

	for (i = run->item->first_ref; i < run->item[1].first_ref; i++) {
		const struct verify_ref *ref = &run->v->refs[i];
		const struct catalog_entry *entry =
			catalog_entry(catalog, ref->entry);

		tell_match(run, ref, blob_find(blob, catalog, entry,
					       ref->shard, &offset));
	}
}

/* @input goes on to the end of its file. */
static int use_blob(void *context, const struct input *input)
{
	struct verify_findings findings = { .count = 1 };
	struct fault *fault = &findings.list[0].fault;
	struct verify_run *run = context;
	struct blob blob;
	uint64_t i;

	run->error = blob_open(input, &blob, fault);
	if (run->error == -ENOMEM)
		return run->error;
	if (!run->error) {
		check_blob(run, &blob);
		blob_close(&blob);
		return 0;
	}
	findings.list[0].kind = run->error == -EBADMSG ? VERIFY_STRUCTURE :
				run->error == -E2BIG ? VERIFY_UNREAD :
						       VERIFY_IO;
	run->error = 0;
	mark_item(run, ENTRY_UNCHECKED);
	for (i = run->item->first_ref; i < run->item[1].first_ref; i++)
		verify_tell_findings(run->v, &run->v->refs[i], &findings);
	return 0;
}

/* ---- one unit ------------------------------------------------------------ */

static int use(void *context, const struct input *input)
{
	struct verify_findings findings = { .count = 0 };
	struct verify_run *run = context;
	struct verify_item item;

	run->used = true;
	if (input->fd >= 0 && input->base == 0 && run->part == 0)
		posix_fadvise(input->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	run->error = verify_item_open(&item, input, run->v->quick, run->buffer,
				      &findings);
	if (run->error)
		return run->error;
	if (!item.is_open && blob_detect(input, &run->is_blob) == 0 &&
	    run->is_blob)
		return run->shard->flags & CATALOG_TRANSFORMED ?
		       use_blob(run, input) : 0;
	/* The first part says it. */
	if (run->part > 0)
		findings.count = 0;
	hash(run, &item);
	tell_refs(run, &item);
	verify_item_close(&item);
	return run->error;
}

/* The item could not be had at all. 0 when that says something about it. */
static int refuse(const struct verify_run *run, int error)
{
	bool transformed = run->shard->flags & CATALOG_TRANSFORMED;
	const char *reason = "stored item cannot be read";
	enum verify_kind kind = VERIFY_IO;
	const char *detail = strerror(-error);
	uint64_t i;

	if (error == -ESTALE || error == -ENOMEM || error == -EMFILE ||
	    error == -ENFILE)
		return error;
	if (transformed && error == -EOPNOTSUPP) {
		kind = VERIFY_UNREAD;
		reason = "stored item is behind a stream extension that is not known";
		detail = "";
	} else if (transformed && error == -E2BIG) {
		kind = VERIFY_UNREAD;
		reason = "stored item is larger than what decoded items may take";
		detail = "";
	} else if (transformed) {
		kind = VERIFY_STRUCTURE;
		reason = "stored item cannot be decoded";
	}
	mark_item(run, ENTRY_UNCHECKED);
	for (i = run->item->first_ref;
	     i < run->item[1].first_ref && run->part == 0; i++)
		verify_tell(run->v, &run->v->refs[i], kind, reason, detail);
	return 0;
}

/* The item of a unit. */
static struct verify_place *find_item(const struct verify *v, uint64_t unit)
{
	uint64_t low = 0, high = v->item_count;

	/* It is in [low, high). */
	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;

		if (v->items[middle].first_unit <= unit)
			low = middle;
		else
			high = middle;
	}
	return &v->items[low];
}

static struct verify_split *get_split(struct verify *v,
				      struct verify_place *item,
				      uint64_t part_count)
{
	struct verify_split *split;

	pthread_mutex_lock(&v->lock);
	if (!item->split)
		item->split = calloc(1, sizeof(*split) + part_count *
				     sizeof(split->parts[0]));
	split = item->split;
	pthread_mutex_unlock(&v->lock);
	return split;
}

/* Bytes of part @part of an item of @size. */
static uint64_t part_bytes(uint64_t size, uint64_t part_size, uint64_t part)
{
	size -= part * part_size;
	return size < part_size ? size : part_size;
}

int verify_unit(struct verify *verify, struct verify_buffer *buffer,
		uint64_t index)
{
	struct verify_place *item = find_item(verify, index);
	struct verify_run run = {
		.v = verify, .buffer = buffer, .item = item,
		.shard = verify_shard(verify, &verify->refs[item->first_ref]),
		.part = index - item->first_unit,
	};
	uint64_t count = verify_part_count(verify, run.shard);
	uint64_t size = run.shard->size;
	struct catalog_shard rest;
	int error;

	if (count > 1) {
		run.split = get_split(verify, item, count);
		if (!run.split)
			return -ENOMEM;
		size = part_bytes(size, verify_part_size(run.shard), run.part);
	}
	error = checkpoint_item(verify->checkpoint, run.shard, use, &run);
	if (!error && run.is_blob && run.part == 0 &&
	    !(run.shard->flags & CATALOG_TRANSFORMED)) {
		rest = verify_rest(verify, run.shard);
		error = source_file_item(verify->checkpoint->files, &rest,
					 use_blob, &run);
	}
	if (error == -ESTALE)
		return error;
	error = run.used ? run.error : refuse(&run, error);
	if (!error)
		verify->sink->progress(verify->sink->context, size);
	return error;
}

/* ---- life ---------------------------------------------------------------- */

int verify_create(const struct checkpoint *checkpoint, bool quick,
		  const struct verify_sink *sink, struct verify **ret_verify)
{
	struct verify *v = calloc(1, sizeof(*v));
	int error;

	if (!v)
		return -ENOMEM;
	v->checkpoint = checkpoint;
	v->catalog = checkpoint->catalog;
	v->sink = sink;
	v->quick = quick;
	pthread_mutex_init(&v->lock, NULL);
	error = verify_plan(v);
	if (error) {
		verify_destroy(v);
		return error;
	}
	*ret_verify = v;
	return 0;
}

void verify_destroy(struct verify *verify)
{
	uint64_t i;

	if (!verify)
		return;
	for (i = 0; i < verify->item_count; i++)
		free(verify->items[i].split);
	pthread_mutex_destroy(&verify->lock);
	free((void *)verify->entries);
	free(verify->cut);
	free(verify->items);
	free(verify->refs);
	free(verify);
}

uint64_t verify_unit_count(const struct verify *verify)
{
	return verify->items[verify->item_count].first_unit;
}

uint64_t verify_size(const struct verify *verify)
{
	return verify->size;
}

void verify_finish(const struct verify *verify,
		   struct verify_summary *ret_summary)
{
	const struct catalog *catalog = verify->catalog;
	struct verify_summary summary = {
		.tensor_count = catalog->tensor_count,
		.fault_count = verify->fault_count,
	};
	uint64_t i;

	for (i = 0; i < catalog->tensor_count; i++) {
		unsigned known = atomic_load(&verify->entries[i]);

		summary.size += catalog_entry(catalog, i)->size;
		if (known & ENTRY_UNCHECKED)
			continue;
		summary.hashed += (known & ENTRY_HASHED) != 0;
		summary.not_recorded += known == ENTRY_BARE;
	}
	*ret_summary = summary;
}
