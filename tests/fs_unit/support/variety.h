/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint in a folder that has one of each kind of thing that views show:
 *
 *	model.w		of two files, below the key `model`
 *	model.b		a type that NumPy does not have, likewise
 *	optim.exp.w	a type that float32 cannot hold, two keys deep
 *	step		a scalar, in no dict, as are all below
 *	a/b[c]%		a name that a file cannot have
 *	holes		the second half is nowhere
 *	lost		2000 shards in a file that is not there
 *
 *	args		an object that is plain data, {"lr": 0.5}
 *	packed		the same behind zstd
 *	code		an object that is not
 */
#ifndef SUPPORT_VARIETY_H
#define SUPPORT_VARIETY_H

#include "support/folder.h"

#include <stdint.h>

struct variety_tensor {
	const char *name;
	const char *file;		/* as views spell the name */
	const char *dtype, *torch;	/* as attributes do */
	unsigned ndim;
	uint64_t shape[2];
	uint64_t size;			/* bytes */
};

enum { VARIETY_W, VARIETY_B, VARIETY_EXP, VARIETY_STEP, VARIETY_NAME,
       VARIETY_HOLES, VARIETY_LOST, VARIETY_TENSORS };

extern const struct variety_tensor variety_tensors[VARIETY_TENSORS];

/* Rows and bytes of a row of model.w, which is larger than one read. */
enum { VARIETY_ROWS = 640, VARIETY_ROW_SIZE = 2048 };

/* The bytes of each tensor start at @first and count up; values stay small
 * while that is. */
void variety_write(const struct test_folder *folder, unsigned char first);
/* Byte @index of a tensor. */
unsigned char variety_byte(unsigned char first, uint64_t index);

/* The text of args.json. */
extern const char variety_args[];

#endif
