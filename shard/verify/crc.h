/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32 as ZIP has it (APPNOTE.TXT 6.3.10, 4.4.7), as fast as memory. */
#ifndef SHARD_VERIFY_CRC_H
#define SHARD_VERIFY_CRC_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of what @crc is that of, with @size bytes behind it; of nothing
 * it is 0. */
uint32_t crc_add(uint32_t crc, const void *data, size_t size);

/* That of two parts, the second of @second_size bytes. */
uint32_t crc_join(uint32_t first, uint32_t second, uint64_t second_size);

#endif
