/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The payloads of requests: numbers of the machine's own kind one behind the
 * other, then text. What is read is checked for form: paths end where they
 * should and lead nowhere else, counts and sizes are within limits, boxes
 * have no more than a bulk holds.
 */
#ifndef COMM_WIRE_H
#define COMM_WIRE_H

#include "comm/message.h"
#include "shard/store/peers.h"

/* A payload that is written, or one that was read with what it refers to. */
struct wire {
	size_t size;
	unsigned char data[MESSAGE_PAYLOAD_MAX + 1];
};

/* Of one request, read. */
struct wire_request {
	uint32_t of;			/* of SERVICE_LIST */
	char path[LIMIT_PATH_SIZE + 1], after[256];
	struct file_range file;		/* its path is `path` */
	struct catalog_part part;	/* likewise */
	uint64_t hash[2];		/* of SERVICE_LEARN */
	struct piece_request pieces;
	struct piece piece[LIMIT_PIECES];
	uint64_t pins[LIMIT_PIECES];
	unsigned ndim;
};

/* Each writes a payload; 0, or -ENAMETOOLONG. */
int wire_path(struct wire *wire, const char *path);
int wire_list(struct wire *wire, uint32_t of, const char *path,
	      const char *after);
int wire_file(struct wire *wire, const struct file_range *range);
int wire_catalog(struct wire *wire, const struct catalog_part *part);
int wire_learn(struct wire *wire, const char *path, const uint64_t hash[2]);

/* A request for pieces, of an entry of @ndim axes: begun, then as many as
 * fit. Their bytes are not looked at. */
void wire_pieces(struct wire *wire, const struct catalog_id *id,
		 uint64_t entry, unsigned ndim);
/* False: no more fit. */
bool wire_add_piece(struct wire *wire, const struct piece *piece,
		    uint64_t pin);

/* Read the payload of @service. 0 or -EPROTO. */
int wire_read(enum message_service service, const void *data, size_t size,
	      struct wire_request *ret);

#endif
