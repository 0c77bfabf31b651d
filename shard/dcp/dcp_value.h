/* SPDX-License-Identifier: Apache-2.0 */
/* Values of a DCP pickle, for dcp_read.c. Nothing is changed on failure. */
#ifndef SHARD_DCP_DCP_VALUE_H
#define SHARD_DCP_DCP_VALUE_H

#include "shard/base/limits.h"
#include "shard/dcp/pickle.h"

struct dcp_text {
	const char *data;	/* borrowed from a pickle's input */
	uint64_t size;		/* bytes */
};

/* The attribute @key of an instance; false: it has none. */
bool dcp_attribute(const struct pickle *p, struct pickle_value object,
		   const char *key, struct pickle_value *ret);

/* Is @value an instance of a class of this name, of whatever module? */
bool dcp_is_instance(const struct pickle *p, struct pickle_value value,
		     const char *class);

/* The tuple in torch.Size((d0, d1, ...)), or the bare tuple. */
bool dcp_tuple(const struct pickle *p, struct pickle_value value,
	       struct pickle_value *ret_tuple);

/* Its numbers. 0; -EBADMSG when it is no tuple of numbers >= 0; -E2BIG for
 * more than LIMIT_NDIM. */
int dcp_dims(const struct pickle *p, struct pickle_value value,
	     uint64_t dims[LIMIT_NDIM], unsigned *ret_ndim);

bool dcp_text(const struct pickle *p, struct pickle_value value,
	      struct dcp_text *ret);

/* The attribute @key, a number >= 0. */
bool dcp_size(const struct pickle *p, struct pickle_value object,
	      const char *key, uint64_t *ret);

#endif
