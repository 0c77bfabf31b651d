/* SPDX-License-Identifier: Apache-2.0 */
#include "support/dice.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Splitmix64, by Sebastiano Vigna. */
uint64_t dice_mix(uint64_t number)
{
	number += UINT64_C(0x9e3779b97f4a7c15);
	number = (number ^ number >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	number = (number ^ number >> 27) * UINT64_C(0x94d049bb133111eb);
	return number ^ number >> 31;
}

struct dice dice_make(void)
{
	const char *text = getenv("CKPTFS_SEED");
	struct timespec now;
	uint64_t seed;

	clock_gettime(CLOCK_REALTIME, &now);
	seed = dice_mix((uint64_t)now.tv_sec ^ (uint64_t)now.tv_nsec << 20);
	if (text && *text)
		seed = strtoull(text, NULL, 0);
	printf("CKPTFS_SEED=%" PRIu64 "\n", seed);
	fflush(stdout);
	return (struct dice){ seed };
}

uint64_t dice_any(struct dice *dice)
{
	uint64_t number = dice_mix(dice->state);

	dice->state += UINT64_C(0x9e3779b97f4a7c15);
	return number;
}

uint64_t dice_below(struct dice *dice, uint64_t limit)
{
	return dice_any(dice) % limit;
}

bool dice_chance(struct dice *dice, unsigned percent)
{
	return dice_below(dice, 100) < percent;
}
