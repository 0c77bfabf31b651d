/* SPDX-License-Identifier: Apache-2.0 */
/* The header of a .npy file, format 1.0. Source: numpy/lib/format.py. */
#ifndef SHARD_READ_NPY_H
#define SHARD_READ_NPY_H

#include "shard/base/box.h"
#include "shard/base/dtype.h"

/* Bytes of the longest: 32 axes of 19 digits, rounded up to 64. */
#define NPY_HEADER_MAX 1024

/* Write the header of a row-major array; returns its size, a multiple of 64,
 * so that the data behind it is aligned. */
size_t npy_header(enum dtype dtype, const struct box *shape,
		  char ret_header[NPY_HEADER_MAX]);

#endif
