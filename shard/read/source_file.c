/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/read/source_file.h"

#include "shard/read/file_cache.h"
#include "shard/read/gather.h"
#include "shard/read/item_layouts.h"

#include <errno.h>
#include <stdlib.h>

struct source_file {
	struct source base;		/* first: passed as this */
	const struct catalog *catalog;	/* borrowed; const */
	struct file_cache *files; /* owned */
	struct item_layouts *layouts; /* owned */
};

/* ---- reading ------------------------------------------------------------- */

/* Where the elements of a shard lie. */
struct shard_place {
	struct cached_file file;	/* got */
	struct layout layout;		/* in it */
};

static int gather_piece(struct source_file *s, const struct plan *plan,
			const struct piece *piece,
			const struct shard_place *place, struct reply *reply)
{
	struct gather gather = {
		.file = { .fd = place->file.fd, .nowait = reply->nowait,
			  .in_memory = file_cache_in_memory(s->files) },
		.file_size = place->file.size,
		.target = reply->data + reply->base,
		.window = reply_window(reply),
		.dtype = (enum dtype)plan->entry->dtype,
		.flags = place->layout.flags,
	};
	struct extents extents;

	if (!gather.window)
		return -ENOMEM;
	extents_init(&extents, plan, piece, &place->layout);
	return gather_extents(&gather, &extents);
}

static int read_piece(struct source_file *s, const struct plan *plan,
		      const struct piece *piece, struct reply *reply)
{
	uint32_t index =
		catalog_shard(s->catalog, plan->entry, piece->shard)->file;
	struct shard_place place;
	struct shard_in_file shard = { .entry = plan->entry,
				       .index = piece->shard,
				       .file = &place.file };
	int error;

	error = file_cache_get(s->files, index, reply->nowait, &place.file);
	if (error)
		return error == -ENOENT ? -EIO : error;
	error = file_cache_check(s->files, index);
	if (!error)
		error = item_layouts_get(s->layouts, &shard, reply,
					 &place.layout);
	if (!error)
		error = gather_piece(s, plan, piece, &place, reply);
	if (!error)
		error = file_cache_check(s->files, index);
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

/* ---- keeping ------------------------------------------------------------- */

/* The file of a shard; shards of one file stand together mostly, and it is kept
 * once for each run of them. CATALOG_NO_FILE: it is that of the last one. */
static uint32_t next_file(const struct source_file *s,
			  const struct catalog_entry *entry, uint64_t index)
{
	uint32_t file = catalog_shard(s->catalog, entry, index)->file;

	return index > 0 &&
	       catalog_shard(s->catalog, entry, index - 1)->file == file ?
	       CATALOG_NO_FILE : file;
}

static void release_some(struct source_file *s,
			 const struct catalog_entry *entry, uint64_t count)
{
	uint64_t i;

	for (i = 0; i < count; i++)
		if (next_file(s, entry, i) != CATALOG_NO_FILE)
			file_cache_release(s->files, next_file(s, entry, i));
}

static int hold(struct source *source, const struct catalog_entry *entry,
		bool nowait)
{
	struct source_file *s = (struct source_file *)source;
	uint64_t i;
	int error = 0;

	for (i = 0; i < entry->shard_count && !error; i++)
		if (next_file(s, entry, i) != CATALOG_NO_FILE)
			error = file_cache_hold(s->files,
						next_file(s, entry, i),
						nowait);
	if (error)
		release_some(s, entry, i - 1);
	return error;
}

static void release(struct source *source, const struct catalog_entry *entry)
{
	release_some((struct source_file *)source, entry, entry->shard_count);
}

int source_file_hold(struct source_file *source, uint32_t index, bool nowait)
{
	return file_cache_hold(source->files, index, nowait);
}

void source_file_release(struct source_file *source, uint32_t index)
{
	file_cache_release(source->files, index);
}

void source_file_close_idle(struct source_file *source)
{
	file_cache_close_idle(source->files);
}

/* ---- life ---------------------------------------------------------------- */

static void destroy(struct source *source)
{
	source_file_destroy((struct source_file *)source);
}

struct source_file *source_file_create(const struct placement *placement,
				       const struct catalog *catalog,
				       atomic_bool *stale)
{
	struct source_file *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->base = (struct source){ .read = read_pieces, .hold = hold,
				   .release = release, .destroy = destroy };
	s->catalog = catalog;
	s->files = file_cache_create(placement, catalog, stale);
	if (s->files)
		s->layouts = item_layouts_create(catalog, s->files);
	if (s->layouts)
		return s;
	source_file_destroy(s);
	return NULL;
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
