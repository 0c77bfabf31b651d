/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/client.h"

#include "comm/source_peer.h"
#include "comm/wire.h"
#include "shard/catalog/catalog_check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct client *from_peers(struct peers *peers)
{
	return (struct client *)(void *)peers;
}

/* One call, whose answer is there until engine_end. */
static int ask(struct client *c, struct engine_call *call,
	       const struct wire *wire)
{
	int error = c->peers.wait_ready(&c->peers);

	if (error)
		return error;
	call->payload = wire->data;
	call->size = wire->size;
	error = engine_begin(c->engine, call, 1, false);
	return error ? error : engine_wait(c->engine, call);
}

/* ---- stored files -------------------------------------------------------- */

/* The name of the last whole entry of what was got; all are checked. */
static int check_list(const void *data, size_t size, char ret_last[256])
{
	struct stored stored;
	size_t position = 0;

	while (stored_entry_next(data, size, &position, &stored)) {
		memcpy(ret_last, stored.name, stored.entry.name_size);
		ret_last[stored.entry.name_size] = '\0';
	}
	return position == size ? 0 : -EPROTO;
}

/* One answer, in @call: appended to the list. True: there is more behind
 * @last. */
static bool take_list(struct client *c, struct engine_call *call,
		      struct peer_list *list, char last[256])
{
	char before[256];
	int error = engine_wait(c->engine, call);
	size_t got = error ? 0 : call->got;

	strcpy(before, last);
	if (got > 0)
		error = check_list(call->data, got, last);
	/* It goes on, or it would never end. */
	if (got > 0 && !error && strcmp(last, before) <= 0)
		error = -EPROTO;
	if (got > 0 && !error)
		error = array_append(list->out, call->data, got);
	engine_end(c->engine, call);
	list->error = error;
	return !error && got > 0;
}

static struct engine_call make_list_call(const struct peer_list *list,
					 const struct wire *wire)
{
	return (struct engine_call){
		.rank = list->rank, .service = SERVICE_LIST,
		.timeout_ms = list->timeout_ms,
		.patient = !list->timeout_ms,
		.payload = wire->data, .size = wire->size,
	};
}

/* Whose folder is listed. */
struct wanted {
	uint32_t of;		/* PEERS_OWN, or a rank */
	const char *path;
};

/* What is behind the first answer. */
static void list_rest(struct client *c, const struct wanted *wanted,
		      struct peer_list *list, char last[256])
{
	struct engine_call call;
	struct wire wire;
	bool more = true;

	while (more) {
		list->error = wire_list(&wire, wanted->of, wanted->path, last);
		call = make_list_call(list, &wire);
		if (!list->error)
			list->error = engine_begin(c->engine, &call, 1, false);
		more = !list->error && take_list(c, &call, list, last);
	}
}

/* At most LIST_MAX of them. */
enum { LIST_MAX = 16 };

static void list_some(struct client *c, const struct wanted *wanted,
		      struct peer_list *lists, unsigned count)
{
	struct engine_call calls[LIST_MAX];
	char last[LIST_MAX][256];
	bool more[LIST_MAX];
	struct wire wire;
	unsigned i;
	int error = wire_list(&wire, wanted->of, wanted->path, "");

	for (i = 0; i < count; i++)
		calls[i] = make_list_call(&lists[i], &wire);
	if (!error)
		error = engine_begin(c->engine, calls, count, false);
	for (i = 0; i < count; i++) {
		last[i][0] = '\0';
		lists[i].error = error;
		more[i] = !error && take_list(c, &calls[i], &lists[i],
					      last[i]);
	}
	for (i = 0; i < count; i++)
		if (more[i])
			list_rest(c, wanted, &lists[i], last[i]);
}

static void peer_list(struct peers *peers, uint32_t of, const char *path,
		      struct peer_list *lists, unsigned count)
{
	const struct wanted wanted = { of, path };
	struct client *c = from_peers(peers);
	int error = peers->wait_ready(peers);
	unsigned i, some;

	for (i = 0; i < count && error; i++)
		lists[i].error = error;
	for (i = 0; i < count && !error; i += some) {
		some = count - i < LIST_MAX ? count - i : LIST_MAX;
		list_some(c, &wanted, lists + i, some);
	}
}

static int peer_status(struct peers *peers, unsigned rank, const char *path,
		       struct array *out)
{
	struct client *c = from_peers(peers);
	struct engine_call call = { .rank = rank, .service = SERVICE_STATUS };
	struct stored stored;
	struct wire wire;
	size_t position = 0;
	int error = wire_path(&wire, path);

	if (!error)
		error = ask(c, &call, &wire);
	if (!error && (!stored_entry_next(call.data, call.got, &position,
					  &stored) || position != call.got))
		error = -EPROTO;
	if (!error)
		error = array_append(out, call.data, call.got);
	engine_end(c->engine, &call);
	return error;
}

