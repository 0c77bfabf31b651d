/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/read/source_decoded.h"

#include "shard/codec/decode.h"
#include "shard/dcp/torch_archive.h"
#include "shard/read/gather.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char no_cache[] =
	"stored item is behind a stream extension, and nothing may be decoded";

/* Why a shard cannot be read, for as long as its file is the same. */
struct item_failure {
	int error;		/* as source_decoded_item has it */
	bool readable;		/* the item can be decoded, but holds no such
				 * tensor */
	atomic_bool said;
	struct fault fault;	/* as who reads a file has it */
};

struct source_decoded {
	struct source base;		/* first: passed as this */
	struct source_file *below;	/* borrowed; const */
	const struct catalog *catalog;	/* borrowed; const */
	struct decoded_cache *cache;	/* borrowed; const; may be NULL */
	_Atomic(struct item_failure *) *failures; /* owned; one for each shard,
						   * each written once */
};

/* ---- failures ------------------------------------------------------------ */

/* Errors that say something about the item, and not about this moment. */
static bool is_lasting(int error)
{
	return error == -EIO || error == -EOPNOTSUPP || error == -E2BIG;
}

static void remember(struct source_decoded *s, uint64_t index, int error,
		     bool readable, const struct fault *fault)
{
	struct item_failure *failure = calloc(1, sizeof(*failure));
	struct item_failure *none = NULL;

	/* Without memory it will be found again. */
	if (!failure)
		return;
	failure->error = error;
	failure->readable = readable;
	failure->fault = *fault;
	if (!atomic_compare_exchange_strong(&s->failures[index], &none,
					    failure))
		free(failure);
}

/* The size that is known of an object is not that of its bytes. */
static void refuse(struct source_decoded *s, uint64_t index,
		   const struct catalog_shard *shard, const char *reason)
{
	struct fault fault;

	if (atomic_load(&s->failures[index]))
		return;
	fault_set(&fault, -EOPNOTSUPP, shard->offset, reason);
	remember(s, index, -EOPNOTSUPP, s->cache != NULL, &fault);
}

/* 0, or why shard @index cannot be read, which is said through @reply if it
 * was not yet. */
static int find_failure(struct source_decoded *s, uint64_t index,
			const struct catalog_shard *shard, struct reply *reply)
{
	struct item_failure *failure = atomic_load(&s->failures[index]);

	if (!failure)
		return 0;
	if (!atomic_exchange(&failure->said, true)) {
		reply->fault = failure->fault;
		reply->fault_file = catalog_text(s->catalog,
			catalog_file(s->catalog, shard->file)->path);
	}
	return failure->fault.error;
}

/* ---- decoding ------------------------------------------------------------ */

struct item_decoder {
	struct decoded_maker maker;	/* first: passed as this */
	struct decode_output output;
	struct source_decoded *source;
	const struct catalog_shard *shard;
	uint64_t index;			/* of the shard in the catalog */
	const char *chain;		/* of extensions, in the catalog */
	size_t chain_size;
	struct decoded *item;		/* at hand */
	bool found;			/* the stored item is inside its file */
	struct fault fault;
};

static struct item_decoder *from_output(struct decode_output *output)
{
	return (struct item_decoder *)(void *)((char *)output -
		offsetof(struct item_decoder, output));
}

static int write_decoded(struct decode_output *output, const void *data,
			 size_t size)
{
	return decoded_write(from_output(output)->item, data, size);
}

static int decode_item(void *context, const struct input *input)
{
	struct item_decoder *d = context;

	d->found = true;
	d->output.limit = decoded_cache_limit(d->source->cache);
	return decode(input, d->chain, d->chain_size, &d->output, &d->fault);
}

/* What is wrong with an item is remembered before those who wait for it hear
 * of the error. In the words of who reads a file. */
static void blame(struct item_decoder *d, int error)
{
	d->fault.offset += d->shard->offset;
	if (error == -E2BIG)
		fault_set(&d->fault, -EOPNOTSUPP, d->fault.offset,
			  "stored item is larger than the cache of decoded items");
	remember(d->source, d->index, error, false, &d->fault);
}

