/* SPDX-License-Identifier: Apache-2.0 */
/* A client of each rank, which asks the others: one set of a program. */
#ifndef SUPPORT_CLIENTS_H
#define SUPPORT_CLIENTS_H

#include "support/handlers.h"

#include "comm/client.h"

extern struct ranks clients_ranks;
extern struct served served[RANKS_MAX];	/* of each rank */
extern bool clients_ready;		/* all have met */

/* When it is set, rank 0 answers with these bytes whatever it is asked. */
extern const void *raw_data;
extern size_t raw_size;

/* @handlers are those of all. */
void clients_start(unsigned count, const handler handlers[SERVICE_COUNT]);
void clients_stop(void);

struct peers *peers_of(unsigned rank);
/* By what a handler is given. */
unsigned rank_of(const struct served *one);

#endif
