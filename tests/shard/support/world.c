/* SPDX-License-Identifier: Apache-2.0 */
#include "support/world.h"

#include <string.h>

static const enum dtype dtypes[] = {
	DTYPE_U8, DTYPE_BF16, DTYPE_F32, DTYPE_I64, DTYPE_C64, DTYPE_C128,
	DTYPE_F8_E4M3, DTYPE_U16, DTYPE_C32,
};

static void make_shape(struct world *world, const struct world_limits *limits,
		       struct dice *dice)
{
	uint64_t left = 1 + dice_below(dice, limits->volume);
	unsigned i;

	world->shape.ndim = (unsigned)dice_below(dice, limits->ndim + 1);
	for (i = 0; i < world->shape.ndim; i++) {
		uint64_t most = left < 12 ? left : 12;

		if (i + 1 == world->shape.ndim)
			most = left;
		world->shape.offset[i] = 0;
		world->shape.size[i] = 1 + dice_below(dice, most);
		left /= world->shape.size[i];
	}
	if (world->shape.ndim > 0 && dice_chance(dice, 2))
		world->shape.size[dice_below(dice, world->shape.ndim)] = 0;
}

static void add_part(struct world *world, const struct box *box)
{
	world->parts[world->part_count++] = *box;
}

/* Cut @box in two anywhere, its ends included, and each part again. */
static void cut(struct world *world, const struct box *box, unsigned room,
		struct dice *dice)
{
	struct box low = *box, high = *box;
	uint64_t at;
	unsigned axis;

	if (room < 2 || box->ndim == 0 || dice_chance(dice, 15)) {
		add_part(world, box);
		return;
	}
	axis = (unsigned)dice_below(dice, box->ndim);
	at = dice_below(dice, box->size[axis] + 1);
	low.size[axis] = at;
	high.offset[axis] += at;
	high.size[axis] -= at;
	cut(world, &low, room / 2, dice);
	cut(world, &high, room / 2, dice);
}

static void shuffle(struct world *world, struct dice *dice)
{
	unsigned i;

	for (i = world->part_count; i > 1; i--) {
		unsigned j = (unsigned)dice_below(dice, i);
		struct box box = world->parts[i - 1];

		world->parts[i - 1] = world->parts[j];
		world->parts[j] = box;
	}
}

void world_make(struct world *world, const struct world_limits *limits,
		struct dice *dice)
{
	unsigned room = 1u << dice_below(dice, 6);

	memset(world, 0, sizeof(*world));
	world->dtype = dtypes[dice_below(dice, sizeof(dtypes) /
					 sizeof(dtypes[0]))];
	make_shape(world, limits, dice);
	cut(world, &world->shape, room, dice);
	shuffle(world, dice);
	if (dice_chance(dice, limits->holes))
		world->part_count -= (unsigned)dice_below(dice,
			world->part_count + 1);
	if (dice_chance(dice, limits->overlaps))
		while (world->part_count < WORLD_PARTS &&
		       !dice_chance(dice, 30))
			world_pick(dice, &world->shape,
				   &world->parts[world->part_count++]);
}

void world_pick(struct dice *dice, const struct box *outer,
		struct box *ret_box)
{
	unsigned i;

	*ret_box = *outer;
	if (dice_chance(dice, 20))
		return;
	for (i = 0; i < outer->ndim; i++) {
		uint64_t begin, size = outer->size[i];

		if (dice_chance(dice, 30))
			continue;
		begin = dice_below(dice, size + 1);
		ret_box->offset[i] = outer->offset[i] + begin;
		ret_box->size[i] = dice_below(dice, size - begin + 1);
		if (ret_box->size[i] == 0 && begin < size &&
		    dice_chance(dice, 90))
			ret_box->size[i] = 1;
	}
}

int world_owner(const struct world *world, const uint64_t *index)
{
	int part;

	for (part = (int)world->part_count - 1; part >= 0; part--) {
		const struct box *box = &world->parts[part];
		unsigned i;

		for (i = 0; i < box->ndim; i++)
			if (index[i] < box->offset[i] ||
			    index[i] - box->offset[i] >= box->size[i])
				break;
		if (i == box->ndim)
			return part;
	}
	return -1;
}

bool world_step(const struct box *box, uint64_t *index)
{
	unsigned i;

	for (i = box->ndim; i > 0; i--) {
		if (++index[i - 1] < box->size[i - 1])
			return true;
		index[i - 1] = 0;
	}
	return false;
}

uint64_t world_flat(unsigned ndim, const uint64_t *size,
		    const uint64_t *index)
{
	uint64_t flat = 0;
	unsigned i;

	for (i = 0; i < ndim; i++)
		flat = flat * size[i] + index[i];
	return flat;
}
