/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elements from one floating type to another, bit for bit as torch does it:
 * widening is exact, narrowing rounds to nearest even by way of float32
 * (c10/util/{BFloat16,Half,Float8_*}.h). NaN stays NaN; its payload may change.
 * Pure; buffers may have any alignment and must not overlap. Vectorised by the
 * compiler: no branches inside.
 */
#ifndef SHARD_VALUES_CONVERT_H
#define SHARD_VALUES_CONVERT_H

#include "shard/base/dtype.h"

#include <stdbool.h>

/*
 * Which pairs there are: from F64, F32, BF16, F16, F8_* to F32, BF16, F16; and
 * a type to itself. A view only widens; an export may narrow.
 */
bool convert_is_possible(enum dtype from, enum dtype to);
/* Possible and exact for every value: what the view f32 accepts. */
bool convert_is_exact(enum dtype from, enum dtype to);

/* @count elements; the pair must be possible. */
void convert(enum dtype from, enum dtype to, const void *source, void *target,
	     uint64_t count);

/*
 * To double, for statistics. Integers beyond 2^53 are rounded to nearest;
 * bool is 0 or 1; a complex element gives two numbers. False, with nothing
 * done, for types without a value (bits, quantized, packed).
 */
bool convert_to_double(enum dtype from, const void *source, double *target,
		       uint64_t count);
bool convert_has_value(enum dtype dtype);

#endif
