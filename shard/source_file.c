/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of a shard's item is one word, written once:
 *
 *	0			not looked at yet
 *	offset << 2 | PLAIN	row-major elements at this offset of the file
 *	pointer | COMPLEX	a struct layout
 *	errno << 2 | BAD	it cannot be read; this was said once
 */
#include "shard/source_file.h"

#include "shard/files.h"
#include "shard/gather.h"
#include "shard/item.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { UNKNOWN, PLAIN, COMPLEX, BAD, STATE_MASK = 3 };

/* Runs below this are copied: the kernel pins pages for each segment. */
enum { BORROW_SIZE_MIN = 1024 };

struct source_file {
	struct source base;		/* first: passed as this */
	const struct catalog *catalog;	/* borrowed; const */
	struct files *files;		/* owned */
	_Atomic uint64_t *layouts;	/* owned; one for each shard */
};

/* ---- layouts ---------------------------------------------------------------- */

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

static void unpack_layout(uint64_t word, const struct box *box,
			  struct layout *ret)
{
	if ((word & STATE_MASK) == COMPLEX) {
		*ret = *(const struct layout *)(uintptr_t)
			(word & ~(uint64_t)STATE_MASK);
		return;
	}
	ret->offset = word >> 2;
	ret->flags = 0;
	box_strides(box->ndim, box->size, ret->stride);
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

/* An item inside of its file, as an input. */
static int item_input(const struct file *file,
		      const struct catalog_shard *shard, struct input *ret)
{
	if (shard->offset > file->size ||
	    shard->size > file->size - shard->offset)
		return -EIO;
	*ret = input_file(file->fd, shard->offset, shard->size);
	return 0;
}

static int read_layout(const struct plan *plan, const struct box *box,
		       const struct catalog_shard *shard,
		       const struct file *file, struct layout *ret,
		       struct fault *fault, int *ret_failed)
{
	struct input input;
	int error = item_input(file, shard, &input);

	input.failed = ret_failed;
	if (error)
		return fault_set(fault, error, shard->offset,
				 "stored item ends beyond the end of the file");
	if (shard->flags & CATALOG_TRANSFORMED)
		return fault_set(fault, -EOPNOTSUPP, shard->offset,
				 "stored item is behind a stream extension");
	if (plan->entry->flags & CATALOG_OBJECT) {
		*ret = (struct layout){ .offset = shard->offset };
		ret->stride[0] = 1;
		return 0;
	}
	error = item_layout(&input, plan->entry->dtype, box, ret, fault);
	if (error)
		fault->offset += shard->offset;
	/* In the words of who reads a file. */
	if (error == -EBADMSG)
		error = -EIO;
	else if (error == -E2BIG)
		error = -EOPNOTSUPP;
	return error;
}

/* Errors that say something about the item, and not about this moment. */
static bool is_lasting(int error)
{
	return error == -EIO || error == -EOPNOTSUPP;
}

static void say(struct source_file *s, const struct catalog_shard *shard,
		const struct fault *fault, struct reply *reply)
{
	reply->fault = *fault;
	reply->fault_file = catalog_text(s->catalog,
		catalog_file(s->catalog, shard->file)->path);
}

/* Look at the item of a shard for the first time. @ret_word is what is now
 * known of it, by us or by another thread that was faster. */
static int learn(struct source_file *s, const struct plan *plan,
		 const struct catalog_shard *shard, const struct box *box,
		 const struct file *file, struct reply *reply,
		 _Atomic uint64_t *word, uint64_t *ret_word)
{
	struct fault fault = { .error = 0 };
	struct layout layout;
	uint64_t made, expected = UNKNOWN;
	int failed = 0;
	int error = read_layout(plan, box, shard, file, &layout, &fault,
				&failed);

	/* Bytes of a file that changed meanwhile say nothing. */
	if (files_check(s->files, shard->file))
		return -ESTALE;
	if (failed || (error && !is_lasting(error)))
		return error;
	made = error ? (uint64_t)-error << 2 | BAD : pack_layout(box, &layout);
	if (made == UNKNOWN)
		return -ENOMEM;
	if (atomic_compare_exchange_strong(word, &expected, made)) {
		*ret_word = made;
		if (error)
			say(s, shard, &fault, reply);
		return error;
	}
	if ((made & STATE_MASK) == COMPLEX)
		free((void *)(uintptr_t)(made & ~(uint64_t)STATE_MASK));
	*ret_word = expected;
	return 0;
}

static int get_layout(struct source_file *s, const struct plan *plan,
		      const struct piece *piece, const struct file *file,
		      struct reply *reply, struct layout *ret)
{
	const struct catalog_shard *shard =
		catalog_shard(s->catalog, plan->entry, piece->shard);
	_Atomic uint64_t *word =
		&s->layouts[plan->entry->first_shard + piece->shard];
	uint64_t known = atomic_load(word);
	struct box box;
	int error;

