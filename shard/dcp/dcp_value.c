/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/dcp/dcp_value.h"

#include <errno.h>

/* The attribute @key of an instance. */
bool dcp_attribute(const struct pickle *p, struct pickle_value object,
		      const char *key, struct pickle_value *ret)
{
	return pickle_get(p, pickle_state(p, object), key, ret);
}

bool dcp_is_instance(const struct pickle *p, struct pickle_value value,
			const char *class)
{
	return pickle_symbol_is(p, pickle_callable(p, value), class);
}

/* torch.Size((d0, d1, ...)), or the bare tuple. */
bool dcp_tuple(const struct pickle *p, struct pickle_value value,
		      struct pickle_value *ret_tuple)
{
	const struct pickle_value *args;
	uint64_t count;

	if (pickle_kind(p, value) == PICKLE_CALL) {
		if (!dcp_is_instance(p, value, "Size") ||
		    !pickle_tuple(p, pickle_args(p, value), &args, &count) ||
		    count != 1)
			return false;
		value = args[0];
	}
	if (pickle_kind(p, value) != PICKLE_TUPLE)
		return false;
	*ret_tuple = value;
	return true;
}

/* 0, or -EBADMSG when it is no tuple of numbers >= 0, or -E2BIG. */
int dcp_dims(const struct pickle *p, struct pickle_value value,
		    uint64_t dims[LIMIT_NDIM], unsigned *ret_ndim)
{
	const struct pickle_value *items;
	uint64_t count, i;

	if (!dcp_tuple(p, value, &value) ||
	    !pickle_tuple(p, value, &items, &count))
		return -EBADMSG;
	if (count > LIMIT_NDIM)
		return -E2BIG;
	for (i = 0; i < count; i++) {
		int64_t number;

		if (!pickle_int(p, items[i], &number) || number < 0)
			return -EBADMSG;
		dims[i] = (uint64_t)number;
	}
	*ret_ndim = (unsigned)count;
	return 0;
}

bool dcp_text(const struct pickle *p, struct pickle_value value,
		     struct dcp_text *ret)
{
	return pickle_string(p, value, &ret->data, &ret->size);
}

bool dcp_size(const struct pickle *p, struct pickle_value object,
		     const char *key, uint64_t *ret)
{
	struct pickle_value value;
	int64_t number;

	if (!dcp_attribute(p, object, key, &value) ||
	    !pickle_int(p, value, &number) || number < 0)
		return false;
	*ret = (uint64_t)number;
	return true;
}
