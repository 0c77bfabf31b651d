/* SPDX-License-Identifier: Apache-2.0 */
/* Shards of one tensor that a rank has: the answer is the elements of all pieces,
 * one dense row-major box behind the other. */
#include "comm/engine.h"
#include "comm/service.h"
#include "shard/base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Each piece is a head, the pin of its file unless that is the last one's, its
 * offsets and its counts. */
struct pieces_head {
	struct catalog_id id;
	uint64_t entry;
	uint32_t count, ndim;
};

struct piece_head {
	uint64_t shard, has_pin;
};

_Static_assert(sizeof(struct pieces_head) ==
	       sizeof(struct catalog_id) + 8 + 2 * 4 &&
	       sizeof(struct piece_head) == 2 * 8, "they travel");
/* One piece always has room, of however many axes. */
_Static_assert(sizeof(struct pieces_head) + sizeof(struct piece_head) +
	       sizeof(struct pin) + 2 * LIMIT_NDIM * 8 <= MESSAGE_PAYLOAD_MAX,
	       "a request of one piece");

/* ---- writing ------------------------------------------------------------- */

void service_pieces_begin(struct pieces_wire *pieces,
			  const struct catalog_id *id, uint64_t entry,
			  unsigned ndim)
{
	const struct pieces_head head = {
		.id = *id, .entry = entry, .ndim = ndim,
	};

	pieces->wire.size = 0;
	pieces->pin = (struct pin){ .inode = 0 };
	wire_put(&pieces->wire, &head, sizeof(head));
}

bool service_pieces_add(struct pieces_wire *pieces, const struct piece *piece,
			const struct pin *pin)
{
	const struct piece_head head = {
		piece->shard, !pin_equal(&pieces->pin, pin),
	};
	struct wire *wire = &pieces->wire;
	struct pieces_head all;
	size_t axes;

	memcpy(&all, wire->data, sizeof(all));
	axes = all.ndim * sizeof(*piece->offset);
	if (all.count == LIMIT_PIECES ||
	    sizeof(head) + head.has_pin * sizeof(*pin) + 2 * axes >
		    sizeof(wire->data) - wire->size)
		return false;
	wire_put(wire, &head, sizeof(head));
	if (head.has_pin)
		wire_put(wire, pin, sizeof(*pin));
	wire_put(wire, piece->offset, axes);
	wire_put(wire, piece->count, axes);
	pieces->pin = *pin;
	all.count++;
	memcpy(wire->data, &all, sizeof(all));
	return true;
}

/* ---- reading ------------------------------------------------------------- */

struct wanted_piece {
	struct piece piece;	/* its target is not used */
	struct pin pin;		/* of its file */
};

struct pieces_request {
	struct pieces_head head;
	struct wanted_piece pieces[LIMIT_PIECES];
};

/* @pin is that of the piece before. */
static bool read_piece(struct wire_reader *reader, unsigned ndim,
		       const struct pin *pin, struct wanted_piece *ret)
{
	size_t axes = ndim * sizeof(ret->piece.offset[0]);
	struct piece_head head;
	uint64_t volume = 1;
	unsigned i;

	memset(ret, 0, sizeof(*ret));
	if (!wire_get(reader, &head, sizeof(head)) || head.has_pin > 1)
		return false;
	ret->pin = *pin;
	if ((head.has_pin && !wire_get(reader, &ret->pin, sizeof(ret->pin))) ||
	    !wire_get(reader, ret->piece.offset, axes) ||
	    !wire_get(reader, ret->piece.count, axes))
		return false;
	ret->piece.shard = head.shard;
	for (i = 0; i < ndim; i++)
		if (ret->piece.count[i] == 0 ||
		    __builtin_mul_overflow(volume, ret->piece.count[i],
					   &volume) ||
		    volume > LIMIT_READ_SIZE)
			return false;
	return true;
}

/* Counts and sizes are within limits, boxes have no more than an answer
 * holds. */
static bool read_request(struct wire_reader *reader,
			 struct pieces_request *ret_request)
{
	struct pieces_head *head = &ret_request->head;
	struct pin pin = { .inode = 0 };
	uint32_t i;

	if (!wire_get(reader, head, sizeof(*head)) || head->count == 0 ||
	    head->count > LIMIT_PIECES || head->ndim > LIMIT_NDIM)
		return false;
	for (i = 0; i < head->count; i++) {
		if (!read_piece(reader, head->ndim, &pin,
				&ret_request->pieces[i]))
			return false;
		pin = ret_request->pieces[i].pin;
	}
	return reader->left == 0;
}

/* ---- answering ----------------------------------------------------------- */

/* Is the piece inside of one of the shards? */
static bool is_inside(const struct catalog *catalog,
		      const struct catalog_entry *entry,
		      const struct piece *piece)
{
	struct box box;
	unsigned i;

	if (piece->shard >= entry->shard_count)
		return false;
	catalog_box(catalog, entry, piece->shard, &box);
	for (i = 0; i < box.ndim; i++)
		if (piece->offset[i] > box.size[i] ||
		    piece->count[i] > box.size[i] - piece->offset[i])
			return false;
	return true;
}

/* Is its file here what who asks thinks it is? One of us may have seen it later
 * than the other. */
static bool has_file(const struct service_request *request,
		     const struct checkpoint *checkpoint,
		     const struct catalog_entry *entry,
		     const struct wanted_piece *wanted)
{
	uint32_t file = catalog_shard(checkpoint->catalog, entry,
				      wanted->piece.shard)->file;
	const struct replica *own;

	if (file == CATALOG_NO_FILE)
		return false;
	own = placement_here(checkpoint->placement, file);
	return own && own->rank == request->from->rank &&
	       (pin_same_bytes(&wanted->pin, &own->pin) ||
		pin_same_bytes(&own->pin, &wanted->pin));
}

