/* SPDX-License-Identifier: Apache-2.0 */
/* A copy of a checkpoint that PyTorch wrote, whose bits are turned over, one
 * after the other; and what became of it. */
#ifndef SUPPORT_FLIPS_H
#define SUPPORT_FLIPS_H

#include "support/folder.h"

#include "shard/verify/verify.h"

struct copy {
	struct test_folder folder;
	struct decoded_cache *cache;
	struct verify_buffer *buffer;
	char file[64];		/* whose bits are turned over */
	unsigned char *bytes;	/* of it */
	size_t size;
	/* Of the sound checkpoint: */
	char *description, *untyped;
	unsigned note_count;
};

enum outcome {
	REFUSED,	/* the metadata was */
	FAULT,		/* verify had something to say */
	NOTED,		/* it found something odd */
	LOST,		/* nothing, and an entry is not there any more */
	RETYPED,	/* nothing, and an entry has another type */
	CHANGED,	/* nothing, and an entry is not what it was */
	SAME,		/* nothing, and nothing has changed but names */
	OUTCOMES,
};

struct totals {
	unsigned bits, outcomes[OUTCOMES];
};

/* Of the fixture @fixture; the bits are those of its @file. */
void copy_make(struct copy *copy, const char *fixture, const char *file);
void copy_free(struct copy *copy);

/* NULL: its metadata is refused. The caller closes it. */
struct checkpoint *copy_open(const struct copy *copy);

/* Open and verify it while bit @bit of the file is turned over. */
enum outcome flip_bit(struct copy *copy, unsigned bit);

#endif
