/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is open here is kept there: a rank is asked to keep a file open, or the
 * files of a checkpoint, under a number, until it is told that nobody needs them
 * any more. That is sent, and not waited for; while the rank does not answer it
 * is put off.
 */
#include "comm/client.h"
#include "comm/held_for_others.h"
#include "comm/service.h"
#include "shard/store/folder_records.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is in front of the path, for each of the two. */
struct hold_file_head {
	uint64_t number;
	struct pin pin;
};

struct hold_checkpoint_head {
	uint64_t number, hash[2];
};

_Static_assert(sizeof(struct hold_file_head) == 8 + sizeof(struct pin) &&
	       sizeof(struct hold_checkpoint_head) == 3 * 8, "they travel");

/* ---- answering ----------------------------------------------------------- */

static struct hold *make_hold(const struct service_request *request,
			      uint64_t number, const char *path)
{
	struct hold *hold = calloc(1, sizeof(*hold));

	if (!hold)
		return NULL;
	hold->rank = request->rank;
	hold->number = number;
	hold->fd = -1;
	hold->folder = request->from->own;
	hold->hooks = &request->from->checkpoints;
	hold->path = strdup(path);
	if (hold->path)
		return hold;
	free(hold);
	return NULL;
}

static void put_pin(struct service_request *request, const struct pin *pin)
{
	memcpy(request->room, pin, sizeof(*pin));
	request->size = sizeof(*pin);
}

static int open_file(const struct answering *from, const char *path,
		     const struct pin *wanted, int *ret_fd, struct pin *ret_pin)
{
	struct stat status;
	int error = folder_records_open(from->own, path, ret_fd, &status);

	if (error)
		return error;
	*ret_pin = pin_from_stat(&status);
	if (wanted->inode == 0 || pin_same_bytes(wanted, ret_pin))
		return 0;
	close(*ret_fd);
	return -ESTALE;
}

static int answer_file(struct service_request *request)
{
	char path[LIMIT_PATH_SIZE + 1];
	struct hold_file_head head;
	struct hold *hold;
	struct pin pin;
	int fd, error;

	if (!wire_get_all(&request->payload, &head, sizeof(head), path))
		return -EPROTO;
	error = open_file(request->from, path, &head.pin, &fd, &pin);
	if (error)
		return error;
	hold = make_hold(request, head.number, path);
	if (!hold) {
		close(fd);
		return -ENOMEM;
	}
	hold->fd = fd;
	hold->bytes.pin = pin;
	error = holds_add(request->from->holds, hold);
	if (!error)
		put_pin(request, &pin);
	return error;
}

/* The newest of @id; it is looked for if it is not known. */
static int find_checkpoint(const struct checkpoint_hooks *hooks,
			   const struct catalog_id *id, const char *path,
			   struct held_checkpoint *ret_held)
{
	int error = hooks->find_id(hooks->context, id, 0, ret_held);

	if (error != -ENODATA)
		return error;
	error = hooks->look(hooks->context, path);
	return error ? error : hooks->find_id(hooks->context, id, 0, ret_held);
}

static int answer_checkpoint(struct service_request *request)
{
	const struct checkpoint_hooks *hooks = &request->from->checkpoints;
	char path[LIMIT_PATH_SIZE + 1];
	struct hold_checkpoint_head head;
	struct held_checkpoint held;
	struct catalog_id id;
	struct hold *hold;
	int error;

	if (!wire_get_all(&request->payload, &head, sizeof(head), path))
		return -EPROTO;
	memcpy(id.hash, head.hash, sizeof(id.hash));
	id.folder = catalog_folder_id(path);
	error = find_checkpoint(hooks, &id, path, &held);
	if (error)
		return error;
	hold = make_hold(request, head.number, path);
	if (!hold) {
		hooks->put(hooks->context, &held);
		return -ENOMEM;
	}
	hold->held = held;
	checkpoint_hold_files(held.checkpoint, request->from->rank,
			      &hold->files);
	return holds_add(request->from->holds, hold);
}

static int answer_held(struct service_request *request)
{
	struct stat status;
	struct hold *hold;
	uint64_t number;
	struct pin pin;
	int error = -ESTALE;

	if (!wire_get(&request->payload, &number, sizeof(number)) ||
	    request->payload.left)
		return -EPROTO;
	hold = holds_get(request->from->holds, request->rank, number);
	if (hold && hold->fd >= 0)
		error = fstat(hold->fd, &status) < 0 ? -errno : 0;
	if (!error) {
		pin = pin_from_stat(&status);
		put_pin(request, &pin);
	}
	hold_put(hold);
	return error;
}