static int peer_digest(struct peers *peers, unsigned rank,
		       const struct file_range *range, uint64_t ret_hash[2])
{
	struct client *c = from_peers(peers);
	struct engine_call call = { .rank = rank, .service = SERVICE_DIGEST,
				    .patient = true };
	struct wire wire;
	int error = wire_file(&wire, range);

	if (!error)
		error = ask(c, &call, &wire);
	if (!error && call.got != 2 * sizeof(*ret_hash))
		error = -EPROTO;
	if (!error)
		memcpy(ret_hash, call.data, call.got);
	engine_end(c->engine, &call);
	return error;
}

static int peer_file(struct peers *peers, unsigned rank,
		     const struct file_range *range, void *buffer,
		     size_t *ret_size)
{
	struct client *c = from_peers(peers);
	struct engine_call call = { .rank = rank, .service = SERVICE_FILE };
	struct wire wire;
	int error = wire_file(&wire, range);

	if (!error)
		error = ask(c, &call, &wire);
	if (!error && call.got > range->size)
		error = -EPROTO;
	if (!error) {
		memcpy(buffer, call.data, call.got);
		*ret_size = call.got;
	}
	engine_end(c->engine, &call);
	return error;
}

/* ---- catalogs ------------------------------------------------------------ */

/*
 * The lowest rank that lives makes catalogs. The others have them from the
 * rank above in the binomial tree, which is the own number without its lowest
 * bit; if that one does not answer, from the next above it that does; and if
 * it does not have the catalog, from the lowest rank itself.
 */
static unsigned builder_of(const struct client *c)
{
	unsigned rank = 0;

	while (rank < c->peers.rank &&
	       engine_state(c->engine, rank) != PEER_UP)
		rank++;
	return rank;
}

static bool peer_is_builder(struct peers *peers)
{
	struct client *c = from_peers(peers);

	return builder_of(c) == peers->rank;
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
		      const struct catalog_part *part, struct fetched *fetched)
{
	struct engine_call call = { .rank = rank, .service = SERVICE_CATALOG,
				    .patient = true };
	struct wire wire;
	int error = wire_catalog(&wire, part);

	if (!error)
		error = ask(c, &call, &wire);
	if (!error)
		error = take_part(fetched, call.data, call.got);
	engine_end(c->engine, &call);
	return error;
}

static int fetch_catalog(struct client *c, unsigned rank,
			 const struct catalog_part *wanted,
			 struct catalog **ret_catalog)
{
	struct fetched fetched = { .catalog = NULL };
	struct catalog_part part = *wanted;
	struct fault fault;
	int error;

	do {
		part.offset = fetched.done;
		error = fetch_part(c, rank, &part, &fetched);
	} while (!error && fetched.done < fetched.size);
	if (!error)
		error = catalog_check(fetched.catalog, fetched.size, &fault);
	if (error)
		catalog_put(fetched.catalog);
	else
		*ret_catalog = fetched.catalog;
	return error;
}

/* From the ranks above in the tree. */
static int fetch_above(struct client *c, const struct catalog_part *part,
		       struct catalog **ret_catalog)
{
	unsigned builder = builder_of(c), parent;
	int error;

	if (builder == c->peers.rank)
		return -EAGAIN;
	parent = parent_of(c, builder);
	error = fetch_catalog(c, parent, part, ret_catalog);
	if (error && parent != builder)
		error = fetch_catalog(c, builder, part, ret_catalog);
	return error;
}

/* From the lowest rank that has it. */
static int fetch_kept(struct client *c, const struct catalog_part *part,
		      struct catalog **ret_catalog)
{
	int error = -ESTALE;
	unsigned i;

	for (i = 0; i < c->peers.count && error; i++)
		if (engine_state(c->engine, i) == PEER_UP)
			error = fetch_catalog(c, i, part, ret_catalog);
	return error;
}

static int peer_catalog(struct peers *peers, const struct catalog_part *part,
			struct catalog **ret_catalog)
{
	struct client *c = from_peers(peers);
	int error = peers->wait_ready(peers);

	if (!error)
		error = part->wanted.kept ? fetch_kept(c, part, ret_catalog) :
				     fetch_above(c, part, ret_catalog);
	return error == -EBADMSG ? -EPROTO : error;
}

/* ---- shards -------------------------------------------------------------- */

static struct source *peer_source(struct peers *peers,
				  const struct shard_files *files,
				  struct source *below)
{
	return source_peer_create(from_peers(peers)->engine, peers, files,
				  below);
}

int client_init(struct client *client, unsigned rank, unsigned count)
{
	unsigned i;

	client->engine = NULL;
	client->peers = (struct peers){
		.rank = rank, .count = count,
		.stores = calloc(count, sizeof(int)),
		.list = peer_list, .status = peer_status,
		.digest = peer_digest, .file = peer_file,
		.catalog = peer_catalog, .is_builder = peer_is_builder,
		.source = peer_source,
	};
	if (!client->peers.stores)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		client->peers.stores[i] = -1;
	return 0;
}

void client_finish(struct client *client)
{
	unsigned i;

	engine_destroy(client->engine);
	for (i = 0; client->peers.stores && i < client->peers.count; i++)
		if (i != client->peers.rank && client->peers.stores[i] >= 0)
			close(client->peers.stores[i]);
	free(client->peers.stores);
}
