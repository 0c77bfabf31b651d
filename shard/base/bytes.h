/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers in byte streams, at any alignment. */
#ifndef SHARD_BASE_BYTES_H
#define SHARD_BASE_BYTES_H

#include <stdint.h>

static inline uint16_t bytes_u16le(const unsigned char *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t bytes_u32le(const unsigned char *p)
{
	return (uint32_t)bytes_u16le(p) | (uint32_t)bytes_u16le(p + 2) << 16;
}

static inline uint64_t bytes_u64le(const unsigned char *p)
{
	return (uint64_t)bytes_u32le(p) | (uint64_t)bytes_u32le(p + 4) << 32;
}

static inline uint64_t bytes_u64be(const unsigned char *p)
{
	return __builtin_bswap64(bytes_u64le(p));
}

#endif
