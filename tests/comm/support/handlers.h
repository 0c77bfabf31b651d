/* SPDX-License-Identifier: Apache-2.0 */
/* Services of a test: each answers as told, whatever the real ones would. */
#ifndef COMM_SUPPORT_HANDLERS_H
#define COMM_SUPPORT_HANDLERS_H

#include "support/ranks.h"

#include "comm/service.h"

struct served;

/* As struct service answers, for the rank that @served is. */
typedef int (*handler)(struct served *served, struct service_request *request);

/* One for each rank, as the workers' context: handlers[rank]. */
struct served {
	handler handlers[SERVICE_COUNT]; /* NULL: -ENOSYS */
	pthread_mutex_t lock;
	unsigned count;			/* requests that came to a handler */
};

/* For struct ranks_options, with an array of struct served as context. */
void handlers_work(void *context, struct rank *rank,
		   struct engine_request *request);

void handlers_init(struct served *served);
void handlers_finish(struct served *served);

/* Read what is in front of the path and of the text behind it, if @text is not
 * NULL; fails the test if it is not there, or if there is more. */
void handlers_read(struct service_request *request, void *head, size_t size,
		   char path[LIMIT_PATH_SIZE + 1], char text[256]);

#endif