static int answer_release(struct service_request *request)
{
	uint64_t number;

	if (!wire_get(&request->payload, &number, sizeof(number)) ||
	    request->payload.left)
		return -EPROTO;
	holds_drop(request->from->holds, request->rank, number);
	return 0;
}

const struct service service_hold_file = { .answer = answer_file };
const struct service service_hold_checkpoint = {
	.answer = answer_checkpoint, .waits_for_ranks = true,
};
const struct service service_held = { .answer = answer_held };
const struct service service_release = { .answer = answer_release };

/* ---- asking -------------------------------------------------------------- */

static uint64_t next_number(struct client *c)
{
	return 1 + atomic_fetch_add(&c->holds, 1);
}

/* One pin comes. */
static int ask_pin(struct client *c, struct engine_call *call,
		   const struct wire *wire, struct pin *ret_pin)
{
	int error = client_ask(c, call, wire);

	if (!error && call->got != sizeof(*ret_pin))
		error = -EPROTO;
	if (!error)
		memcpy(ret_pin, call->data, sizeof(*ret_pin));
	engine_end(c->engine, call);
	return error;
}

int service_hold_file_ask(struct peers *peers, unsigned rank, const char *path,
			  struct pin *pin, uint64_t *ret_hold)
{
	struct client *c = client_of(peers);
	struct engine_call call = { .rank = rank,
				    .service = SERVICE_HOLD_FILE };
	const struct hold_file_head head = { next_number(c), *pin };
	struct wire wire;
	int error = wire_put_all(&wire, &head, sizeof(head), path);

	if (!error)
		error = ask_pin(c, &call, &wire, pin);
	/* It may be that only the answer did not come. */
	if (error)
		service_release_send(peers, rank, head.number);
	else
		*ret_hold = head.number;
	return error;
}

int service_held_ask(struct peers *peers, unsigned rank, uint64_t hold,
		     struct pin *ret_pin)
{
	struct engine_call call = { .rank = rank, .service = SERVICE_HELD };
	struct wire wire = { .size = 0 };
	int error = wire_put(&wire, &hold, sizeof(hold));

	return error ? error : ask_pin(client_of(peers), &call, &wire, ret_pin);
}

int service_hold_checkpoint_ask(struct peers *peers, unsigned rank,
				const char *path, const uint64_t hash[2],
				uint64_t *ret_hold)
{
	struct client *c = client_of(peers);
	struct engine_call call = { .rank = rank, .patient = true,
				    .service = SERVICE_HOLD_CHECKPOINT };
	const struct hold_checkpoint_head head = {
		next_number(c), { hash[0], hash[1] },
	};
	struct wire wire;
	int error = wire_put_all(&wire, &head, sizeof(head), path);

	if (!error)
		error = client_ask(c, &call, &wire);
	engine_end(c->engine, &call);
	if (error)
		service_release_send(peers, rank, head.number);
	else
		*ret_hold = head.number;
	return error;
}

/* ---- letting go ---------------------------------------------------------- */

/* False: not now. */
static bool send_release(struct client *c, const struct client_release *release)
{
	struct engine_call call = {
		.rank = release->rank, .service = SERVICE_RELEASE,
		.payload = &release->hold, .size = sizeof(release->hold),
		.patient = true,
	};

	switch (engine_state(c->engine, release->rank)) {
	case PEER_LOST: case PEER_LEFT:
		return true;
	case PEER_UP:
		break;
	default:
		return false;
	}
	if (engine_begin(c->engine, &call, 1, true))
		return false;
	engine_end(c->engine, &call);
	return true;
}

/* What was put off, and this one: what cannot be sent now is kept. */
void service_release_send(struct peers *peers, unsigned rank, uint64_t hold)
{
	const struct client_release release = { rank, hold };
	struct client *c = client_of(peers);
	struct client_release *all;
	size_t count, i, left = 0;

	if (!c->engine)
		return;
	pthread_mutex_lock(&c->release_lock);
	array_append(&c->releases, &release, sizeof(release));
	all = (void *)c->releases.data;
	count = c->releases.size / sizeof(*all);
	for (i = 0; i < count; i++)
		if (!send_release(c, &all[i]))
			all[left++] = all[i];
	c->releases.size = left * sizeof(*all);
	pthread_mutex_unlock(&c->release_lock);
}
