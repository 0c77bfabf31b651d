/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checksum is a remainder of polynomials over GF(2), so a block of 64 bytes
 * may be replaced by a product that has the same remainder and lies on the
 * blocks 256 bytes further. Four blocks of 64 bytes are carried along like
 * this, and libdeflate gets them in the end as if they were the message.
 *
 * libdeflate does the same with 16 bytes at a time, which is half as fast as
 * needed here (until 1.20, that is: from then on it also knows these
 * instructions).
 *
 * Source: Gopal et al., "Fast CRC Computation for Generic Polynomials Using
 * PCLMULQDQ Instruction", Intel 2009.
 */
#include "shard/verify/crc.h"

#include <libdeflate.h>
#include <zlib.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum { BLOCK_SIZE = 64, STEP_SIZE = 256 };

/* x^(8 * 256 + 31) and x^(8 * 256 - 33), the distance that the low and the high
 * half of 16 bytes move, modulo the polynomial 0xedb88320, bits reflected. */
static const uint32_t move_low = 0xce3371cb, move_high = 0xe95c1271;

__attribute__((target("avx512f,vpclmulqdq")))
static uint32_t add_wide(uint32_t crc, const unsigned char *p, size_t size)
{
	const __m512i move = _mm512_set4_epi64(move_high, move_low, move_high,
					       move_low);
	unsigned char rest[STEP_SIZE];
	__m512i block[4], low, high;
	unsigned i;

	for (i = 0; i < 4; i++)
		block[i] = _mm512_loadu_si512(p + BLOCK_SIZE * i);
	block[0] = _mm512_xor_si512(block[0],
		_mm512_zextsi128_si512(_mm_cvtsi32_si128((int)~crc)));
	for (p += STEP_SIZE, size -= STEP_SIZE; size >= STEP_SIZE;
	     p += STEP_SIZE, size -= STEP_SIZE) {
		for (i = 0; i < 4; i++) {
			low = _mm512_clmulepi64_epi128(block[i], move, 0x00);
			high = _mm512_clmulepi64_epi128(block[i], move, 0x11);
			block[i] = _mm512_loadu_si512(p + BLOCK_SIZE * i);
			/* low ^ high ^ block */
			block[i] = _mm512_ternarylogic_epi64(block[i], low,
							     high, 0x96);
		}
	}
	for (i = 0; i < 4; i++)
		_mm512_storeu_si512(rest + BLOCK_SIZE * i, block[i]);
	/* All ones: the start is in the first block already. */
	crc = libdeflate_crc32(UINT32_MAX, rest, sizeof(rest));
	return libdeflate_crc32(crc, p, size);
}

static int has_wide(void)
{
	return __builtin_cpu_supports("avx512f") &&
	       __builtin_cpu_supports("vpclmulqdq");
}
#endif

uint32_t crc_add(uint32_t crc, const void *data, size_t size)
{
#if defined(__x86_64__)
	if (size >= 4 * STEP_SIZE && has_wide())
		return add_wide(crc, data, size);
#endif
	return libdeflate_crc32(crc, data, size);
}

uint32_t crc_join(uint32_t first, uint32_t second, uint64_t second_size)
{
	return (uint32_t)crc32_combine(first, second, (z_off_t)second_size);
}
