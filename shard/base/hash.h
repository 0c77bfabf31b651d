/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers for bytes: XXH3, of 64 bits and of 128. */
#ifndef SHARD_BASE_HASH_H
#define SHARD_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* For tables. @seed should be one that who wrote the bytes cannot know: many of
 * one hash would make a table slow. */
uint64_t hash_64(const void *data, size_t size, uint64_t seed);
uint64_t hash_seed(void);

/* The low half first. */
void hash_128(const void *data, size_t size, uint64_t ret_hash[2]);

/* The same of bytes that come in parts. */
struct hash_stream;
/* NULL: out of memory. */
struct hash_stream *hash_stream_create(void);
void hash_stream_add(struct hash_stream *stream, const void *data, size_t size);
void hash_stream_end(const struct hash_stream *stream, uint64_t ret_hash[2]);
/* NULL is fine. */
void hash_stream_destroy(struct hash_stream *stream);

#endif
