/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stage for each extension, each of which writes into the next, and the
 * last into the output:
 *
 *	input -> last extension -> ... -> first extension -> output
 *
 * Nothing is kept between the stages: memory does not depend on the size of
 * the item, however deep the chain is. What each stage gives is counted: a
 * few bytes may stand for petabytes that the next stage then skips.
 */
#include "shard/codec/decode.h"

#include "shard/base/bytes.h"
#include "shard/base/limits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { BUFFER_SIZE = 128 * 1024 };

struct decoder {
	struct fault *fault;
	uint64_t limit;			/* bytes from each stage */
	uint64_t offset;		/* in the input, of the block at hand */
};

struct decode_stage {
	struct decode_output base;	/* first: passed as this */
	struct decode_output *next;	/* borrowed */
	struct decoder *decoder;	/* borrowed */
	bool outermost;			/* it gets the input itself */
	ZSTD_DStream *stream;		/* owned */
	uint64_t consumed, produced;	/* bytes */
	bool inside;			/* of a frame */
	unsigned char head[4];		/* of the next frame */
	unsigned head_size;
	unsigned char buffer[BUFFER_SIZE];
};

/* ---- names --------------------------------------------------------------- */

/* The descriptor at *@chain, which moves behind it; false: there is none. */
static bool next_name(const char **chain, const char *end,
		      const char **ret_name, size_t *ret_size)
{
	const char *name = *chain, *stop;

	if (name == end)
		return false;
	stop = memchr(name, '\n', (size_t)(end - name));
	*ret_name = name;
	*ret_size = (size_t)((stop ? stop : end) - name);
	*chain = stop ? stop + 1 : end;
	return true;
}

/* Minor versions do not matter: so torch says. */
static bool is_zstd(const char *name, size_t size)
{
	static const char zstd[] = "stream.zstd/1";
	const size_t least = sizeof(zstd) - 1;

	return size >= least && memcmp(name, zstd, least) == 0 &&
	       (size == least || name[least] == '.');
}

int decode_check(const char *chain, size_t size, struct fault *fault)
{
	const char *end = chain + size, *name;
	size_t name_size;

	while (next_name(&chain, end, &name, &name_size))
		if (!is_zstd(name, name_size))
			return fault_set_detail(fault, -EOPNOTSUPP, 0,
				"stored item is behind an unknown stream extension",
				(struct fault_detail){ name, name_size });
	return 0;
}

/* ---- stream.zstd --------------------------------------------------------- */

static int refuse(struct decode_stage *s, int error, const char *reason,
		  const char *detail)
{
	return fault_set_detail(s->decoder->fault, error, s->outermost ?
				s->consumed : s->decoder->offset, reason,
				(struct fault_detail){ detail,
						       strlen(detail) });
}

static int refuse_code(struct decode_stage *s, size_t code)
{
	const char *name = ZSTD_getErrorName(code);

	switch (ZSTD_getErrorCode(code)) {
	case ZSTD_error_memory_allocation:
		return refuse(s, -ENOMEM, "out of memory", "");
	case ZSTD_error_version_unsupported:
	case ZSTD_error_frameParameter_unsupported:
	case ZSTD_error_frameParameter_windowTooLarge:
	case ZSTD_error_dictionary_wrong:
		return refuse(s, -EOPNOTSUPP,
			      "zstd frame of a kind that is not read", name);
	default:
		return refuse(s, -EIO, "damaged zstd frame", name);
	}
}

/* Bytes of a frame, up to its end; moves *@data. */
static int feed(struct decode_stage *s, const unsigned char **data,
		const unsigned char *end)
{
	ZSTD_inBuffer in = { *data, (size_t)(end - *data), 0 };
	ZSTD_outBuffer out;
	size_t left;
	int error = 0;

	do {
		out = (ZSTD_outBuffer){ s->buffer, BUFFER_SIZE, 0 };
		left = ZSTD_decompressStream(s->stream, &out, &in);
		if (ZSTD_isError(left))
			return refuse_code(s, left);
		s->produced += out.pos;
		if (s->produced > s->decoder->limit)
			return refuse(s, -E2BIG, "decoded item is too large",
				      "");
		if (out.pos > 0)
			error = s->next->write(s->next, s->buffer, out.pos);
	} while (!error && left > 0 &&
		 (in.pos < in.size || out.pos == out.size));
	s->inside = left > 0;
	*data += in.pos;
	s->consumed += in.pos;
	return error;
}

