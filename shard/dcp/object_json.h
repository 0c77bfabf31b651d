/* SPDX-License-Identifier: Apache-2.0 */
/* An object of a checkpoint as JSON, when it is plain data. */
#ifndef SHARD_DCP_OBJECT_JSON_H
#define SHARD_DCP_OBJECT_JSON_H

#include "shard/base/array.h"
#include "shard/dcp/pickle.h"

/*
 * Append the root of @pickle to @out as JSON, the way Python's json module
 * spells it: None, bools, numbers of 64 bits, strings, lists, tuples, dicts,
 * OrderedDict, torch.Size and torch dtypes. 0, -EOPNOTSUPP when it holds
 * anything else or is nested too deeply, -ENOMEM.
 */
int object_json(const struct pickle *pickle, struct array *out);

#endif
