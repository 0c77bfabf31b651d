/* SPDX-License-Identifier: Apache-2.0 */
/* What one file or folder of a rank is: the request is its path, the answer one
 * record. */
#include "comm/client.h"
#include "comm/service.h"
#include "shard/store/folder_records.h"

#include <errno.h>
#include <string.h>

static int answer(struct service_request *request)
{
	char path[LIMIT_PATH_SIZE + 1];
	struct array out = { .data = NULL };
	int error;

	if (!wire_get_path(&request->payload, path) || request->payload.left)
		return -EPROTO;
	error = folder_records_status(request->from->own, path, &out);
	if (!error) {
		memcpy(request->room, out.data, out.size);
		request->size = out.size;
	}
	array_finish(&out);
	return error;
}

_Static_assert((int)STORED_ENTRY_MAX <= (int)LIMIT_READ_SIZE,
	       "a record fits into an answer");

const struct service service_status = { .answer = answer };

int service_status_ask(struct peers *peers, unsigned rank, const char *path,
		       struct array *out)
{
	struct client *c = client_of(peers);
	struct engine_call call = { .rank = rank, .service = SERVICE_STATUS };
	struct wire wire = { .size = 0 };
	struct stored stored;
	size_t position = 0;
	int error = wire_put_text(&wire, path);

	if (!error)
		error = client_ask(c, &call, &wire);
	if (!error && (!stored_entry_next(call.data, call.got, &position,
					  &stored) || position != call.got))
		error = -EPROTO;
	if (!error)
		error = array_append(out, call.data, call.got);
	engine_end(c->engine, &call);
	return error;
}
