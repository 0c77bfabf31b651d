/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Catalogs, in parts. The lowest rank that lives makes them. The others have
 * them from the rank above in the binomial tree, which is the own number without
 * its lowest bit; if that one does not answer, from the next above it that does;
 * and if it does not have the catalog, from the lowest rank itself.
 */
#include "comm/client.h"
#include "comm/service.h"
#include "shard/catalog/catalog_check.h"

#include <errno.h>
#include <string.h>

/* What is in front of the path. */
struct catalog_head {
	uint64_t signature, offset, kept;
};

_Static_assert(sizeof(struct catalog_head) == 3 * 8, "it travels");

static int write_request(struct wire *wire,
			 const struct catalog_wanted *wanted, uint64_t offset)
{
	const struct catalog_head head = {
		wanted->signature, offset, wanted->kept,
	};

	return wire_put_all(wire, &head, sizeof(head), wanted->path);
}

/* The path of @ret_wanted is @path. */
static bool read_request(struct wire_reader *reader,
			 char path[LIMIT_PATH_SIZE + 1],
			 struct catalog_wanted *ret_wanted,
			 uint64_t *ret_offset)
{
	struct catalog_head head;

	if (!wire_get_all(reader, &head, sizeof(head), path) || head.kept > 1)
		return false;
	*ret_wanted = (struct catalog_wanted){ path, head.signature,
					       head.kept };
	*ret_offset = head.offset;
	return true;
}

/* ---- answering ----------------------------------------------------------- */

/* The size of the whole, then the bytes. */
static int copy_part(const struct catalog *catalog, uint64_t offset,
		     struct service_request *request)
{
	uint64_t total = catalog->size, size = LIMIT_READ_SIZE - sizeof(total);

	if (offset >= total)
		return -EINVAL;
	if (size > total - offset)
		size = total - offset;
	memcpy(request->room, &total, sizeof(total));
	memcpy(request->room + sizeof(total), (const char *)catalog + offset,
	       size);
	request->size = sizeof(total) + size;
	return 0;
}

static int answer(struct service_request *request)
{
	const struct checkpoint_hooks *hooks = &request->from->checkpoints;
	char path[LIMIT_PATH_SIZE + 1];
	struct catalog_wanted wanted;
	struct held_checkpoint held;
	uint64_t offset;
	int error;

	if (!read_request(&request->payload, path, &wanted, &offset))
		return -EPROTO;
	error = hooks->find(hooks->context, &wanted, &held);
	if (error)
		return error;
	error = copy_part(held.checkpoint->catalog, offset, request);
	hooks->put(hooks->context, &held);
	return error;
}

const struct service service_catalog = {
	.answer = answer, .waits_for_ranks = true,
};

/* ---- asking -------------------------------------------------------------- */

static unsigned builder_of(const struct client *c)
{
	unsigned rank = 0;

	while (rank < c->peers.rank &&
	       engine_state(c->engine, rank) != PEER_UP)
		rank++;
	return rank;
}

bool service_catalog_is_builder(struct peers *peers)
{
	return builder_of(client_of(peers)) == peers->rank;
}

static unsigned parent_of(const struct client *c, unsigned builder)
{
	unsigned rank = c->peers.rank;

	do
		rank &= rank - 1;
	while (rank > builder && engine_state(c->engine, rank) != PEER_UP);
	return rank > builder ? rank : builder;
}

/* A catalog on its way. */
struct fetched {
	struct catalog *catalog;	/* owned; once the size is known */
	uint64_t size, done;		/* bytes */
};

static int take_part(struct fetched *fetched, const unsigned char *data,
		     size_t size)
{
	uint64_t total;

	if (size <= sizeof(total))
		return -EPROTO;
	memcpy(&total, data, sizeof(total));
	data += sizeof(total);
	size -= sizeof(total);
	/* A catalog has the size of its metadata, about. */
	if (total > 2 * LIMIT_METADATA_SIZE ||
	    (fetched->done > 0 && total != fetched->size) ||
	    size > total - fetched->done)
		return -EPROTO;
	if (!fetched->catalog)
		fetched->catalog = catalog_create(total);
	if (!fetched->catalog)
		return -ENOMEM;
	fetched->size = total;
	memcpy((char *)fetched->catalog + fetched->done, data, size);
	fetched->done += size;
	return 0;
}

static int fetch_part(struct client *c, unsigned rank,
		      const struct catalog_wanted *wanted,
		      struct fetched *fetched)
{
	struct engine_call call = { .rank = rank, .service = SERVICE_CATALOG,
				    .patient = true };
	struct wire wire;
	int error = write_request(&wire, wanted, fetched->done);

	if (!error)
		error = client_ask(c, &call, &wire);
	if (!error)
		error = take_part(fetched, call.data, call.got);
	engine_end(c->engine, &call);
	return error;
}

static int fetch(struct client *c, unsigned rank,
		 const struct catalog_wanted *wanted,
		 struct catalog **ret_catalog)
{
	struct fetched fetched = { .catalog = NULL };
	struct fault fault;
	int error;

	do
		error = fetch_part(c, rank, wanted, &fetched);
	while (!error && fetched.done < fetched.size);
	/* That it was refused is for a rank to say, not for what it sends. */
	if (!error && catalog_check(fetched.catalog, fetched.size, &fault))
		error = -EPROTO;
	if (error)
		catalog_put(fetched.catalog);
	else
		*ret_catalog = fetched.catalog;
	return error;
}

/* From the ranks above in the tree. */
static int fetch_above(struct client *c, const struct catalog_wanted *wanted,
		       struct catalog **ret_catalog)
{
	unsigned builder = builder_of(c), parent;
	int error;

	if (builder == c->peers.rank)
		return -EAGAIN;
	parent = parent_of(c, builder);
	error = fetch(c, parent, wanted, ret_catalog);
	if (error && parent != builder)
		error = fetch(c, builder, wanted, ret_catalog);
	return error;
}

/* From the lowest rank that has it. */
static int fetch_kept(struct client *c, const struct catalog_wanted *wanted,
		      struct catalog **ret_catalog)
{
	int error = -ESTALE;
	unsigned i;

	for (i = 0; i < c->peers.count && error; i++)
		if (engine_state(c->engine, i) == PEER_UP)
			error = fetch(c, i, wanted, ret_catalog);
	return error;
}

int service_catalog_ask(struct peers *peers,
			const struct catalog_wanted *wanted,
			struct catalog **ret_catalog)
{
	struct client *c = client_of(peers);
	int error = peers->wait_ready(peers);

	if (!error)
		error = wanted->kept ? fetch_kept(c, wanted, ret_catalog) :
				       fetch_above(c, wanted, ret_catalog);
	return error;
}
