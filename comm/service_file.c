/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of a stored file of a rank, and the hash of all of them. */
#include "comm/client.h"
#include "comm/held_for_others.h"
#include "comm/service.h"
#include "shard/base/clock.h"
#include "shard/store/folder_records.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* What is in front of the path. */
struct range_head {
	uint64_t hold;
	struct pin pin;
	uint64_t offset;
	uint32_t size, exact;
};

_Static_assert(sizeof(struct range_head) ==
	       8 + sizeof(struct pin) + 8 + 2 * 4, "it travels");

static int write_request(struct wire *wire, const struct file_range *range)
{
	const struct range_head head = {
		.hold = range->hold, .pin = range->pin,
		.offset = range->offset, .size = range->size,
		.exact = range->exact,
	};

	return wire_put_all(wire, &head, sizeof(head), range->path);
}

/* The path of @ret_range is @path. */
static bool read_request(struct wire_reader *reader,
			 char path[LIMIT_PATH_SIZE + 1],
			 struct file_range *ret_range)
{
	struct range_head head;

	if (!wire_get_all(reader, &head, sizeof(head), path) ||
	    head.size > LIMIT_READ_SIZE || head.exact > 1 ||
	    head.offset > INT64_MAX - LIMIT_READ_SIZE)
		return false;
	*ret_range = (struct file_range){
		.hold = head.hold, .path = path, .pin = head.pin,
		.exact = head.exact, .offset = head.offset, .size = head.size,
	};
	return true;
}

/* ---- answering ----------------------------------------------------------- */

/* Is what is open what is wanted? */
static bool is_wanted(const struct file_range *range, const struct stat *status)
{
	struct pin pin = pin_from_stat(status);

	if (range->pin.inode == 0)
		return true;
	return range->exact ? pin_same_bytes(&range->pin, &pin) :
			      pin_same_file(&range->pin, &pin);
}

static int open_range(const struct answering *from,
		      const struct file_range *range, int *ret_fd)
{
	struct stat status;
	int fd, error = folder_records_open(from->own, range->path, &fd,
					    &status);

	if (error)
		return io_is_missing(error) ? -ESTALE : error;
	if (!is_wanted(range, &status)) {
		close(fd);
		return -ESTALE;
	}
	*ret_fd = fd;
	return 0;
}

static int read_range(int fd, const struct file_range *range,
		      struct service_request *request)
{
	const struct io_file file = { .fd = fd };
	uint64_t done;
	int error = io_read_up_to(&file, request->room, range->size,
				  range->offset, &done);

	if (!error)
		request->size = done;
	return error;
}

static int read_path(const struct file_range *range,
		     struct service_request *request)
{
	struct stat status;
	int fd, error = open_range(request->from, range, &fd);

	if (error)
		return error;
	error = read_range(fd, range, request);
	/* Changed meanwhile? */
	if (!error && (fstat(fd, &status) < 0 || !is_wanted(range, &status)))
		error = -ESTALE;
	close(fd);
	return error;
}

static int read_hold(struct hold *hold, const struct file_range *range,
		     struct service_request *request)
{
	const struct same_bytes_name name = { hold->folder, hold->path };
	int error = read_range(hold->fd, range, request);

	return error || !range->exact ? error :
	       same_bytes_check(&hold->bytes, &hold->lock, hold->fd, &name);
}

static int answer_file(struct service_request *request)
{
	char path[LIMIT_PATH_SIZE + 1];
	uint64_t began = clock_ns();
	struct file_range range;
	struct hold *hold = NULL;
	int error;

	if (!read_request(&request->payload, path, &range))
		return -EPROTO;
	if (range.hold)
		hold = holds_get(request->from->holds, request->rank,
				 range.hold);
	error = hold && hold->fd >= 0 ? read_hold(hold, &range, request) :
					read_path(&range, request);
	hold_put(hold);
	if (error)
		request->size = 0;
	counters_add(request->from->counters, request->size, error, began);
	return error;
}

static int answer_digest(struct service_request *request)
{
	char path[LIMIT_PATH_SIZE + 1];
	struct file_range range;
	uint64_t hash[2];
	int fd, error;

	if (!read_request(&request->payload, path, &range))
		return -EPROTO;
	error = open_range(request->from, &range, &fd);
	if (error)
		return error;
	error = range.pin.size > LIMIT_COMPARE_SIZE ? -E2BIG :
		folder_records_digest(fd, range.pin.size, hash);
	close(fd);
	if (error)
		return error;
	memcpy(request->room, hash, sizeof(hash));
	request->size = sizeof(hash);
	return 0;
}

const struct service service_file = { .answer = answer_file };
const struct service service_digest = { .answer = answer_digest };

/* ---- asking -------------------------------------------------------------- */

int service_file_ask(struct peers *peers, unsigned rank,
		     const struct file_range *range, void *buffer,
		     size_t *ret_size)
{
	struct client *c = client_of(peers);
	struct engine_call call = { .rank = rank, .service = SERVICE_FILE };
	struct wire wire;
	int error = write_request(&wire, range);

	if (!error)
		error = client_ask(c, &call, &wire);
	if (!error && call.got > range->size)
		error = -EPROTO;
	if (!error) {
		memcpy(buffer, call.data, call.got);
		*ret_size = call.got;
	}
	engine_end(c->engine, &call);
	return error;
}

int service_digest_ask(struct peers *peers, unsigned rank,
		       const struct file_range *range, uint64_t ret_hash[2])
{
	struct client *c = client_of(peers);
	struct engine_call call = { .rank = rank, .service = SERVICE_DIGEST,
				    .patient = true };
	struct wire wire;
	int error = write_request(&wire, range);

	if (!error)
		error = client_ask(c, &call, &wire);
	if (!error && call.got != 2 * sizeof(*ret_hash))
		error = -EPROTO;
	if (!error)
		memcpy(ret_hash, call.data, call.got);
	engine_end(c->engine, &call);
	return error;
}
