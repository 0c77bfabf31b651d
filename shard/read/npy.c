/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/read/npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PREFIX_SIZE = 10 };

/* The longest type, 20 digits and a comma for each axis, and the rest. */
_Static_assert(PREFIX_SIZE + 80 + 22 * LIMIT_NDIM + 64 <= NPY_HEADER_MAX,
	       "a header has room for all axes");

size_t npy_header(enum dtype dtype, const struct box *shape,
		  char ret_header[NPY_HEADER_MAX])
{
	char *p = ret_header + PREFIX_SIZE;
	size_t size;
	unsigned i;

	p += sprintf(p, "{'descr': '%s', 'fortran_order': False, 'shape': (",
		     dtype_info(dtype)->npy);
	for (i = 0; i < shape->ndim; i++)
		p += sprintf(p, "%s%" PRIu64, i ? ", " : "", shape->size[i]);
	/* A tuple of one needs its comma. */
	p += sprintf(p, "%s), }", shape->ndim == 1 ? "," : "");
	size = (size_t)(p - ret_header) + 1;
	size = (size + 63) & ~(size_t)63;
	memset(p, ' ', (size_t)(ret_header + size - p));
	ret_header[size - 1] = '\n';
	memcpy(ret_header, "\x93NUMPY\1\0", 8);
	ret_header[8] = (char)((size - PREFIX_SIZE) & 255);
	ret_header[9] = (char)((size - PREFIX_SIZE) >> 8);
	return size;
}
