/* SPDX-License-Identifier: Apache-2.0 */
/* A rank is to look at a folder again, since another one knows of a checkpoint
 * there that it does not. */
#include "comm/service.h"

#include <errno.h>

int service_learn_write(struct wire *wire, const char *path,
			const uint64_t hash[2])
{
	return wire_put_all(wire, hash, 2 * sizeof(*hash), path);
}

static int answer(struct service_request *request)
{
	const struct checkpoint_hooks *hooks = &request->from->checkpoints;
	char path[LIMIT_PATH_SIZE + 1];
	struct held_checkpoint held;
	struct catalog_id id;
	int error;

	if (!wire_get_all(&request->payload, id.hash, sizeof(id.hash), path))
		return -EPROTO;
	id.folder = catalog_folder_id(path);
	error = hooks->look(hooks->context, path);
	if (!error)
		error = hooks->find_id(hooks->context, &id, 0, &held);
	if (error)
		return error == -ENODATA ? -ESTALE : error;
	hooks->put(hooks->context, &held);
	return 0;
}

const struct service service_learn = {
	.answer = answer, .waits_for_ranks = true,
};
