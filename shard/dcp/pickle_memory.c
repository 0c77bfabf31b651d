/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a pickle: one block that holds the arena, the memo and the
 * stack, of a size that the input bounds.
 */
#include "shard/dcp/pickle_layout.h"

#include "shard/base/limits.h"

#include <stdlib.h>
#include <sys/mman.h>

/* Beyond this a region is reserved by mmap and touched as needed, */
static const size_t heap_size_max = 256 * KIB;
/* and beyond this in huge pages: a checkpoint may have many small pickles. */
static const size_t huge_size_min = 128 * MIB;

void pickle_reserve(struct pickle *pickle)
{
	if (pickle->memory_size <= heap_size_max) {
		pickle->memory = malloc(pickle->memory_size);
		return;
	}
	pickle->memory = mmap(NULL, pickle->memory_size,
			      PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			      0);
	if (pickle->memory == MAP_FAILED)
		pickle->memory = NULL;
	/* Half of the time of a large pickle would go into faults; where
	 * there are no huge pages, it does. */
	else if (pickle->memory_size >= huge_size_min)
		madvise(pickle->memory, pickle->memory_size, MADV_HUGEPAGE);
}

void pickle_trim(const struct pickle *pickle, const uint64_t *end_of_arena)
{
	const uintptr_t page = 4096;
	uintptr_t begin = ((uintptr_t)end_of_arena + page - 1) & ~(page - 1);
	uintptr_t end = (uintptr_t)pickle->memory + pickle->memory_size;

	if (pickle->memory_size > heap_size_max && begin < end)
		madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void pickle_finish(struct pickle *pickle)
{
	if (!pickle->memory)
		return;
	if (pickle->memory_size <= heap_size_max)
		free(pickle->memory);
	else
		munmap(pickle->memory, pickle->memory_size);
	pickle->memory = NULL;
}
