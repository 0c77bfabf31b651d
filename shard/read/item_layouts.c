/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of a shard's item is one word, written once:
 *
 *	0			not looked at yet
 *	offset << 2 | PLAIN	row-major elements at this offset of the file
 *	pointer | COMPLEX	a struct layout
 *	errno << 2 | BAD	it cannot be read; this was said once
 *	... | match << 16 | UNSAID	or it was not, and why
 *
 * An item that is a blob (see blob.h) is that of many tensors: who is first to
 * read one of them fills the words of all. Only one thread does so at a time,
 * since the header of a blob may be large.
 */
#include "shard/read/item_layouts.h"

#include "shard/dcp/torch_archive.h"
#include "shard/safetensors/blob.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { UNKNOWN, PLAIN, COMPLEX, BAD, STATE_MASK = 3 };
enum { ERRNO_SHIFT = 2, ERRNO_MASK = 0xfff, MATCH_SHIFT = 16, MATCH_MASK = 7,
       UNSAID = 1 << 20 };

_Static_assert(LIMIT_TENSOR_SIZE <= UINT64_MAX >> 2, "a word holds an offset");

struct item_layouts {
	const struct catalog *catalog;	/* borrowed; const */
	struct file_cache *files; /* borrowed; const */
	pthread_mutex_t blob_lock;	/* held while a blob is parsed */
	_Atomic uint64_t words[];	/* one for each shard */
};

/* A shard that is looked at for the first time. */
struct item_question {
	const struct catalog_entry *entry;
	const struct catalog_shard *shard;
	struct box box;
	const struct cached_file *file;
	struct reply *reply;
	_Atomic uint64_t *word;
};

/* ---- words --------------------------------------------------------------- */

static bool is_row_major(const struct box *box, const struct layout *layout)
{
	uint64_t stride[LIMIT_NDIM];
	unsigned i;

	if (layout->flags)
		return false;
	box_strides(box->ndim, box->size, stride);
	for (i = 0; i < box->ndim; i++)
		if (box->size[i] > 1 && layout->stride[i] != stride[i])
			return false;
	return true;
}

static void plain_layout(uint64_t offset, const struct box *box,
			 struct layout *ret)
{
	ret->offset = offset;
	ret->flags = 0;
	box_strides(box->ndim, box->size, ret->stride);
}

static void unpack_layout(uint64_t word, const struct box *box,
			  struct layout *ret)
{
	if ((word & STATE_MASK) == COMPLEX)
		*ret = *(const struct layout *)(uintptr_t)
			(word & ~(uint64_t)STATE_MASK);
	else
		plain_layout(word >> 2, box, ret);
}

static uint64_t pack_layout(const struct box *box, const struct layout *layout)
{
	struct layout *copy;

	if (is_row_major(box, layout))
		return layout->offset << 2 | PLAIN;
	copy = malloc(sizeof(*copy));
	if (!copy)
		return UNKNOWN;
	*copy = *layout;
	return (uint64_t)(uintptr_t)copy | COMPLEX;
}

static uint64_t pack_error(int error)
{
	return (uint64_t)-error << ERRNO_SHIFT | BAD;
}

static int unpack_error(uint64_t word)
{
	return -(int)(word >> ERRNO_SHIFT & ERRNO_MASK);
}

static void free_word(uint64_t word)
{
	if ((word & STATE_MASK) == COMPLEX)
		free((void *)(uintptr_t)(word & ~(uint64_t)STATE_MASK));
}

/* ---- life ---------------------------------------------------------------- */

struct item_layouts *item_layouts_create(const struct catalog *catalog,
					 struct file_cache *files)
{
	struct item_layouts *layouts =
		calloc(1, sizeof(*layouts) + catalog->shard_count *
						     sizeof(layouts->words[0]));

	if (!layouts)
		return NULL;
	layouts->catalog = catalog;
	layouts->files = files;
	pthread_mutex_init(&layouts->blob_lock, NULL);
	return layouts;
}

void item_layouts_destroy(struct item_layouts *layouts)
{
	uint64_t i;

	if (!layouts)
		return;
	for (i = 0; i < layouts->catalog->shard_count; i++)
		free_word(atomic_load(&layouts->words[i]));
	pthread_mutex_destroy(&layouts->blob_lock);
	free(layouts);
}

