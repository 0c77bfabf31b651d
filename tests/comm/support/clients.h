/* SPDX-License-Identifier: Apache-2.0 */
/* A client of each rank, which asks the others: one set of a program. */
#ifndef SUPPORT_CLIENTS_H
#define SUPPORT_CLIENTS_H

#include "support/handlers.h"

#include "comm/client.h"

extern struct ranks clients_ranks;
extern struct served served[RANKS_MAX];	/* the context of rank's handlers */
extern bool clients_ready;		/* all have met */

/* When it is set, rank 0 answers with these bytes whatever it is asked. */
extern const void *raw_data;
extern size_t raw_size;

void clients_start(unsigned count, const struct peer_handlers *handlers);
void clients_stop(void);

struct peers *peers_of(unsigned rank);
/* By the context that a handler is given. */
unsigned rank_of(const void *context);

#endif
