/* SPDX-License-Identifier: Apache-2.0 */
/* Requests whose answer is a function of what they say, and which know when
 * they are not what was asked. */
#ifndef COMM_SUPPORT_ASKING_H
#define COMM_SUPPORT_ASKING_H

#include "support/dice.h"
#include "support/ranks.h"

struct asked {
	uint64_t seed;		/* of the bytes of the answer */
	uint32_t size;		/* how many of them */
	int32_t error;		/* the answer, if it is not 0 */
	uint32_t from, to, service, reserved;
	uint64_t check;		/* of all that */
};

/* Something to ask @to, of any size and sometimes for an error. */
void asking_make(struct asked *asked, struct dice *dice, unsigned from,
		 unsigned to);
/* The same, to be answered by @size bytes. */
void asking_make_size(struct asked *asked, uint64_t seed, unsigned to,
		      uint32_t size);
/* The call for it; borrows it. */
struct engine_call asking_call(const struct asked *asked);

/* For struct ranks_options: answers with what was asked for; with -EBADMSG
 * when the request is none of these. */
void asking_work(void *context, struct rank *rank,
		 struct engine_request *request);

/* Is what came, after engine_wait, what was asked for? */
bool asking_is_right(const struct asked *asked, const struct engine_call *call);

/* Ask and wait: fails the test if the answer is not right. */
void asking_check(struct engine *engine, const struct asked *asked);
/* Ask and wait: what engine_wait says; bytes must be right. */
int asking_try(struct engine *engine, const struct asked *asked);

#endif
