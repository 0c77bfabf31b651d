/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slices as part of a file name: `[0:1024,:]`. Half-open, one range per axis,
 * missing trailing axes are whole, `:` is whole, a missing end of a range is
 * the tensor's, `7` is 7:8 with its axis kept. No steps, signs or blanks.
 */
#ifndef SHARD_BASE_SLICE_H
#define SHARD_BASE_SLICE_H

#include "shard/base/box.h"

/*
 * Parse @size bytes at @text, brackets included, against the tensor's sizes
 * in @whole. False when it is no slice of this tensor.
 */
bool slice_parse(const char *text, size_t size, const struct box *whole,
		 struct box *ret_box);

#endif
