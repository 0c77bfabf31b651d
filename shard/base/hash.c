/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/hash.h"

#include <sys/random.h>
#include <xxhash.h>

uint64_t hash_64(const void *data, size_t size, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, size, seed);
}

uint64_t hash_seed(void)
{
	uint64_t seed;

	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
		seed = (uint64_t)(uintptr_t)&seed;
	return seed;
}

static void give(XXH128_hash_t hash, uint64_t ret_hash[2])
{
	ret_hash[0] = hash.low64;
	ret_hash[1] = hash.high64;
}

void hash_128(const void *data, size_t size, uint64_t ret_hash[2])
{
	give(XXH3_128bits(data, size), ret_hash);
}

/* It is xxHash's own state, by another name. */
static XXH3_state_t *state_of(struct hash_stream *stream)
{
	return (XXH3_state_t *)(void *)stream;
}

struct hash_stream *hash_stream_create(void)
{
	XXH3_state_t *state = XXH3_createState();

	if (state)
		XXH3_128bits_reset(state);
	return (struct hash_stream *)(void *)state;
}

void hash_stream_add(struct hash_stream *stream, const void *data, size_t size)
{
	XXH3_128bits_update(state_of(stream), data, size);
}

void hash_stream_end(const struct hash_stream *stream, uint64_t ret_hash[2])
{
	give(XXH3_128bits_digest((const XXH3_state_t *)(const void *)stream),
	     ret_hash);
}

void hash_stream_destroy(struct hash_stream *stream)
{
	XXH3_freeState(state_of(stream));
}