/*
 * The first bytes of a frame decide: libzstd also knows formats from before
 * there was a standard, whose decoders nobody should meet in a file that he
 * does not trust.
 */
static int begin(struct decode_stage *s, const unsigned char **data,
		 const unsigned char *end)
{
	const unsigned char *head = s->head;
	uint32_t magic;

	while (s->head_size < sizeof(s->head) && *data < end)
		s->head[s->head_size++] = *(*data)++;
	if (s->head_size < sizeof(s->head))
		return 0;
	magic = bytes_u32le(s->head);
	if (magic != ZSTD_MAGICNUMBER &&
	    (magic & ZSTD_MAGIC_SKIPPABLE_MASK) != ZSTD_MAGIC_SKIPPABLE_START)
		return refuse(s, -EIO, "not a zstd frame", "");
	s->head_size = 0;
	return feed(s, &head, s->head + sizeof(s->head));
}

static int write_stage(struct decode_output *output, const void *data,
		       size_t size)
{
	struct decode_stage *s = (struct decode_stage *)output;
	const unsigned char *p = data, *end = p + size;
	int error = 0;

	while (p < end && !error)
		error = s->inside ? feed(s, &p, end) : begin(s, &p, end);
	return error;
}

/* ---- the chain ----------------------------------------------------------- */

static struct decode_stage *create_stage(struct decoder *decoder,
				  struct decode_output *next)
{
	struct decode_stage *s = malloc(sizeof(*s));

	if (!s)
		return NULL;
	memset(s, 0, offsetof(struct decode_stage, buffer));
	s->base.write = write_stage;
	s->next = next;
	s->decoder = decoder;
	s->stream = ZSTD_createDStream();
	if (!s->stream) {
		free(s);
		return NULL;
	}
	return s;
}

static void destroy_stage(struct decode_stage *s)
{
	ZSTD_freeDStream(s->stream);
	free(s);
}

static int pump(struct decoder *decoder, const struct input *input,
		unsigned char *buffer, struct decode_output *first)
{
	int error = 0;

	while (decoder->offset < input->size && !error) {
		uint64_t left = input->size - decoder->offset;
		size_t size = left < BUFFER_SIZE ? (size_t)left : BUFFER_SIZE;

		error = input->read(input, buffer, size, decoder->offset);
		if (!error)
			error = first->write(first, buffer, size);
		if (!error)
			decoder->offset += size;
	}
	return error;
}

int decode(const struct input *input, const char *chain, size_t size,
	   struct decode_output *output, struct fault *fault)
{
	struct decoder decoder = { .fault = fault, .limit = output->limit };
	unsigned char *buffer = malloc(BUFFER_SIZE);
	struct decode_stage *stages[LIMIT_TRANSFORM_DEPTH];
	const char *end = chain + size, *name;
	size_t name_size;
	unsigned count = 0, i;
	int error = buffer ? 0 : -ENOMEM;

	while (!error && count < LIMIT_TRANSFORM_DEPTH &&
	       next_name(&chain, end, &name, &name_size)) {
		stages[count] = create_stage(&decoder, output);
		if (stages[count])
			output = &stages[count++]->base;
		else
			error = -ENOMEM;
	}
	if (error)
		fault_set(fault, error, 0, "out of memory");
	if (count > 0)
		stages[count - 1]->outermost = true;
	if (!error)
		error = pump(&decoder, input, buffer, output);
	for (i = count; i > 0 && !error; i--)
		if (stages[i - 1]->inside || stages[i - 1]->head_size > 0)
			error = fault_set(fault, -EIO, decoder.offset,
					  "stored item ends inside a zstd frame");
	while (count > 0)
		destroy_stage(stages[--count]);
	free(buffer);
	return error;
}
