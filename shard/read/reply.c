/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/read/reply.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;	/* of a thread's reply; const once made */
static int key_error;

struct reply *reply_create(void)
{
	return calloc(1, sizeof(struct reply));
}

void reply_destroy(struct reply *reply)
{
	if (!reply)
		return;
	reply_release(reply);
	free(reply->buffer);
	free(reply->window);
	free(reply->elements);
	free(reply);
}

static void destroy(void *reply)
{
	reply_destroy(reply);
}

static void make_key(void)
{
	key_error = pthread_key_create(&key, destroy);
}

struct reply *reply_of_thread(void)
{
	struct reply *reply;

	pthread_once(&once, make_key);
	if (key_error)
		return NULL;
	reply = pthread_getspecific(key);
	if (reply)
		return reply;
	reply = reply_create();
	if (reply && pthread_setspecific(key, reply)) {
		reply_destroy(reply);
		reply = NULL;
	}
	return reply;
}

/* Whole pages, so that nothing else is touched with them. */
static unsigned char *get_memory(unsigned char **memory)
{
	if (!*memory)
		*memory = aligned_alloc(4096, LIMIT_READ_SIZE);
	return *memory;
}

int reply_begin(struct reply *reply, void *data, uint64_t size)
{
	reply_release(reply);
	reply->base = 0;
	reply->rank = REPLY_LOCAL;
	reply->fault.error = 0;
	reply->data = data ? data : get_memory(&reply->buffer);
	reply->size = size;
	assert(data || size <= LIMIT_READ_SIZE);
	return reply->data ? 0 : -ENOMEM;
}

void reply_lend(struct reply *reply, const void *data,
		void (*release)(void *context, void *loan), void *context,
		void *loan)
{
	assert(reply->takes_loans && !reply->release);
	/* Who takes loans only reads them. */
	reply->data = (unsigned char *)data;
	reply->release = release;
	reply->context = context;
	reply->loan = loan;
}

void reply_release(struct reply *reply)
{
	if (reply->release)
		reply->release(reply->context, reply->loan);
	reply->release = NULL;
	reply->data = NULL;
}

unsigned char *reply_window(struct reply *reply)
{
	return get_memory(&reply->window);
}

unsigned char *reply_elements(struct reply *reply)
{
	return get_memory(&reply->elements);
}
