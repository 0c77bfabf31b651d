/* SPDX-License-Identifier: Apache-2.0 */
#include "support/handlers.h"

#include "support/test.h"

#include <errno.h>
#include <stdlib.h>

void handlers_init(struct served *served)
{
	*served = (struct served){ .count = 0 };
	pthread_mutex_init(&served->lock, NULL);
}

void handlers_finish(struct served *served)
{
	pthread_mutex_destroy(&served->lock);
}

void handlers_work(void *context, struct rank *rank,
		   struct engine_request *request)
{
	struct served *served = (struct served *)context + rank->rank;
	handler answer = served->handlers[request->message.service];
	struct service_request work = {
		.rank = request->rank,
		.payload = { request->payload, request->message.size },
		.room = engine_room(request),
	};
	int error = -ENOSYS;

	pthread_mutex_lock(&served->lock);
	served->count++;
	pthread_mutex_unlock(&served->lock);
	/* Its engine may have ended meanwhile. */
	if (!work.room)
		error = -ETIMEDOUT;
	else if (answer)
		error = answer(served, &work);
	engine_answer(request, error, work.size);
}

void handlers_read(struct service_request *request, void *head, size_t size,
		   char path[LIMIT_PATH_SIZE + 1], char text[256])
{
	if (size > 0)
		assert_true(wire_get(&request->payload, head, size));
	assert_true(wire_get_path(&request->payload, path));
	if (text)
		assert_true(wire_get_text(&request->payload, text, 256));
	assert_int_equal(request->payload.left, 0);
}