	catalog_box(s->catalog, plan->entry, piece->shard, &box);
	if (known == UNKNOWN) {
		if (reply->nowait)
			return -EAGAIN;
		error = learn(s, plan, shard, &box, file, reply, word, &known);
		if (error)
			return error;
	}
	if ((known & STATE_MASK) == BAD)
		return -(int)(known >> 2);
	unpack_layout(known, &box, ret);
	return 0;
}

/* ---- reading ------------------------------------------------------------- */

/* Are these bytes of the mapping in memory? Without @nowait, make them so. */
static int make_resident(struct source_file *s, const struct file *file,
			 uint64_t offset, uint64_t size, bool nowait)
{
	const uint64_t page = 4096;
	unsigned char resident[2 + 2 * LIMIT_READ_SIZE / 4096];
	uint64_t begin = offset & ~(page - 1), end = offset + size, i, count;
	void *address = (void *)(file->map + begin);

	if (files_in_memory(s->files))
		return 0;
	if (!nowait) {
		posix_fadvise(file->fd, (off_t)begin, (off_t)(end - begin),
			      POSIX_FADV_WILLNEED);
		/* Old kernels have no such advice: the kernel will wait for
		 * the pages when it copies them. */
		if (madvise(address, end - begin, MADV_POPULATE_READ) < 0 &&
		    errno == EFAULT)
			return -EIO;
		return 0;
	}
	count = (end - begin + page - 1) / page;
	if (count > sizeof(resident) ||
	    mincore(address, end - begin, resident) < 0)
		return -EAGAIN;
	for (i = 0; i < count; i++)
		if (!(resident[i] & 1))
			return -EAGAIN;
	return 0;
}

static int borrow_extent(struct source_file *s, const struct file *file,
			 const struct extent *extent, struct reply *reply)
{
	bool dense = extent->count == 1 || extent->stride == extent->size;
	uint64_t i;
	int error = 0;

	if (dense)
		error = make_resident(s, file, extent->offset,
				      extent->size * extent->count,
				      reply->nowait);
	for (i = 0; i < extent->count && !error; i++) {
		uint64_t offset = extent->offset + i * extent->stride;

		if (!dense)
			error = make_resident(s, file, offset, extent->size,
					      reply->nowait);
		if (!error)
			error = reply_borrow(reply, extent->target +
					     i * extent->target_stride,
					     file->map + offset, extent->size);
	}
	return error;
}

/* Borrowed files are checked once more when the kernel has copied them, so
 * that a change in between is noticed by the next read at the latest. */
static void release_file(void *context, uint64_t index)
{
	struct source_file *s = context;

	files_check(s->files, (uint32_t)index);
	files_put(s->files, (uint32_t)index);
}

static int gather_piece(struct source_file *s, const struct plan *plan,
			const struct layout *layout, const struct file *file,
			struct extents *extents, struct reply *reply)
{
	struct gather gather = {
		.file = file, .target = reply_buffer(reply),
		.scratch = reply_scratch(reply),
		.scratch_size = REPLY_SIZE_MAX,
		.dtype = (enum dtype)plan->entry->dtype,
		.flags = layout->flags,
	};