static int make(struct decoded_maker *maker, struct decoded *item)
{
	struct item_decoder *d = (struct item_decoder *)maker;
	int error = decode_check(d->chain, d->chain_size, &d->fault);

	d->item = item;
	if (!error)
		error = source_file_item(d->source->below, d->shard,
					 decode_item, d);
	if (error == -EIO && !d->found)
		fault_set(&d->fault, error, 0,
			  "stored item ends beyond the end of the file");
	if (is_lasting(error) && d->fault.error == error)
		blame(d, error);
	return error;
}

/* The item of shard @index, which the caller puts back. */
static int get_item(struct source_decoded *s, uint64_t index,
		    const struct catalog_shard *shard, bool nowait,
		    struct decoded **ret_item)
{
	struct item_decoder d = {
		.maker = { .make = make },
		.output = { .write = write_decoded },
		.source = s, .shard = shard, .index = index,
	};

	d.chain = catalog_transforms(s->catalog, shard, &d.chain_size);
	return decoded_cache_get(s->cache, s, index, nowait ? NULL : &d.maker,
				 ret_item);
}

/* ---- reading ------------------------------------------------------------- */

/* Faults inside of a decoded item have no place in its file. */
static void move_fault(struct fault *fault, const struct catalog_shard *shard)
{
	size_t size = strlen(fault->detail);

	snprintf(fault->detail + size, sizeof(fault->detail) - size,
		 "%sbyte %" PRIu64 " of the decoded item", size ? ", " : "",
		 fault->offset);
	fault->offset = shard->offset;
}

static int read_layout(struct source_decoded *s, const struct plan *plan,
		       const struct piece *piece, const struct decoded *item,
		       struct layout *ret)
{
	const struct catalog_shard *shard =
		catalog_shard(s->catalog, plan->entry, piece->shard);
	struct input input = input_file(item->fd, 0, item->size);
	struct fault fault = { .error = 0 };
	struct box box;
	int failed = 0, error;

	input.failed = &failed;
	catalog_box(s->catalog, plan->entry, piece->shard, &box);
	error = torch_archive_layout(&input, (enum dtype)plan->entry->dtype,
				     &box, ret, &fault);
	if (!error || failed)
		return error;
	if (error == -EBADMSG)
		error = -EIO;
	else if (error == -E2BIG)
		error = -EOPNOTSUPP;
	fault.error = error;
	move_fault(&fault, shard);
	if (is_lasting(error))
		remember(s, plan->entry->first_shard + piece->shard, error,
			 true, &fault);
	return error;
}

static int get_layout(struct source_decoded *s, const struct plan *plan,
		      const struct piece *piece, struct decoded *item,
		      struct layout *ret)
{
	struct layout *known = atomic_load(&item->layout), *copy;
	int error;

	if (known) {
		*ret = *known;
		return 0;
	}
	error = read_layout(s, plan, piece, item, ret);
	if (error)
		return error;
	copy = malloc(sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	*copy = *ret;
	if (!atomic_compare_exchange_strong(&item->layout, &known, copy))
		free(copy);
	return 0;
}

static int gather_piece(const struct plan *plan, const struct piece *piece,
			const struct decoded *item, const struct layout *layout,
			struct reply *reply)
{
	struct gather gather = {
		.file = { .fd = item->fd, .in_memory = true },
		.file_size = item->size,
		.target = reply->data + reply->base,
		.window = reply_window(reply),
		.dtype = (enum dtype)plan->entry->dtype,
		.flags = layout->flags,
	};
	struct extents extents;

