/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/wire.h"

#include <errno.h>
#include <string.h>

struct file_head {
	struct pin pin;
	uint64_t offset;
	uint32_t size, exact;
};

struct catalog_head {
	uint64_t signature, offset, kept;
};

struct pieces_head {
	struct catalog_id id;
	uint64_t entry;
	uint32_t count, ndim;
};

struct piece_head {
	uint64_t shard, pin;
};

/* ---- writing ------------------------------------------------------------- */

static int put(struct wire *wire, const void *data, size_t size)
{
	if (size > MESSAGE_PAYLOAD_MAX - wire->size)
		return -ENAMETOOLONG;
	memcpy(wire->data + wire->size, data, size);
	wire->size += size;
	return 0;
}

static int put_text(struct wire *wire, const char *text)
{
	return put(wire, text, strlen(text) + 1);
}

static int put_head(struct wire *wire, const void *head, size_t size,
		    const char *path)
{
	int error;

	wire->size = 0;
	error = put(wire, head, size);
	return error ? error : put_text(wire, path);
}

int wire_path(struct wire *wire, const char *path)
{
	return put_head(wire, "", 0, path);
}

int wire_list(struct wire *wire, uint32_t of, const char *path,
	      const char *after)
{
	int error = put_head(wire, &of, sizeof(of), path);

	return error ? error : put_text(wire, after);
}

int wire_file(struct wire *wire, const struct file_range *range)
{
	const struct file_head head = {
		.pin = range->pin, .offset = range->offset,
		.size = range->size, .exact = range->exact,
	};

	return put_head(wire, &head, sizeof(head), range->path);
}

int wire_catalog(struct wire *wire, const struct catalog_part *part)
{
	const struct catalog_head head = {
		part->wanted.signature, part->offset, part->wanted.kept,
	};

	return put_head(wire, &head, sizeof(head), part->wanted.path);
}

int wire_learn(struct wire *wire, const char *path, const uint64_t hash[2])
{
	return put_head(wire, hash, 2 * sizeof(*hash), path);
}

void wire_pieces(struct wire *wire, const struct catalog_id *id,
		 uint64_t entry, unsigned ndim)
{
	const struct pieces_head head = {
		.id = *id, .entry = entry, .ndim = ndim,
	};

	wire->size = 0;
	put(wire, &head, sizeof(head));
}

bool wire_add_piece(struct wire *wire, const struct piece *piece, uint64_t pin)
{
	const struct piece_head head = { piece->shard, pin };
	struct pieces_head all;
	size_t axes;

	memcpy(&all, wire->data, sizeof(all));
	axes = all.ndim * sizeof(*piece->offset);
	if (all.count == LIMIT_PIECES ||
	    sizeof(head) + 2 * axes > MESSAGE_PAYLOAD_MAX - wire->size)
		return false;
	put(wire, &head, sizeof(head));
	put(wire, piece->offset, axes);
	put(wire, piece->count, axes);
	all.count++;
	memcpy(wire->data, &all, sizeof(all));
	return true;
}

/* ---- reading ------------------------------------------------------------- */

struct reader {
	const unsigned char *data;
	size_t left;
};

static bool get(struct reader *reader, void *to, size_t size)
{
	if (size > reader->left)
		return false;
	memcpy(to, reader->data, size);
	reader->data += size;
	reader->left -= size;
	return true;
}

static bool get_text(struct reader *reader, char *to, size_t room)
{
	const unsigned char *end = memchr(reader->data, '\0', reader->left);
	size_t size = end ? (size_t)(end - reader->data) + 1 : 0;

	return size > 0 && size <= room && get(reader, to, size);
}

/* Relative, and every part of it a name; "" is the store. */
static bool is_path(const char *path)
{
	while (*path) {
		size_t size = strcspn(path, "/");

		if (size == 0 || size > 255 || (size == 1 && path[0] == '.') ||
		    (size == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		path += size;
		if (*path == '/' && !*++path)
			return false;
	}
	return true;
}

static bool get_path(struct reader *reader, struct wire_request *request)
{
	return get_text(reader, request->path, sizeof(request->path)) &&
	       is_path(request->path);
}

static bool get_file(struct reader *reader, struct wire_request *request)
{
	struct file_head head;

	if (!get(reader, &head, sizeof(head)) || !get_path(reader, request) ||
	    head.size > LIMIT_READ_SIZE || head.exact > 1 ||
	    head.offset > INT64_MAX - LIMIT_READ_SIZE)
		return false;
	request->file = (struct file_range){
		.path = request->path, .pin = head.pin,
		.exact = head.exact, .offset = head.offset, .size = head.size,
	};
	return true;
}

static bool get_catalog(struct reader *reader, struct wire_request *request)
{
	struct catalog_head head;

	if (!get(reader, &head, sizeof(head)) || !get_path(reader, request) ||
	    head.kept > 1)
		return false;
	request->part = (struct catalog_part){
		.wanted = { .path = request->path,
			    .signature = head.signature, .kept = head.kept },
		.offset = head.offset,
	};
	return true;
}

static bool get_piece(struct reader *reader, unsigned ndim,
		      struct piece *piece, uint64_t *pin)
{
	struct piece_head head;
	size_t axes = ndim * sizeof(*piece->offset);
	uint64_t volume = 1;
	unsigned i;

	memset(piece, 0, sizeof(*piece));
	if (!get(reader, &head, sizeof(head)) ||
	    !get(reader, piece->offset, axes) ||
	    !get(reader, piece->count, axes))
		return false;
	piece->shard = head.shard;
	*pin = head.pin;
	for (i = 0; i < ndim; i++)
		if (piece->count[i] == 0 ||
		    __builtin_mul_overflow(volume, piece->count[i], &volume) ||
		    volume > LIMIT_READ_SIZE)
			return false;
	return true;
}

static bool get_pieces(struct reader *reader, struct wire_request *request)
{
	struct pieces_head head;
	unsigned i;

	if (!get(reader, &head, sizeof(head)) || head.count == 0 ||
	    head.count > LIMIT_PIECES || head.ndim > LIMIT_NDIM)
		return false;
	for (i = 0; i < head.count; i++)
		if (!get_piece(reader, head.ndim, &request->piece[i],
			       &request->pins[i]))
			return false;
	request->ndim = head.ndim;
	request->pieces = (struct piece_request){
		.id = head.id, .entry = head.entry,
		.count = head.count, .ndim = head.ndim,
		.pieces = request->piece, .pins = request->pins,
	};
	return true;
}

int wire_read(enum message_service service, const void *data, size_t size,
	      struct wire_request *ret)
{
	struct reader reader = { data, size };
	bool good = false;

	switch (service) {
	case SERVICE_LIST:
		good = get(&reader, &ret->of, sizeof(ret->of)) &&
		       get_path(&reader, ret) &&
		       get_text(&reader, ret->after, sizeof(ret->after));
		break;
	case SERVICE_STATUS:
		good = get_path(&reader, ret);
		break;
	case SERVICE_DIGEST:
	case SERVICE_FILE:
		good = get_file(&reader, ret);
		break;
	case SERVICE_CATALOG:
		good = get_catalog(&reader, ret);
		break;
	case SERVICE_PIECES:
		good = get_pieces(&reader, ret);
		break;
	case SERVICE_LEARN:
		good = get(&reader, ret->hash, sizeof(ret->hash)) &&
		       get_path(&reader, ret);
		break;
	default:
		break;
	}
	return good && reader.left == 0 ? 0 : -EPROTO;
}
