/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/read/source_file.h"

#include "shard/read/file_cache.h"
#include "shard/read/gather.h"
#include "shard/read/item_layouts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Runs below this are copied: the kernel pins pages for each segment. */
enum { BORROW_SIZE_MIN = 1024 };

struct source_file {
	struct source base;		/* first: passed as this */
	const struct catalog *catalog;	/* borrowed; const */
	struct file_cache *files; /* owned */
	struct item_layouts *layouts; /* owned */
};

/* ---- reading ------------------------------------------------------------- */

/* Are these bytes of the mapping in memory? Without @nowait, make them so. */
static int make_resident(struct source_file *s, const struct cached_file *file,
			 uint64_t offset, uint64_t size, bool nowait)
{
	const uint64_t page = 4096;
	unsigned char resident[2 + 2 * LIMIT_READ_SIZE / 4096];
	uint64_t begin = offset & ~(page - 1), end = offset + size, i, count;
	void *address = (void *)(file->map + begin);

	if (file_cache_in_memory(s->files))
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

static int borrow_extent(struct source_file *s, const struct cached_file *file,
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

	file_cache_check(s->files, (uint32_t)index);
	file_cache_put(s->files, (uint32_t)index);
}

static int gather_piece(struct source_file *s, const struct plan *plan,
			const struct layout *layout,
			const struct cached_file *file, struct extents *extents,
			struct reply *reply)
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
	if (reply->nowait && !file_cache_in_memory(s->files))
		return -EAGAIN;
	return gather_extents(&gather, extents);
}

static bool can_borrow(const struct extents *extents,
		       const struct cached_file *file,
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
	struct cached_file file;
	int error;

	error = file_cache_get(s->files, index, reply->nowait, &file);
	if (error)
		return error == -ENOENT ? -EIO : error;
	error = file_cache_check(s->files, index);
	if (!error)
		error = item_layouts_get(s->layouts, plan, piece->shard, &file,
					 reply, &layout);
	if (error)
		goto put_file;
	extents_init(&extents, plan, piece, &layout);
	if (!can_borrow(&extents, &file, &layout, reply)) {
		error = gather_piece(s, plan, &layout, &file, &extents, reply);
		if (!error)
			error = file_cache_check(s->files, index);
		goto put_file;
	}
	error = reply_hold(reply, release_file, s, index);
	if (error)
		goto put_file;
	while (!error && extents_next(&extents, &extent))
		error = borrow_extent(s, &file, &extent, reply);
	return error;
put_file:
	file_cache_put(s->files, index);
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

/* Takes @files over; NULL: it could not be made. */
static struct source_file *create(const struct catalog *catalog,
				  struct file_cache *files)
{
	struct source_file *s = calloc(1, sizeof(*s));

	if (!s) {
		file_cache_destroy(files);
		return NULL;
	}
	s->base = (struct source){ .read = read_pieces, .destroy = destroy };
	s->catalog = catalog;
	s->files = files;
	if (s->files)
		s->layouts = item_layouts_create(catalog, s->files);
	if (!s->layouts) {
		source_file_destroy(s);
		return NULL;
	}
	return s;
}

struct source_file *source_file_create(int folder,
				       const struct catalog *catalog,
				       const struct pin *pins)
{
	return create(catalog, file_cache_create(folder, catalog, pins));
}

struct source_file *source_file_create_spread(const int *folders,
					      const uint32_t *ranks,
					      const struct catalog *catalog,
					      const struct pin *pins)
{
	return create(catalog,
		      file_cache_create_spread(folders, ranks, catalog, pins));
}

void source_file_destroy(struct source_file *source)
{
	if (!source)
		return;
	item_layouts_destroy(source->layouts);
	file_cache_destroy(source->files);
	free(source);
}

struct source *source_file_source(struct source_file *source)
{
	return &source->base;
}

bool source_file_is_stale(const struct source_file *source)
{
	return file_cache_is_stale(source->files);
}

int source_file_check(struct source_file *source, uint32_t index, bool nowait)
{
	struct cached_file file;
	int error = file_cache_get(source->files, index, nowait, &file);

	if (error)
		return error == -ENOENT ? -EIO : error;
	error = file_cache_check(source->files, index);
	file_cache_put(source->files, index);
	return error;
}

int source_file_item(struct source_file *source,
		     const struct catalog_shard *shard,
		     int (*use)(void *context, const struct input *input),
		     void *context)
{
	struct input input;
	struct cached_file file;
	int error;

	error = file_cache_get(source->files, shard->file, false, &file);
	if (error)
		return error == -ENOENT ? -EIO : error;
	error = item_layouts_item(&file, shard, &input);
	if (!error)
		error = use(context, &input);
	if (file_cache_check(source->files, shard->file))
		error = -ESTALE;
	file_cache_put(source->files, shard->file);
	return error;
}