/* ---- items of their own -------------------------------------------------- */

int item_layouts_item(const struct cached_file *file,
		      const struct catalog_shard *shard, struct input *ret)
{
	if (shard->offset > file->size ||
	    shard->size > file->size - shard->offset)
		return -EIO;
	*ret = input_file(file->fd, shard->offset, shard->size);
	return 0;
}

static int read_layout(const struct item_question *q, struct layout *ret,
		       struct fault *fault, int *ret_failed)
{
	const struct catalog_shard *shard = q->shard;
	struct input input;
	int error = item_layouts_item(q->file, shard, &input);

	input.failed = ret_failed;
	if (error)
		return fault_set(fault, error, shard->offset,
				 "stored item ends beyond the end of the file");
	if (shard->flags & CATALOG_TRANSFORMED)
		return fault_set(fault, -EOPNOTSUPP, shard->offset,
				 "stored item is behind a stream extension");
	if (q->entry->flags & CATALOG_OBJECT) {
		*ret = (struct layout){ .offset = shard->offset };
		ret->stride[0] = 1;
		return 0;
	}
	error = torch_archive_layout(&input, q->entry->dtype, &q->box, ret,
				     fault);
	if (error)
		fault->offset += shard->offset;
	return error;
}

/* In the words of who reads a file. */
static int as_read_error(int error)
{
	return error == -EBADMSG ? -EIO : error == -E2BIG ? -EOPNOTSUPP : error;
}

/* Errors that say something about the item, and not about this moment. */
static bool is_lasting(int error)
{
	return error == -EIO || error == -EOPNOTSUPP;
}

static void say(const struct item_layouts *layouts,
		const struct item_question *q, const struct fault *fault)
{
	q->reply->fault = *fault;
	q->reply->fault_file = catalog_text(layouts->catalog,
		catalog_file(layouts->catalog, q->shard->file)->path);
}

/* ---- items that many tensors share --------------------------------------- */

/* From where the item begins to the end of the file. */
static struct input blob_input(const struct item_question *q, int *failed)
{
	struct input input = input_file(q->file->fd, q->shard->offset,
					q->file->size - q->shard->offset);

	input.failed = failed;
	return input;
}

/* Does an item that could not be read begin like a blob? */
static bool is_blob(const struct item_question *q, int *failed)
{
	struct input input;
	bool found;

	if (q->shard->flags & CATALOG_TRANSFORMED ||
	    q->shard->offset > q->file->size)
		return false;
	input = blob_input(q, failed);
	return blob_detect(&input, &found) == 0 && found;
}

/* What @blob, if it could be read, says of shard @index of @entry. */
static uint64_t ask_blob(const struct item_layouts *layouts,
			 const struct catalog_entry *entry, uint64_t index,
			 const struct blob *blob, uint64_t base)
{
	uint64_t offset;
	enum blob_match match = blob_find(blob, layouts->catalog, entry, index,
					  &offset);

	return match == BLOB_MATCH ? (base + offset) << 2 | PLAIN :
	       pack_error(-EIO) | (uint64_t)match << MATCH_SHIFT | UNSAID;
}

/* Write the words of all shards whose item begins where that of @q does:
 * @error, or what @blob says. */
static void fill_words(struct item_layouts *layouts,
		       const struct item_question *q, const struct blob *blob,
		       int error)
{
	const struct catalog *catalog = layouts->catalog;
	uint64_t i, j;

	for (i = 0; i < catalog->tensor_count; i++) {
		const struct catalog_entry *entry = catalog_entry(catalog, i);

		for (j = 0; j < entry->shard_count; j++) {
			const struct catalog_shard *shard =
				catalog_shard(catalog, entry, j);
			uint64_t unknown = UNKNOWN;

			if (shard->offset != q->shard->offset ||
			    shard->file != q->shard->file || shard->flags)
				continue;
			atomic_compare_exchange_strong(
				&layouts->words[entry->first_shard + j],
				&unknown, error ? pack_error(error) :
				ask_blob(layouts, entry, j, blob,
					 shard->offset));
		}
	}
}