static const struct catalog_entry *find_entry(const struct catalog *catalog,
					      const struct pieces_head *head)
{
	const struct catalog_entry *entry;

	if (head->entry >= catalog->tensor_count + catalog->object_count)
		return NULL;
	entry = catalog_entry(catalog, head->entry);
	return entry->ndim == head->ndim &&
	       dtype_info((enum dtype)entry->dtype)->size > 0 ? entry : NULL;
}

/* 0; -EINVAL for what makes no sense; -ENODATA: it is not these files. */
static int check(const struct service_request *request,
		 const struct pieces_request *asked,
		 const struct checkpoint *checkpoint)
{
	const struct catalog *catalog = checkpoint->catalog;
	const struct catalog_entry *entry = find_entry(catalog, &asked->head);
	uint32_t i;

	if (!entry)
		return -EINVAL;
	for (i = 0; i < asked->head.count; i++) {
		if (!is_inside(catalog, entry, &asked->pieces[i].piece))
			return -EINVAL;
		if (!has_file(request, checkpoint, entry, &asked->pieces[i]))
			return -ENODATA;
	}
	return 0;
}

static void say_fault(const struct service_request *request,
		      const struct held_checkpoint *held,
		      const struct catalog_entry *entry,
		      const struct reply *reply)
{
	const struct checkpoint_hooks *hooks = &request->from->checkpoints;
	const struct fault *fault = &reply->fault;
	char line[1024];

	snprintf(line, sizeof(line), "%s%s%.*s: %s: byte %llu: %s%s%s",
		 held->path, *held->path ? "/" : "",
		 entry->name_size > 256 ? 256 : (int)entry->name_size,
		 catalog_text(held->checkpoint->catalog, entry->name),
		 reply->fault_file, (unsigned long long)fault->offset,
		 fault->reason, *fault->detail ? ": " : "", fault->detail);
	hooks->say(hooks->context, line);
}

/* One piece, dense, behind the base of the reply. */
static int read_dense(const struct service_request *request,
		      const struct held_checkpoint *held,
		      const struct catalog_entry *entry,
		      const struct piece *wanted, struct reply *reply)
{
	struct source *source = checkpoint_local_source(held->checkpoint);
	struct box dense = { .ndim = entry->ndim };
	struct piece piece = *wanted;
	struct plan plan;
	int error;

	memcpy(dense.size, piece.count, sizeof(dense.size));
	memset(dense.offset, 0, sizeof(dense.offset));
	piece.target = 0;
	plan_init(&plan, held->checkpoint->catalog, entry, &dense,
		  (struct plan_range){ 0, 0 });
	error = source->read(source, &plan, &piece, 1, reply);
	if (reply->fault.error) {
		say_fault(request, held, entry, reply);
		reply->fault.error = 0;
	}
	return error;
}

static int read_all(struct service_request *request,
		    const struct pieces_request *asked,
		    const struct held_checkpoint *held, struct reply *reply)
{
	const struct catalog_entry *entry =
		catalog_entry(held->checkpoint->catalog, asked->head.entry);
	uint64_t size = 0;
	unsigned i, j;
	int error = 0;

	for (i = 0; i < asked->head.count && !error; i++) {
		const struct piece *piece = &asked->pieces[i].piece;
		uint64_t bytes = dtype_info((enum dtype)entry->dtype)->size;

		for (j = 0; j < entry->ndim; j++)
			bytes *= piece->count[j];
		if (bytes > reply->size - size)
			return -E2BIG;
		reply->base = size;
		error = read_dense(request, held, entry, piece, reply);
		size += bytes;
	}
	if (!error)
		request->size = size;
	return error;
}

/* The newest checkpoint that has these files. */
static int find_checkpoint(const struct service_request *request,
			   const struct pieces_request *asked,
			   struct held_checkpoint *ret_held)
{
	const struct checkpoint_hooks *hooks = &request->from->checkpoints;
	unsigned skip;
	int error;

	for (skip = 0;; skip++) {
		error = hooks->find_id(hooks->context, &asked->head.id, skip,
				       ret_held);
		if (error)
			return error;
		error = check(request, asked, ret_held->checkpoint);
		if (!error)
			return 0;
		hooks->put(hooks->context, ret_held);
		if (error != -ENODATA)
			return error;
	}
}

static int answer_read(struct service_request *request,
		       const struct pieces_request *asked)
{
	const struct checkpoint_hooks *hooks = &request->from->checkpoints;
	struct reply *reply = reply_of_thread();
	uint64_t began = clock_ns();
	struct held_checkpoint held;
	int error = reply ? find_checkpoint(request, asked, &held) : -ENOMEM;

	/* It is to learn it first. */
	if (error)
		return error;
	reply->nowait = reply->takes_loans = false;
	error = reply_begin(reply, request->room, ENGINE_BULK_MAX);
	if (!error)
		error = read_all(request, asked, &held, reply);
	hooks->put(hooks->context, &held);
	counters_add(request->from->counters, request->size, error, began);
	return error;
}

static int answer(struct service_request *request)
{
	struct pieces_request *asked = malloc(sizeof(*asked));
	int error = -EPROTO;

	if (!asked)
		return -ENOMEM;
	if (read_request(&request->payload, asked))
		error = answer_read(request, asked);
	free(asked);
	return error;
}

const struct service service_pieces = { .answer = answer };
