/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs that lie one behind the other in the file, and large ones, are read to
 * where they belong, many by one call. All others go through a window: a part
 * of the file in scratch memory, from which runs are copied one by one. When a
 * run is not in the window, the window moves to it, and takes with it what
 * comes next as long as the gaps in between are smaller than what a system call
 * costs.
 */
#include "shard/read/gather.h"

#include <assert.h>
#include <string.h>

/* A pread of 4 KiB costs about as much as a pread of nothing; and what the
 * kernel does for each vector costs as much as copying so many bytes. */
enum { GAP_MAX = 4096, VECTOR_MIN = 512 };

struct read_window {
	uint64_t begin, end;	/* bytes of the file that it holds */
};

static void swap(unsigned char *p, unsigned width)
{
	unsigned i;

	for (i = 0; i < width / 2; i++) {
		unsigned char byte = p[i];

		p[i] = p[width - 1 - i];
		p[width - 1 - i] = byte;
	}
}

/* A number of @width bytes, little-endian. */
static void negate(unsigned char *p, unsigned width, enum dtype_kind kind)
{
	unsigned i, carry = 1;

	if (kind == DTYPE_KIND_FLOAT || kind == DTYPE_KIND_COMPLEX)
		p[width - 1] ^= 0x80;
	else if (kind == DTYPE_KIND_INTEGER)
		for (i = 0; i < width; i++) {
			carry += (unsigned char)~p[i];
			p[i] = (unsigned char)carry;
			carry >>= 8;
		}
}

/* Bring the elements in @size bytes at @data into their logical form. */
static void transform(const struct gather *gather, unsigned char *data,
		      uint64_t size)
{
	const struct dtype_info *info = dtype_info(gather->dtype);
	unsigned width = info->component;
	uint64_t index;

	for (index = 0; (index + 1) * width <= size; index++) {
		unsigned char *p = data + index * width;
		bool imaginary = info->kind == DTYPE_KIND_COMPLEX &&
				 index % 2 == 1;
		bool conjugated = imaginary && gather->flags & LAYOUT_CONJ;
		bool negated = gather->flags & LAYOUT_NEG;

		if (gather->flags & LAYOUT_SWAP)
			swap(p, width);
		if (conjugated != negated)
			negate(p, width, info->kind);
	}
}

static void copy_run(unsigned char *to, const unsigned char *from,
		     uint64_t size)
{
	/* The sizes of single elements, as constants for the compiler. */
	switch (size) {
	case 1:
		*to = *from;
		break;
	case 2:
		memcpy(to, from, 2);
		break;
	case 4:
		memcpy(to, from, 4);
		break;
	case 8:
		memcpy(to, from, 8);
		break;
	default:
		memcpy(to, from, size);
	}
}

/* How far the window at run @index of @extent should reach. */
static uint64_t window_end(const struct gather *gather,
			   const struct extents *extents,
			   const struct extent *extent, uint64_t index)
{
	uint64_t begin = extent->offset + index * extent->stride;
	uint64_t end = begin + extent->size;
	bool whole = extent->count == 1 ||
		     extent->stride <= extent->size + GAP_MAX;

	if (whole)
		end = extent->offset + (extent->count - 1) * extent->stride +
		      extent->size;
	if (whole && extents->outer_count > 0) {
		unsigned last = extents->outer_count - 1;
		const struct extent_axis *axis = &extents->outer[last];
		uint64_t span = end - extent->offset;

		/* extents_next already stands at the next extent; 0: this
		 * one was the last along its axis. */
		if (axis->stride <= span + GAP_MAX && extents->index[last] > 0)
			end += (axis->count - extents->index[last]) *
			       axis->stride;
	}
	if (end - begin > LIMIT_READ_SIZE)
		end = begin + LIMIT_READ_SIZE;
	return end < gather->file_size ? end : gather->file_size;
}

static int read_at(const struct gather *gather, void *to, uint64_t size,
		   uint64_t offset)
{
	struct iovec vector = { to, size };

	return io_read_vectors(&gather->file, &vector, 1, offset);
}

static int move_window(const struct gather *gather, struct read_window *window,
		       uint64_t begin, uint64_t end)
{
	int error;

	window->begin = window->end = 0;
	error = read_at(gather, gather->window, end - begin, begin);
	if (error)
		return error;
	window->begin = begin;
	window->end = end;
	return 0;
}

static int scatter(const struct gather *gather, const struct extents *extents,
		   const struct extent *extent, struct read_window *window)
{
	uint64_t i;
	int error;

	for (i = 0; i < extent->count; i++) {
		uint64_t begin = extent->offset + i * extent->stride;
		unsigned char *to = gather->target + extent->target +
				    i * extent->target_stride;

		if (begin < window->begin ||
		    begin + extent->size > window->end) {
			error = move_window(gather, window, begin,
					    window_end(gather, extents, extent,
						       i));
			if (error)
				return error;
		}
		copy_run(to, gather->window + (begin - window->begin),
			 extent->size);
		if (gather->flags)
			transform(gather, to, extent->size);
	}
	return 0;
}

/* Runs of which the next begins in the file where one ends. */
static int read_runs(const struct gather *gather, const struct extent *extent)
{
	unsigned char *to = gather->target + extent->target;
	struct iovec vectors[IO_VECTORS_MAX];
	uint64_t i = 0, first;
	int error = 0;

	while (i < extent->count && !error) {
		for (first = i; i < extent->count && i - first < IO_VECTORS_MAX;
		     i++)
			vectors[i - first] = (struct iovec){
				to + i * extent->target_stride, extent->size,
			};
		error = io_read_vectors(&gather->file, vectors,
					(unsigned)(i - first),
					extent->offset + first * extent->size);
	}
	return error;
}

/* Runs that are far apart. */
static int read_each(const struct gather *gather, const struct extent *extent)
{
	uint64_t i;
	int error = 0;

	for (i = 0; i < extent->count && !error; i++)
		error = read_at(gather, gather->target + extent->target +
						i * extent->target_stride,
				extent->size,
				extent->offset + i * extent->stride);
	return error;
}

static void transform_all(const struct gather *gather,
			  const struct extent *extent)
{
	uint64_t i;

	for (i = 0; gather->flags && i < extent->count; i++)
		transform(gather, gather->target + extent->target +
					  i * extent->target_stride,
			  extent->size);
}

static bool is_contiguous(const struct extent *extent)
{
	return extent->count > 1 && extent->stride == extent->size &&
	       extent->size >= VECTOR_MIN;
}

int gather_extents(const struct gather *gather, struct extents *extents)
{
	struct read_window window = { 0, 0 };
	struct extent extent;
	int error = 0;

	while (!error && extents_next(extents, &extent)) {
		assert(extent.size <= LIMIT_READ_SIZE);
		if (!is_contiguous(&extent) && extent.size < GAP_MAX) {
			error = scatter(gather, extents, &extent, &window);
			continue;
		}
		error = is_contiguous(&extent) ? read_runs(gather, &extent) :
						 read_each(gather, &extent);
		if (!error)
			transform_all(gather, &extent);
	}
	return error;
}
