/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rank can be asked. Each service has a file of its own, service_NAME.c:
 * how its requests are written and read, how it is asked, and how it is
 * answered. An answer is for the rank's own store, never for what others would
 * have to be asked: no two ranks wait for each other. Exceptions are a catalog,
 * which comes from the ranks above in the tree, and what is remembered of a rank
 * that does not answer.
 */
#ifndef COMM_SERVICE_H
#define COMM_SERVICE_H

#include "comm/wire.h"
#include "shard/base/counters.h"
#include "shard/checkpoint/mounted_hooks.h"
#include "shard/store/peers.h"

struct holds;

/* ---- answering ----------------------------------------------------------- */

/* What answers come from: borrowed, and const while there are requests. */
struct answering {
	int own;			/* the folder of this rank's store */
	unsigned rank;
	struct store *store;		/* the union, for what it remembers */
	struct checkpoint_hooks checkpoints;
	struct counters_reads *counters; /* of what is read for others */
	struct holds *holds;
};

/* A request that is worked on. */
struct service_request {
	const struct answering *from;
	unsigned rank;			/* who asks */
	struct wire_reader payload;
	unsigned char *room;		/* ENGINE_BULK_MAX bytes to fill */
	size_t size;			/* of the answer; 0 before */
};

struct service {
	/* 0, -EPROTO for a payload that makes no sense, or -errno. May
	 * block. */
	int (*answer)(struct service_request *request);
	/* It may have to ask others. */
	bool waits_for_ranks;
};

extern const struct service service_list, service_status, service_file,
	service_digest, service_catalog, service_pieces, service_learn,
	service_hold_file, service_hold_checkpoint, service_held,
	service_release;

/* ---- asking, as struct peers --------------------------------------------- */

void service_list_ask(struct peers *peers, uint32_t of, const char *path,
		      struct peer_list *lists, unsigned count);
int service_status_ask(struct peers *peers, unsigned rank, const char *path,
		       struct array *out);
int service_file_ask(struct peers *peers, unsigned rank,
		     const struct file_range *range, void *buffer,
		     size_t *ret_size);
int service_digest_ask(struct peers *peers, unsigned rank,
		       const struct file_range *range, uint64_t ret_hash[2]);
int service_catalog_ask(struct peers *peers,
			const struct catalog_wanted *wanted,
			struct catalog **ret_catalog);
bool service_catalog_is_builder(struct peers *peers);
int service_hold_file_ask(struct peers *peers, unsigned rank, const char *path,
			  struct pin *pin, uint64_t *ret_hold);
int service_held_ask(struct peers *peers, unsigned rank, uint64_t hold,
		     struct pin *ret_pin);
void service_release_send(struct peers *peers, unsigned rank, uint64_t hold);

/* ---- what source_peer.c asks for ------------------------------------------ */

/* Keep the files of the checkpoint @path, with a catalog of this hash. 0 or
 * -errno. */
int service_hold_checkpoint_ask(struct peers *peers, unsigned rank,
				const char *path, const uint64_t hash[2],
				uint64_t *ret_hold);

/* Shards of one tensor that one rank has: begun, then as many pieces as fit.
 * Their bytes are not looked at. */
struct pieces_wire {
	struct wire wire;
	struct pin pin;		/* of the file of the last piece */
};

void service_pieces_begin(struct pieces_wire *pieces,
			  const struct catalog_id *id, uint64_t entry,
			  unsigned ndim);
/* @pin is that of the piece's file there. False: no more fit. */
bool service_pieces_add(struct pieces_wire *pieces, const struct piece *piece,
			const struct pin *pin);

/* Look at @path again, and learn the catalog that has @hash. */
int service_learn_write(struct wire *wire, const char *path,
			const uint64_t hash[2]);

#endif
