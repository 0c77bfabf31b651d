/* SPDX-License-Identifier: Apache-2.0 */
#include "support/asking.h"

#include "support/test.h"

#include <errno.h>
#include <string.h>

static uint64_t check_of(const struct asked *asked)
{
	uint64_t check = dice_mix(asked->seed);

	check = dice_mix(check ^ asked->size);
	check = dice_mix(check ^ (uint32_t)asked->error);
	check = dice_mix(check ^ (uint64_t)asked->from << 32 ^ asked->to);
	return dice_mix(check ^ (uint64_t)asked->service << 32 ^
			asked->reserved);
}

static uint32_t pick_size(struct dice *dice)
{
	uint64_t any = dice_below(dice, 100);

	return (uint32_t)(any < 15 ? 0 :
			  any < 80 ? dice_below(dice, 3000) :
			  any < 98 ? dice_below(dice, 70000) :
			  ENGINE_BULK_MAX - dice_below(dice, 3));
}

void asking_make(struct asked *asked, struct dice *dice, unsigned from,
		 unsigned to)
{
	*asked = (struct asked){
		.seed = dice_any(dice), .size = pick_size(dice),
		.from = from, .to = to,
		.service = 1 + (uint32_t)dice_below(dice, SERVICE_COUNT - 1),
	};
	if (dice_chance(dice, 10))
		asked->error = -1 - (int)dice_below(dice, 4095);
	asked->check = check_of(asked);
}

void asking_make_size(struct asked *asked, uint64_t seed, unsigned to,
		      uint32_t size)
{
	*asked = (struct asked){
		.seed = seed, .size = size, .to = to, .service = SERVICE_FILE,
	};
	asked->check = check_of(asked);
}

struct engine_call asking_call(const struct asked *asked)
{
	return (struct engine_call){
		.rank = asked->to, .service = asked->service,
		.payload = asked, .size = sizeof(*asked),
	};
}

static void fill(unsigned char *to, const struct asked *asked)
{
	uint64_t word;
	size_t i, size;

	for (i = 0; i < asked->size; i += size) {
		size = asked->size - i < 8 ? asked->size - i : 8;
		word = dice_mix(asked->seed + i);
		memcpy(to + i, &word, size);
	}
}

void asking_work(void *context, struct rank *rank,
		 struct engine_request *request)
{
	struct asked asked;
	unsigned char *room;

	(void)context;
	if (request->message.size != sizeof(asked)) {
		engine_answer(request, -EBADMSG, 0);
		return;
	}
	memcpy(&asked, request->payload, sizeof(asked));
	if (asked.check != check_of(&asked) || asked.to != rank->rank ||
	    asked.service != request->message.service) {
		engine_answer(request, -EBADMSG, 0);
		return;
	}
	if (asked.error || asked.size == 0) {
		engine_answer(request, asked.error, 0);
		return;
	}
	room = engine_room(request);
	if (!room) {
		engine_answer(request, -ETIMEDOUT, 0);
		return;
	}
	fill(room, &asked);
	engine_answer(request, 0, asked.size);
}

bool asking_is_right(const struct asked *asked, const struct engine_call *call)
{
	uint64_t word;
	size_t i, size;

	if (call->error != asked->error)
		return false;
	if (asked->error)
		return true;
	if (call->got != asked->size)
		return false;
	for (i = 0; i < asked->size; i += size) {
		size = asked->size - i < 8 ? asked->size - i : 8;
		word = dice_mix(asked->seed + i);
		if (memcmp(call->data + i, &word, size) != 0)
			return false;
	}
	return true;
}

void asking_check(struct engine *engine, const struct asked *asked)
{
	struct engine_call call = asking_call(asked);

	/* Whatever else this machine does. */
	call.timeout_ms = 30000;
	assert_int_equal(engine_begin(engine, &call, 1, false), 0);
	engine_wait(engine, &call);
	assert_true(asking_is_right(asked, &call));
	engine_end(engine, &call);
}

int asking_try(struct engine *engine, const struct asked *asked)
{
	struct engine_call call = asking_call(asked);
	int error = engine_begin(engine, &call, 1, false);

	if (error)
		return error;
	error = engine_wait(engine, &call);
	if (!error)
		assert_true(asking_is_right(asked, &call));
	engine_end(engine, &call);
	return error;
}
