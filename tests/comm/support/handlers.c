/* SPDX-License-Identifier: Apache-2.0 */
#include "support/handlers.h"

#include "support/test.h"

#include <errno.h>
#include <stdlib.h>

static int no_list(void *context, uint32_t of, const char *path,
		   const char *after, void *buffer, size_t size,
		   size_t *ret_size)
{
	(void)context;
	(void)of;
	(void)path;
	(void)after;
	(void)buffer;
	(void)size;
	(void)ret_size;
	return -ENOSYS;
}

static int no_status(void *context, const char *path, struct array *out)
{
	(void)context;
	(void)path;
	(void)out;
	return -ENOSYS;
}

static int no_digest(void *context, const struct file_range *range,
		     uint64_t ret_hash[2])
{
	(void)context;
	(void)range;
	(void)ret_hash;
	return -ENOSYS;
}

static int no_file(void *context, const struct file_range *range,
		   void *buffer, size_t *ret_size)
{
	(void)context;
	(void)range;
	(void)buffer;
	(void)ret_size;
	return -ENOSYS;
}

static int no_catalog(void *context, const struct catalog_part *part,
		      void *buffer, size_t size, size_t *ret_size,
		      uint64_t *ret_total)
{
	(void)context;
	(void)part;
	(void)buffer;
	(void)size;
	(void)ret_size;
	(void)ret_total;
	return -ENOSYS;
}

static int no_pieces(void *context, const struct piece_request *request,
		     struct reply *reply, size_t *ret_size)
{
	(void)context;
	(void)request;
	(void)reply;
	(void)ret_size;
	return -ENOSYS;
}

static int no_learn(void *context, const char *path, const uint64_t hash[2])
{
	(void)context;
	(void)path;
	(void)hash;
	return -ENOSYS;
}

void handlers_init(struct served *served, const struct peer_handlers *some)
{
	struct peer_handlers *h = &served->handlers;

	*served = (struct served){ .handlers = *some };
	pthread_mutex_init(&served->lock, NULL);
	if (!h->list)
		h->list = no_list;
	if (!h->status)
		h->status = no_status;
	if (!h->digest)
		h->digest = no_digest;
	if (!h->file)
		h->file = no_file;
	if (!h->catalog)
		h->catalog = no_catalog;
	if (!h->pieces)
		h->pieces = no_pieces;
	if (!h->learn)
		h->learn = no_learn;
}

void handlers_finish(struct served *served)
{
	pthread_mutex_destroy(&served->lock);
}

void handlers_work(void *context, struct rank *rank,
		   struct engine_request *request)
{
	struct served *served = (struct served *)context + rank->rank;

	pthread_mutex_lock(&served->lock);
	served->count++;
	pthread_mutex_unlock(&served->lock);
	server_run(&served->handlers, request);
}
