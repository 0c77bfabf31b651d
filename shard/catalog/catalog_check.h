/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a blob that came from somebody else a catalog? After a yes everything
 * that takes a catalog may be called with it: nothing is read beyond its end,
 * nothing divides by zero, every loop ends, and what a name or a range costs
 * has a bound.
 *
 * That its shards hold what they claim nobody knows who has not read them.
 * Nor is it proven that shards of a tensor without CATALOG_OVERLAP are
 * disjoint, only that their sizes add up: a liar gets a reply that has bytes
 * of nobody where they should be, at places inside of the reply.
 *
 * Pure; any thread. Time and memory: linear in the size of the blob, none.
 */
#ifndef SHARD_CATALOG_CATALOG_CHECK_H
#define SHARD_CATALOG_CATALOG_CHECK_H

#include "shard/base/fault.h"
#include "shard/catalog/catalog.h"

/*
 * 0, or -EBADMSG with @fault, which may be NULL, saying where in the @size
 * bytes at @data, which is aligned to 8, and why: not laid out as
 * catalog_layout.h says, a hash that is not that of the content, an entry,
 * shard, file or chain of extensions that the builder would not have made, a
 * name that is not found, beyond a limit, or from a newer version.
 */
int catalog_check(const void *data, uint64_t size, struct fault *fault);

#endif
