/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers that can be had again: the seed is printed, and taken from
 * the environment variable CKPTFS_SEED when that is set. */
#ifndef SUPPORT_DICE_H
#define SUPPORT_DICE_H

#include <stdbool.h>
#include <stdint.h>

struct dice {
	uint64_t state;
};

struct dice dice_make(void);

/* Any number. */
uint64_t dice_any(struct dice *dice);
/* 0 to @limit - 1. */
uint64_t dice_below(struct dice *dice, uint64_t limit);
/* True in @percent of 100 cases. */
bool dice_chance(struct dice *dice, unsigned percent);

/* A number that @number alone decides: the content of test tensors. */
uint64_t dice_mix(uint64_t number);

#endif