static int read_blob_locked(struct item_layouts *layouts,
			    const struct item_question *q)
{
	struct fault fault = { .error = 0 };
	struct blob blob;
	int failed = 0;
	struct input input = blob_input(q, &failed);
	int error = blob_open(&input, &blob, &fault);
	int changed = file_cache_check(layouts->files, q->shard->file);

	if (!error) {
		if (!changed)
			fill_words(layouts, q, &blob, 0);
		blob_close(&blob);
		return changed;
	}
	error = as_read_error(error);
	if (changed || failed || !is_lasting(error))
		return changed ? changed : error;
	fault.offset += q->shard->offset;
	fill_words(layouts, q, NULL, error);
	say(layouts, q, &fault);
	return 0;
}

/* 0: the word is known. */
static int learn_blob(struct item_layouts *layouts,
		      const struct item_question *q)
{
	int error = 0;

	pthread_mutex_lock(&layouts->blob_lock);
	if (atomic_load(q->word) == UNKNOWN)
		error = read_blob_locked(layouts, q);
	pthread_mutex_unlock(&layouts->blob_lock);
	return error;
}

/* ---- asking -------------------------------------------------------------- */

/* Look at the item of a shard for the first time. 0: its word is known, by us
 * or by another thread that was faster. */
static int learn(struct item_layouts *layouts, const struct item_question *q)
{
	struct fault fault = { .error = 0 };
	struct layout layout;
	uint64_t made, expected = UNKNOWN;
	int failed = 0;
	int error = as_read_error(read_layout(q, &layout, &fault, &failed));
	bool blob = is_lasting(error) && !failed && is_blob(q, &failed);

	/* Bytes of a file that changed meanwhile say nothing. */
	if (file_cache_check(layouts->files, q->shard->file))
		return -ESTALE;
	if (failed || (error && !is_lasting(error)))
		return failed ? failed : error;
	if (blob)
		return learn_blob(layouts, q);
	made = error ? pack_error(error) : pack_layout(&q->box, &layout);
	if (made == UNKNOWN)
		return -ENOMEM;
	if (!atomic_compare_exchange_strong(q->word, &expected, made))
		free_word(made);
	else if (error)
		say(layouts, q, &fault);
	return 0;
}

/* What the blob of a shard says against it, once. */
static void say_match(struct item_layouts *layouts,
		      const struct item_question *q, uint64_t known)
{
	struct fault fault;

	if (!(known & UNSAID) ||
	    !atomic_compare_exchange_strong(q->word, &known,
					    known & ~(uint64_t)UNSAID))
		return;
	fault_set_detail(&fault, -EIO, q->shard->offset,
			 blob_reason((enum blob_match)
				     (known >> MATCH_SHIFT & MATCH_MASK)),
			 (struct fault_detail){
				catalog_text(layouts->catalog, q->entry->name),
				q->entry->name_size });
	say(layouts, q, &fault);
}

int item_layouts_get(struct item_layouts *layouts,
		     const struct shard_in_file *shard, struct reply *reply,
		     struct layout *ret)
{
	const struct catalog *catalog = layouts->catalog;
	const struct catalog_entry *entry = shard->entry;
	const struct cached_file *file = shard->file;
	struct item_question q = {
		.entry = entry, .file = file, .reply = reply,
		.shard = catalog_shard(catalog, entry, shard->index),
		.word = &layouts->words[entry->first_shard + shard->index],
	};
	uint64_t known = atomic_load(q.word);
	int error;

	catalog_box(catalog, entry, shard->index, &q.box);
	if (q.shard->flags & CATALOG_RAW) {
		plain_layout(q.shard->offset, &q.box, ret);
		return q.shard->offset > file->size ||
		       q.shard->size > file->size - q.shard->offset ? -EIO : 0;
	}
	if (known == UNKNOWN) {
		if (reply->nowait)
			return -EAGAIN;
		error = learn(layouts, &q);
		if (error)
			return error;
		known = atomic_load(q.word);
	}
	if ((known & STATE_MASK) == BAD) {
		say_match(layouts, &q, known);
		return unpack_error(known);
	}
	unpack_layout(known, &q.box, ret);
	return 0;
}