	if (!gather.target || !gather.scratch)
		return -ENOMEM;
	gather.target += reply->base;
	/* A pread may block, on a store that is not in memory. */
	if (reply->nowait && !files_in_memory(s->files))
		return -EAGAIN;
	return gather_extents(&gather, extents);
}

static bool can_borrow(const struct extents *extents, const struct file *file,
		       const struct layout *layout, const struct reply *reply)
{
	return !reply->gather && file->map && !layout->flags &&
	       extents->extent.size >= BORROW_SIZE_MIN;
}

static int read_piece(struct source_file *s, const struct plan *plan,
		      const struct piece *piece, struct reply *reply)
{
	uint32_t index =
		catalog_shard(s->catalog, plan->entry, piece->shard)->file;
	struct extents extents;
	struct extent extent;
	struct layout layout;
	struct file file;
	int error;

	error = files_get(s->files, index, reply->nowait, &file);
	if (error)
		return error == -ENOENT ? -EIO : error;
	error = files_check(s->files, index);
	if (!error)
		error = get_layout(s, plan, piece, &file, reply, &layout);
	if (error)
		goto put_file;
	extents_init(&extents, plan, piece, &layout);
	if (!can_borrow(&extents, &file, &layout, reply)) {
		error = gather_piece(s, plan, &layout, &file, &extents, reply);
		if (!error)
			error = files_check(s->files, index);
		goto put_file;
	}
	error = reply_hold(reply, release_file, s, index);
	if (error)
		goto put_file;
	while (!error && extents_next(&extents, &extent))
		error = borrow_extent(s, &file, &extent, reply);
	return error;
put_file:
	files_put(s->files, index);
	return error;
}

static int read_pieces(struct source *source, const struct plan *plan,
		       const struct piece *pieces, unsigned count,
		       struct reply *reply)
{
	struct source_file *s = (struct source_file *)source;
	unsigned i;
	int error = 0;

	for (i = 0; i < count && !error; i++)
		error = read_piece(s, plan, &pieces[i], reply);
	return error;
}

/* ---- life ---------------------------------------------------------------- */

static void destroy(struct source *source)
{
	source_file_destroy((struct source_file *)source);
}

struct source_file *source_file_create(int folder,
				       const struct catalog *catalog,
				       const struct pin *pins)
{
	struct source_file *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->base = (struct source){ .read = read_pieces, .destroy = destroy };
	s->catalog = catalog;
	s->files = files_create(folder, catalog, pins);
	s->layouts = calloc(catalog->shard_count + 1, sizeof(*s->layouts));
	if (!s->files || !s->layouts) {
		source_file_destroy(s);
		return NULL;
	}
	return s;
}

void source_file_destroy(struct source_file *source)
{
	uint64_t i;

	if (!source)
		return;
	for (i = 0; source->layouts && i < source->catalog->shard_count; i++) {
		uint64_t word = atomic_load(&source->layouts[i]);

		if ((word & STATE_MASK) == COMPLEX)
			free((void *)(uintptr_t)(word & ~(uint64_t)STATE_MASK));
	}
	free(source->layouts);
	files_destroy(source->files);
	free(source);
}

struct source *source_file_source(struct source_file *source)
{
	return &source->base;
}

bool source_file_is_stale(const struct source_file *source)
{
	return files_is_stale(source->files);
}

int source_file_item(struct source_file *source,
		     const struct catalog_shard *shard,
		     int (*use)(void *context, const struct input *input),
		     void *context)
{
	struct input input;
	struct file file;
	int error;

	if (shard->flags & CATALOG_TRANSFORMED)
		return -EOPNOTSUPP;
	error = files_get(source->files, shard->file, false, &file);
	if (error)
		return error == -ENOENT ? -EIO : error;
	error = item_input(&file, shard, &input);
	if (!error)
		error = use(context, &input);
	if (files_check(source->files, shard->file))
		error = -ESTALE;
	files_put(source->files, shard->file);
	return error;
}
