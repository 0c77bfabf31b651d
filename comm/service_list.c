/* SPDX-License-Identifier: Apache-2.0 */
/* What a rank has in a folder, or what it remembers that another one had: in
 * parts, each of what comes behind a name. */
#include "comm/client.h"
#include "comm/service.h"
#include "shard/store/folder_records.h"
#include "shard/store/union_store.h"

#include <errno.h>
#include <string.h>

/* The first number is whose folder: PEERS_OWN, or a rank that is remembered. */
static int write_request(struct wire *wire, uint32_t of, const char *path,
			 const char *after)
{
	int error;

	wire->size = 0;
	error = wire_put(wire, &of, sizeof(of));
	if (!error)
		error = wire_put_text(wire, path);
	return error ? error : wire_put_text(wire, after);
}

struct list_request {
	uint32_t of;
	char path[LIMIT_PATH_SIZE + 1], after[256];
};

static bool read_request(struct wire_reader *reader,
			 struct list_request *ret_request)
{
	return wire_get(reader, &ret_request->of, sizeof(ret_request->of)) &&
	       wire_get_path(reader, ret_request->path) &&
	       wire_get_text(reader, ret_request->after,
			     sizeof(ret_request->after)) &&
	       reader->left == 0;
}

/* ---- answering ----------------------------------------------------------- */

static int compare_name(const struct stored *stored, const char *name)
{
	size_t size = strlen(name), own = stored->entry.name_size;
	int order = memcmp(stored->name, name, own < size ? own : size);

	return order ? order : (own > size) - (own < size);
}

/* Whole entries behind the name @after, as many as fit. */
static void copy_part(const struct array *list, const char *after,
		      struct service_request *request)
{
	size_t position = 0, begin = 0, end = 0;
	struct stored stored;

	while (stored_entry_next(list->data, list->size, &position, &stored)) {
		if (compare_name(&stored, after) <= 0)
			begin = end = position;
		else if (position - begin <= LIMIT_READ_SIZE)
			end = position;
		else
			break;
	}
	if (end > begin)
		memcpy(request->room, list->data + begin, end - begin);
	request->size = end - begin;
}

static int answer(struct service_request *request)
{
	const struct answering *from = request->from;
	struct array list = { .data = NULL };
	struct list_request asked;
	int error;

	if (!read_request(&request->payload, &asked))
		return -EPROTO;
	error = asked.of == PEERS_OWN ?
		folder_records_list(from->own, asked.path, &list) :
		union_store_recall(from->store, asked.path, asked.of, &list);
	if (!error)
		copy_part(&list, asked.after, request);
	array_finish(&list);
	return error;
}

const struct service service_list = { .answer = answer };

/* ---- asking -------------------------------------------------------------- */

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
static bool take_part(struct client *c, struct engine_call *call,
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

static struct engine_call make_call(const struct peer_list *list,
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
	uint32_t of;
	const char *path;
};

/* What is behind the first answer. */
static void ask_rest(struct client *c, const struct wanted *wanted,
		     struct peer_list *list, char last[256])
{
	struct engine_call call;
	struct wire wire;
	bool more = true;

	while (more) {
		list->error = write_request(&wire, wanted->of, wanted->path,
					    last);
		call = make_call(list, &wire);
		if (!list->error)
			list->error = engine_begin(c->engine, &call, 1, false);
		more = !list->error && take_part(c, &call, list, last);
	}
}

/* At most LIST_MAX of them. */
enum { LIST_MAX = 16 };

static void ask_some(struct client *c, const struct wanted *wanted,
		     struct peer_list *lists, unsigned count)
{
	struct engine_call calls[LIST_MAX];
	char last[LIST_MAX][256];
	bool more[LIST_MAX];
	struct wire wire;
	unsigned i;
	int error = write_request(&wire, wanted->of, wanted->path, "");

	for (i = 0; i < count; i++)
		calls[i] = make_call(&lists[i], &wire);
	if (!error)
		error = engine_begin(c->engine, calls, count, false);
	for (i = 0; i < count; i++) {
		last[i][0] = '\0';
		lists[i].error = error;
		more[i] = !error && take_part(c, &calls[i], &lists[i],
					      last[i]);
	}
	for (i = 0; i < count; i++)
		if (more[i])
			ask_rest(c, wanted, &lists[i], last[i]);
}

void service_list_ask(struct peers *peers, uint32_t of, const char *path,
		      struct peer_list *lists, unsigned count)
{
	const struct wanted wanted = { of, path };
	int error = peers->wait_ready(peers);
	unsigned i, some;

	for (i = 0; i < count && error; i++)
		lists[i].error = error;
	for (i = 0; i < count && !error; i += some) {
		some = count - i < LIST_MAX ? count - i : LIST_MAX;
		ask_some(client_of(peers), &wanted, lists + i, some);
	}
}