	if (!gather.window)
		return -ENOMEM;
	extents_init(&extents, plan, piece, layout);
	return gather_extents(&gather, &extents);
}

static int read_item(struct source_decoded *s, const struct plan *plan,
		     const struct piece *piece, struct reply *reply)
{
	const struct catalog_shard *shard =
		catalog_shard(s->catalog, plan->entry, piece->shard);
	struct decoded *item;
	struct layout layout;
	int error;

	error = get_item(s, plan->entry->first_shard + piece->shard, shard,
			 reply->nowait, &item);
	if (error)
		return error;
	error = get_layout(s, plan, piece, item, &layout);
	if (!error)
		error = gather_piece(plan, piece, item, &layout, reply);
	decoded_cache_put(item);
	return error;
}

/* A piece of a shard behind stream extensions. The bytes are those that the
 * file held when it was last seen to be what its pin says. */
static int read_piece(struct source_decoded *s, const struct plan *plan,
		      const struct piece *piece, struct reply *reply)
{
	const struct catalog_shard *shard =
		catalog_shard(s->catalog, plan->entry, piece->shard);
	uint64_t index = plan->entry->first_shard + piece->shard;
	int error = source_file_check(s->below, shard->file, reply->nowait);
	int failure;

	if (error)
		return error;
	if (!s->cache)
		refuse(s, index, shard, no_cache);
	else if (plan->entry->flags & CATALOG_OBJECT)
		refuse(s, index, shard, "object is behind a stream extension");
	error = find_failure(s, index, shard, reply);
	if (error)
		return error;
	error = read_item(s, plan, piece, reply);
	failure = error ? find_failure(s, index, shard, reply) : 0;
	return failure ? failure : error == -E2BIG ? -EOPNOTSUPP : error;
}

static bool is_decoded(const struct source_decoded *s, const struct plan *plan,
		       const struct piece *piece)
{
	return catalog_shard(s->catalog, plan->entry, piece->shard)->flags &
	       CATALOG_TRANSFORMED;
}

/* In their order, which counts where shards overlap. */
static int read_pieces(struct source *source, const struct plan *plan,
		       const struct piece *pieces, unsigned count,
		       struct reply *reply)
{
	struct source_decoded *s = (struct source_decoded *)source;
	struct source *below = source_file_source(s->below);
	unsigned i = 0, first;
	int error = 0;

	while (i < count && !error) {
		first = i;
		while (i < count && !is_decoded(s, plan, &pieces[i]))
			i++;
		if (i > first)
			error = below->read(below, plan, pieces + first,
					    i - first, reply);
		else
			error = read_piece(s, plan, &pieces[i++], reply);
	}
	return error;
}

/* ---- whole items --------------------------------------------------------- */

int source_decoded_item(struct source_decoded *source,
			const struct catalog_shard *shard,
			int (*use)(void *context, const struct input *input),
			void *context)
{
	const struct catalog *catalog = source->catalog;
	const struct catalog_shard *first =
		(const void *)catalog_text(catalog, catalog->shards);
	uint64_t index = (uint64_t)(shard - first);
	const struct item_failure *failure;
	struct decoded *item;
	struct input input;
	int error;

	if (!(shard->flags & CATALOG_TRANSFORMED))
		return source_file_item(source->below, shard, use, context);
	error = source_file_check(source->below, shard->file, false);
	if (error)
		return error;
	failure = atomic_load(&source->failures[index]);
	if (failure && !failure->readable)
		return failure->error;
	if (!source->cache)
		return -EOPNOTSUPP;
	error = get_item(source, index, shard, false, &item);
	if (error)
		return error;
	input = input_file(item->fd, 0, item->size);
	error = use(context, &input);
	decoded_cache_put(item);
	return error;
}

/* ---- keeping ------------------------------------------------------------- */

static int hold(struct source *source, const struct catalog_entry *entry,
		bool nowait)
{
	struct source *below = source_file_source(
		((struct source_decoded *)source)->below);

	return below->hold(below, entry, nowait);
}

static void release(struct source *source, const struct catalog_entry *entry)
{
	struct source *below = source_file_source(
		((struct source_decoded *)source)->below);

	below->release(below, entry);
}

/* ---- life ---------------------------------------------------------------- */

static void destroy(struct source *source)
{
	source_decoded_destroy((struct source_decoded *)source);
}

struct source_decoded *source_decoded_create(struct source_file *below,
					     const struct catalog *catalog,
					     struct decoded_cache *cache)
{
	struct source_decoded *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->base = (struct source){ .read = read_pieces, .hold = hold,
				   .release = release, .destroy = destroy };
	s->below = below;
	s->catalog = catalog;
	s->cache = cache;
	s->failures = calloc(catalog->shard_count + 1, sizeof(*s->failures));
	if (!s->failures) {
		source_decoded_destroy(s);
		return NULL;
	}
	return s;
}

void source_decoded_destroy(struct source_decoded *source)
{
	uint64_t i;

	if (!source)
		return;
	if (source->cache)
		decoded_cache_forget(source->cache, source);
	for (i = 0; source->failures && i < source->catalog->shard_count; i++)
		free(atomic_load(&source->failures[i]));
	free(source->failures);
	free(source);
}

struct source *source_decoded_source(struct source_decoded *source)
{
	return &source->base;
}
