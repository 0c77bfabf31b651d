/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/read/source.h"

#include <errno.h>
#include <stdlib.h>

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
	free(reply->scratch);
	reply_destroy(reply->inner);
	free(reply);
}

void reply_begin(struct reply *reply, uint64_t size)
{
	reply_release(reply);
	reply->size = size;
	reply->base = 0;
	reply->gather = reply->copy;
	reply->buffered = false;
	reply->lane = LANE_STORE;
	reply->fault.error = 0;
	reply->iov_count = 0;
}

void reply_release(struct reply *reply)
{
	while (reply->hold_count > 0) {
		const struct reply_hold *hold =
			&reply->holds[--reply->hold_count];

		hold->release(hold->context, hold->index);
	}
	reply->segment_count = 0;
}

unsigned char *reply_buffer(struct reply *reply)
{
	if (!reply->buffer)
		reply->buffer = malloc(REPLY_SIZE_MAX);
	reply->buffered = reply->buffer != NULL;
	return reply->buffer;
}

unsigned char *reply_scratch(struct reply *reply)
{
	if (!reply->scratch)
		reply->scratch = malloc(REPLY_SIZE_MAX);
	return reply->scratch;
}

struct reply *reply_inner(struct reply *reply)
{
	if (!reply->inner)
		reply->inner = reply_create();
	if (reply->inner) {
		reply->inner->copy = true;
		reply->inner->nowait = reply->nowait;
	}
	return reply->inner;
}

int reply_borrow(struct reply *reply, uint64_t target, const void *data,
		 uint64_t size)
{
	struct reply_segment *last = NULL;

	target += reply->base;
	if (reply->segment_count > 0)
		last = &reply->segments[reply->segment_count - 1];
	if (last && last->target + last->size == target &&
	    (const char *)last->data + last->size == data) {
		last->size += size;
		return 0;
	}
	if (reply->segment_count == LIMIT_SEGMENTS)
		return -ENOBUFS;
	reply->segments[reply->segment_count++] =
		(struct reply_segment){ target, data, size };
	return 0;
}

int reply_hold(struct reply *reply,
	       void (*release)(void *context, uint64_t index), void *context,
	       uint64_t index)
{
	if (reply->hold_count == LIMIT_SEGMENTS)
		return -ENOBUFS;
	reply->holds[reply->hold_count++] =
		(struct reply_hold){ release, context, index };
	return 0;
}

static int compare_targets(const void *a, const void *b)
{
	const struct reply_segment *x = a, *y = b;

	return x->target < y->target ? -1 : x->target > y->target;
}

static void sort_segments(struct reply *reply)
{
	unsigned i;

	for (i = 1; i < reply->segment_count; i++)
		if (reply->segments[i].target < reply->segments[i - 1].target)
			break;
	if (i < reply->segment_count)
		qsort(reply->segments, reply->segment_count,
		      sizeof(reply->segments[0]), compare_targets);
}

static int add_iov(struct reply *reply, const void *data, uint64_t size)
{
	if (reply->iov_count == LIMIT_SEGMENTS)
		return -ENOBUFS;
	reply->iov[reply->iov_count++] = (struct iovec){
		.iov_base = (void *)data, .iov_len = size,
	};
	return 0;
}

/* Bytes [@from, @to) of the range, which no segment has. */
static int add_gap(struct reply *reply, uint64_t from, uint64_t to)
{
	if (from >= to)
		return 0;
	if (!reply->buffered)
		return -EIO;
	return add_iov(reply, reply->buffer + from, to - from);
}

int reply_finish(struct reply *reply, uint64_t skip, uint64_t size)
{
	uint64_t position = skip, end = skip + size;
	unsigned i;
	int error = 0;

	sort_segments(reply);
	reply->iov_count = 0;
	for (i = 0; i < reply->segment_count && !error; i++) {
		const struct reply_segment *segment = &reply->segments[i];
		uint64_t from = segment->target, to = from + segment->size;

		if (from < position)
			from = position;
		if (to > end)
			to = end;
		if (from >= to)
			continue;
		error = add_gap(reply, position, from);
		if (!error)
			error = add_iov(reply, (const char *)segment->data +
					(from - segment->target), to - from);
		position = to;
	}
	return error ? error : add_gap(reply, position, end);
}
